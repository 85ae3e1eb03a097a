"""What the demo tells its user: where to look, and in the end what was seen."""

from __future__ import annotations

from collections.abc import Iterator

from wechat_token.conf import get_settings
from wechat_token.sandbox import FakeWeChat

from .content import ADMIN, Content
from .environment import HOST
from .watch import Reader, Renewals


def introduction(content: Content, port: int, life: int, *, real: bool) -> Iterator[str]:
    """The one place where the password and the client key are shown."""
    site = f"http://{HOST}:{port}"
    appid, key, upstream = content.accounts[0].appid, content.key.reveal(), get_settings().api_base_url
    classic = f"{site}/wechat/cgi-bin/token?grant_type=client_credential&appid={appid}&secret={key}"
    yield ""
    yield f"Admin        {site}/admin/   user {ADMIN}   password {content.password}"
    yield f"WeChat       {upstream}" if real else f"Fake WeChat  {upstream}/   its tokens live {life} s"
    yield ""
    yield "A token for any service, by its client key:"
    yield f'  curl -s -H "Authorization: Bearer {key}" {site}/wechat/accounts/{appid}/access_token'
    yield "The same in WeChat's own shape, for an SDK that can change its host:"
    yield f'  curl -s "{classic}"'
    yield "A page with a valid signature for WeChat's JS-SDK (one tag):"
    yield f"  {site}/page/{appid}/"
    yield ""
    if real:
        yield "No token is put to the test here: only the fake WeChat can say which ones are alive."
        yield "Yours is fetched at the stable endpoint, which does not disturb other systems with this AppID."
        yield "Do not switch the account to classic: each call there displaces the token those systems hold."
        yield ""
    yield "Every refresh from here on (Ctrl-C ends everything and removes the scratch data):"


def verdict(content: Content, renewals: Renewals, reader: Reader, fake: FakeWeChat | None) -> str:
    if fake is None:
        calls, tested = renewals.calls, "not put to the test"
    else:
        calls = sum(
            fake.calls_to(account.appid, endpoint)
            for account in content.accounts
            for endpoint in ("classic", "stable", "stable_forced")
        )
        tested = f"{reader.dead} dead tokens served"
    renewed = ", ".join(f"{account.endpoint} {renewals.renewed[account.appid]}" for account in content.accounts)
    return (
        f"Verdict: {reader.reads} reads, {tested}, {reader.missing} reads without a token; "
        f"{calls} calls to WeChat for tokens; renewals: {renewed}."
    )
