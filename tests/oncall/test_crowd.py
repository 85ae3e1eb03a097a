"""A dozen who look at one site at once, in processes of their own: one message."""

from __future__ import annotations

import time

import pytest

from tests.live import services
from tests.live.night import Receiver
from tests.live.site import live_site

LOOK = """
import time
from wechat_token.diagnosis import alerts
from wechat_token.diagnosis.evidence import Database
for at in ({first}, {second}, {second} + 21):
    time.sleep(max(at - time.time(), 0))
    alerts.go(Database.OK)
"""
BREAK = """
from wechat_token.models import Account, Token
a = Account.objects.create(appid="wxcrowd", secret="s")
Token.objects.filter(account=a).update(failures=2, error_class="human", errcode=40125)
"""


@pytest.mark.proof
@pytest.mark.services
def test_alerts__of_many_processes_one_sends() -> None:
    if reason := services.missing("postgres"):
        pytest.skip(reason)
    receiver = Receiver()
    with receiver.listening() as hook, live_site("postgres", settings={"ALERT_WEBHOOKS": [hook]}) as site:
        site.shell(BREAK)
        first = time.time() + 25  # all of them have started by then, on a busy machine too
        code = LOOK.format(first=first, second=first + 21)
        for _ in range(12):
            site.start("manage.py", "shell", "-v", "0", "-c", code)
        for child in site.children:
            assert child.wait(timeout=90) == 0
        causes = sorted(told.body["cause"] for told in receiver.told)
        # Nobody ticks here either, which is another cause, and of each one message.
        assert causes == sorted({*causes, "refused/40125"})
