"""Say what the SBOM and the audit found: ``python .ci/audited.py SBOM.json AUDIT.json``. Fails for an advisory.

pip-audit calls it "no known vulnerabilities" when it could look up nothing at all. That is no result.
"""

import json
import re
import sys
from pathlib import Path

OWN = "django-wechat-token"

sbom = Path(sys.argv[1]).read_text()
components = {part["name"].lower(): part["version"] for part in json.loads(sbom)["components"]}
print(f"SBOM: {len(components)} components")
if found := re.findall(r"file:/[^\"]*|://[^/\"\s@]+:[^/\"\s@]+@", sbom):
    sys.exit(f"the SBOM names this machine's paths or credentials, {len(found)} times")
if missing := {"django", "celery", "cryptography", "requests", "urllib3"} - components.keys():
    sys.exit(f"the SBOM lacks {', '.join(sorted(missing))}")

try:
    audited = json.loads(Path(sys.argv[2]).read_text())["dependencies"]
except (ValueError, KeyError):
    audited = []
looked_up = [one for one in audited if "skip_reason" not in one and one["name"].lower() != OWN]
skipped = sorted(components.keys() - {one["name"].lower() for one in looked_up} - {OWN})
for one in looked_up:
    for advisory in one["vulns"]:
        fixed = ", ".join(advisory["fix_versions"]) or "no release yet"
        print(f"{one['name']} {one['version']}: {advisory['id']} (fixed in {fixed})")
print(f"looked up: {len(looked_up)}")
if skipped:
    print(f"NOT AUDITED, as their advisories cannot be read here: {', '.join(skipped)}")
sys.exit(1 if any(one["vulns"] for one in looked_up) else 0)
