"""Fail if tests were skipped although what they need is here: ``python .ci/skipped.py REPORT.xml…``."""

import shutil
import socket
import sys
import xml.etree.ElementTree as ET

PORTS = {"postgres": 5432, "mariadb": 3306, "redis": 6379, "rabbitmq": 5672}


def is_up(port: int) -> bool:
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


here = [name for name, port in PORTS.items() if is_up(port)]
if shutil.which("chromium") and shutil.which("chromedriver"):
    here.append("chromium")
if shutil.which("nginx", path="/usr/sbin:/usr/bin"):
    here.append("nginx")

wrong = []
for case in (case for report in sys.argv[1:] for case in ET.parse(report).getroot().iter("testcase")):
    for skipped in case.iter("skipped"):
        reason = skipped.get("message", "")
        print(f"skipped: {case.get('classname')}.{case.get('name')}: {reason}")
        if any(name in reason.lower() for name in here):
            wrong.append(case.get("name"))

print(f"up here: {', '.join(here) or 'nothing'}; wrongly skipped: {len(wrong)}")
sys.exit(1 if wrong else 0)
