"""A page for people that shows what the sandbox is doing, without a secret or a token on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem;color-scheme:light dark}"
    "table{border-collapse:collapse}th,td{padding:.3rem .8rem;text-align:left;border-bottom:1px solid #8886}"
)


def status_page(state: Mapping[str, Any]) -> str:
    """HTML of :meth:`FakeWeChat.state`. Reloads itself every two seconds."""
    header = ("AppID", "Classic token", "Stable token", "Issued", "Calls", "AppSecret")
    rows = "".join(_row("td", _cells(account)) for account in state["accounts"])
    weather = "outage" if state["outage"] else "up"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="2">'
        f'<link rel="icon" href="data:,"><title>Sandbox WeChat</title><style>{_STYLE}</style></head><body>'
        "<h1>Sandbox WeChat</h1>"
        "<p>Not the real one: nothing here reaches Tencent, and no secret here is real.</p>"
        f"<p>State: <b>{weather}</b>. Tokens live {state['life']:g} s, displaced ones {state['overlap']:g} s "
        f"more. Faults waiting: {state['faults']}.</p>"
        f"<table>{_row('th', header)}{rows}</table></body></html>"
    )


def _cells(account: Mapping[str, Any]) -> Iterable[str]:
    yield account["appid"]
    yield _token(account["classic"])
    yield _token(account["stable"])
    yield _counts(account["issued"])
    yield _counts(account["calls"])
    yield "frozen" if account["frozen"] else "in use"


def _token(token: Mapping[str, Any] | None) -> str:
    return f"#{token['serial']}, {token['ends_in']:g} s left" if token else "none"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _row(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
