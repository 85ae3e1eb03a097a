"""What a warm ``get_access_token()`` or ``get_ticket()`` costs, against other ways to hold a token, in one run.

Redis is compared where one answers at ``REDIS_URL`` or on the standard port.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

APPID = "wx00000benchmark"


def nanoseconds(work: Callable[[], object], *, rounds: int = 7, budget: float = 0.15) -> float:
    """The median over some rounds of the time of one call."""
    calls = 1
    while True:
        started = time.perf_counter()
        for _ in range(calls):
            work()
        if time.perf_counter() - started > budget / 10:
            break
        calls *= 4
    results = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(calls):
            work()
        results.append((time.perf_counter() - started) / calls * 1e9)
    return statistics.median(results)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "example_project.settings",
            "DATABASE_URL": f"sqlite:///{folder}/db.sqlite3",
            "WECHAT_TOKEN_DATA_DIR": folder,
        }
        import django

        django.setup()
        measure()


def measure() -> None:
    from django.core.cache.backends.locmem import LocMemCache
    from django.core.cache.backends.redis import RedisCache
    from django.core.management import call_command

    from wechat_token import get_access_token, get_ticket, refresh_access_token
    from wechat_token.models import Account, Token
    from wechat_token.sandbox.testing import fake_wechat

    call_command("migrate", verbosity=0)
    with fake_wechat() as fake:
        fake.add_account(APPID, "secret")
        Account.objects.create(appid=APPID, secret="secret")
        token = get_access_token(APPID)
        held = {APPID: token}
        local = LocMemCache("benchmark", {})
        local.set(APPID, token, 7200)
        get_ticket(APPID)
        rivals: dict[str, Callable[[], object]] = {
            "a dict, expiry ignored": lambda: held[APPID],
            "get_access_token(appid)": lambda: get_access_token(APPID),
            "get_ticket(appid)": lambda: get_ticket(APPID),
            'get_ticket(appid, "jsapi")': lambda: get_ticket(APPID, "jsapi"),
            "get_access_token()": lambda: get_access_token(),
            "Django's LocMemCache": lambda: local.get(APPID),
            "a complaint about an old token": lambda: refresh_access_token(APPID, stale_token="old"),
            "the token's row, decrypted": lambda: Token.objects.get(kind="access_token").value.reveal(),
        }
        redis = RedisCache(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/9"), {"KEY_PREFIX": "benchmark"})
        try:
            redis.set(APPID, token, 60)
            rivals["Django's RedisCache"] = lambda: redis.get(APPID)
        except Exception as exc:
            print(f"Redis is left out: {type(exc).__name__}")
        figures = {name: nanoseconds(work) for name, work in rivals.items()}
        unit = figures["get_access_token(appid)"]
        for name, figure in sorted(figures.items(), key=lambda item: item[1]):
            print(f"{name:34} {figure:12,.0f} ns   {figure / unit:8.2f} x")
        if "Django's RedisCache" in rivals:
            redis.delete(APPID)


if __name__ == "__main__":
    main()
