"""What ``api.weixin.qq.com`` means by an ``errcode`` while a credential is fetched (docs/design.md W9, W12).

Pure tables, one for each call: class, meaning and instruction follow from call and code alone, so that they can be
shown for a code stored long ago, in the reader's language. The same number means something else on
``qyapi.weixin.qq.com`` and in calls that *use* a token: WeCom and business calls must not be judged by them.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from django.utils.translation import gettext_lazy as _

from ..exceptions import ErrorClass

if TYPE_CHECKING:
    from django_stubs_ext import StrPromise

# Answers to a business call or a probe that mean "this token is dead" (docs/design.md W10). Nothing else does.
DEAD_TOKEN_CODES: Final = frozenset({40001, 40014, 42001})

_ERRCODE: Final = re.compile(r"-?[0-9]{1,9}")


def read_errcode(body: Mapping[str, Any]) -> int | None:
    """``errcode`` as a number, also where it came as text; None if there is none that WeChat could mean."""
    code = body.get("errcode")
    if type(code) is int:  # a bool is an int as well
        code = str(code) if abs(code) < 10**9 else ""
    return int(code) if isinstance(code, str) and _ERRCODE.fullmatch(code) else None


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a failure is and what to do about it, for people. ``retry_after`` is in seconds, where WeChat
    says so."""

    error_class: ErrorClass
    summary: StrPromise
    action: StrPromise
    retry_after: float | None = None
    action_with_ip: StrPromise | None = None  # the same with %(ip)s
    action_on_stable: StrPromise | None = None  # the same for whoever uses the stable endpoint already

    def advise(self, egress_ip: str = "", *, on_stable: bool = False) -> str:
        """The action in the active language, naming the address WeChat saw us come from where that matters.

        ``on_stable``: the account uses the stable endpoint, which need not be recommended then.
        """
        if on_stable and self.action_on_stable is not None:
            return str(self.action_on_stable)
        if egress_ip and self.action_with_ip is not None:
            return str(self.action_with_ip) % {"ip": egress_ip}
        return str(self.action)


_EGRESS_IP = re.compile(r"(?:\binvalid ip|\brequestIP:)\s*([0-9A-Fa-f:.]{2,45})", re.ASCII)


def find_egress_ip(errmsg: str) -> str:
    """Our address as WeChat saw it, from the texts of 40164 and 61004 (docs/design.md W11), or ''."""
    found = _EGRESS_IP.search(errmsg)
    if found is None:
        return ""
    try:
        address = ipaddress.ip_address(found.group(1).rstrip(".:"))
    except ValueError:
        return ""
    # "::ffff:1.2.3.4" is how WeChat writes an IPv4 address into an IPv6 field; the whitelist wants 1.2.3.4.
    return str(getattr(address, "ipv4_mapped", None) or address)


_H: Final = ErrorClass.HUMAN

_ENTER_SECRET = _(
    "Ask whoever last reset the AppSecret for the new one, or reset it, and enter it in this account. It "
    "is shown once, at the reset, which ends the old one at once: at developers.weixin.qq.com/platform → "
    "我的业务 → the account → 基础信息 → 开发密钥; of a Mini Program at mp.weixin.qq.com → 管理 → 开发管理 "
    "→ 开发设置."
)
_REPORT_BUG = _(
    "Check API_BASE_URL and any proxy in between, which may have changed the request. If they are right, "
    "this is a bug: report it with the errcode and the rid."
)
_ASK_ADMINISTRATOR = _(
    "The account's administrator has to confirm this server in the message WeChat sent to their phone. To "
    "be rid of these questions, put this server's public IP address on the account's IP whitelist "
    "(IP白名单)."
)
_OPEN_PLATFORM_TICKET = _(
    "Wait for the next component_verify_ticket, which is pushed about every 10 minutes. If none arrives, "
    "check the authorization event URL (授权事件接收URL) and restart the push with api_start_push_ticket."
)

FETCHING: Final[dict[int, Meaning]] = {
    -1: Meaning(
        ErrorClass.TRANSIENT,
        _("WeChat is busy."),
        _("Nothing to do: it is retried automatically."),
    ),
    40001: Meaning(_H, _("The AppSecret is wrong or belongs to another account."), _ENTER_SECRET),
    40002: Meaning(_H, _("WeChat does not accept the grant_type."), _REPORT_BUG),
    40013: Meaning(
        _H,
        _("WeChat does not know this AppID."),
        _(
            "Compare the AppID with the one in the console, letter by letter: it begins with wx, is 18 "
            "characters long, and upper and lower case differ. See developers.weixin.qq.com/platform → "
            "我的业务 → the account → 基础信息; for a Mini Program mp.weixin.qq.com → 管理 → 开发管理 → "
            "开发设置."
        ),
    ),
    40125: Meaning(_H, _("The AppSecret is invalid."), _ENTER_SECRET),
    40164: Meaning(
        _H,
        _("This server's IP address is not on the account's whitelist."),
        _(
            "Add this server's public IP address to the IP whitelist (IP白名单) of this very account; "
            "entering it on another account's page is the commonest mistake. The list is beside the "
            "AppSecret: developers.weixin.qq.com/platform → 我的业务 → the account → 基础信息 → 开发密钥; "
            "for a Mini Program mp.weixin.qq.com → 管理 → 开发管理 → 开发设置. It takes some minutes to "
            "have effect."
        ),
        action_with_ip=_(
            "Add %(ip)s to the IP whitelist (IP白名单) of this very account; entering it on another "
            "account's page is the commonest mistake. The list is beside the AppSecret: "
            "developers.weixin.qq.com/platform → 我的业务 → the account → 基础信息 → 开发密钥; for a Mini "
            "Program mp.weixin.qq.com → 管理 → 开发管理 → 开发设置. It takes some minutes to have effect."
        ),
    ),
    40243: Meaning(
        _H,
        _("The AppSecret is frozen."),
        _(
            "Unfreeze it (解冻); that takes 10 minutes, and the AppSecret stays the same: "
            "developers.weixin.qq.com/platform → 我的业务 → the account → 基础信息 → 开发密钥; for a Mini "
            "Program mp.weixin.qq.com → 管理 → 开发管理 → 开发设置."
        ),
    ),
    41002: Meaning(_H, _("The request arrived without an AppID."), _REPORT_BUG),
    41004: Meaning(_H, _("The request arrived without an AppSecret."), _REPORT_BUG),
    43002: Meaning(_H, _("WeChat wants a POST here."), _REPORT_BUG),
    44002: Meaning(_H, _("The request arrived with an empty body."), _REPORT_BUG),
    45009: Meaning(
        ErrorClass.QUOTA,
        _("The day's quota of token requests is used up."),
        _(
            "Find the system that requests tokens in a loop; every system that holds this AppSecret "
            "counts. The stable endpoint has a far larger quota. The counters can be reset by hand "
            "(clear_quota), ten times a month."
        ),
        action_on_stable=_(
            "Find the system that requests tokens in a loop; every system that holds this AppSecret "
            "counts. The counters can be reset by hand (clear_quota), ten times a month."
        ),
    ),
    45011: Meaning(
        ErrorClass.QUOTA,
        _("Too many token requests in a minute."),
        _("Nothing to do at once: it is tried again after a minute. If it comes back, find who asks so often."),
        retry_after=65.0,
    ),
    47001: Meaning(_H, _("WeChat could not read the body of the request."), _REPORT_BUG),
    48006: Meaning(
        ErrorClass.QUOTA,
        _("This month's resets of the quota counters are used up."),
        _("Wait for the next month, or for the day's quota to renew itself."),
    ),
    48017: Meaning(
        _H,
        _("The request went to an entry address that WeChat has retired."),
        _(
            "Look for api.weixin.qq.com in /etc/hosts, in the DNS server and in the proxy: its address "
            "must not be pinned or cached for long."
        ),
    ),
    50004: Meaning(
        _H,
        _("The account is barred from requesting tokens, perhaps as a penalty."),
        _("Log in to mp.weixin.qq.com and read the notices to this account, then follow the penalty's instructions."),
    ),
    50007: Meaning(
        _H,
        _("The account is frozen."),
        _("Log in to mp.weixin.qq.com and have the account restored by the platform."),
    ),
    61004: Meaning(
        _H,
        _("This server's IP address is not registered with the platform."),
        _(
            "Add this server's public IP address to the IP whitelist of the third-party platform "
            "(open.weixin.qq.com → 管理中心 → 第三方平台 → 详情) or, for an account of its own, of that "
            "account."
        ),
        action_with_ip=_(
            "Add %(ip)s to the IP whitelist of the third-party platform (open.weixin.qq.com → 管理中心 → "
            "第三方平台 → 详情) or, for an account of its own, of that account."
        ),
    ),
    61005: Meaning(_H, _("The platform's component_verify_ticket has expired."), _OPEN_PLATFORM_TICKET),
    61006: Meaning(_H, _("The platform's component_verify_ticket is invalid."), _OPEN_PLATFORM_TICKET),
    61011: Meaning(
        _H,
        _("WeChat does not know this third-party platform."),
        _("Correct the platform's AppID: open.weixin.qq.com → 管理中心 → 第三方平台 → 详情."),
    ),
    61024: Meaning(
        _H,
        _("This AppID belongs to a third-party platform, which has no ordinary access_token."),
        _("Enter the AppID and AppSecret of the account itself, not those of the third-party platform."),
    ),
    89501: Meaning(_H, _("This server is waiting for the administrator's confirmation."), _ASK_ADMINISTRATOR),
    89502: Meaning(_H, _("This server is waiting for the administrator's confirmation."), _ASK_ADMINISTRATOR),
    89503: Meaning(_H, _("The administrator has to confirm this server."), _ASK_ADMINISTRATOR),
    89504: Meaning(_H, _("This server is waiting for the administrator's confirmation."), _ASK_ADMINISTRATOR),
    89505: Meaning(_H, _("This server is waiting for the administrator's confirmation."), _ASK_ADMINISTRATOR),
    89506: Meaning(
        _H,
        _("The administrator refused this server twice: its IP address is barred for 24 hours."),
        _(
            "Talk to the account's administrator before the 24 hours are over: a further refusal may bar "
            "the address for long. An address on the account's IP whitelist (IP白名单) is not asked about."
        ),
        retry_after=24 * 3600.0,
    ),
    89507: Meaning(
        _H,
        _("The administrator refused this server: its IP address is barred for an hour."),
        _(
            "Talk to the account's administrator: WeChat asks again in an hour, and a second refusal bars "
            "the address for a day. An address on the account's IP whitelist (IP白名单) is not asked about."
        ),
        retry_after=3600.0,
    ),
}

UNKNOWN_CODE: Final = Meaning(
    ErrorClass.UNKNOWN,
    _("WeChat answered with an errcode that this version does not know."),
    _("Look the errcode up in WeChat's documentation, or enter the rid in its API diagnosis tool (API 诊断工具)."),
)
NO_ANSWER: Final = Meaning(
    ErrorClass.TRANSIENT,
    _("No answer arrived from WeChat."),
    _(
        "It is retried automatically. If it lasts, check DNS, the firewall and the proxy between this "
        "server and api.weixin.qq.com; API_BASE_URL can name another of WeChat's entries, such as "
        "api2.weixin.qq.com."
    ),
)
UNUSABLE_ANSWER: Final = Meaning(
    ErrorClass.TRANSIENT,
    _("Something other than WeChat's documented answer arrived."),
    _(
        "It is retried automatically. If it lasts, check API_BASE_URL, and whether a proxy or a login page "
        "of the network answers in WeChat's place."
    ),
)

_TOKEN_REFUSED = Meaning(
    ErrorClass.TRANSIENT,
    _("WeChat refused the access_token that the ticket was asked for with."),
    _(
        "Nothing to do: the token is checked and, if WeChat refuses it, replaced. If it comes back, another system "
        "renews the token of this account."
    ),
)

# While a ticket is fetched (docs/design.md W17). The codes about the server's address and about quotas mean the same.
TICKETS: Final[dict[int, Meaning]] = {
    **FETCHING,
    40001: _TOKEN_REFUSED,
    40014: _TOKEN_REFUSED,
    42001: _TOKEN_REFUSED,
    45009: Meaning(
        ErrorClass.QUOTA,
        _("The day's quota of ticket requests is used up."),
        _("Find the system that requests tickets in a loop: every system that has this account's token counts."),
    ),
    48001: Meaning(
        _H,
        _("This account may not request tickets."),
        _(
            "Tickets are for Official Accounts (公众号, 服务号); a Mini Program has none. See mp.weixin.qq.com → "
            "设置与开发 → 接口权限 for what this account may call, or stop asking for its ticket."
        ),
    ),
}
