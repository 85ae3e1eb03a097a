"""``WeChatSession``: business calls to WeChat with the token put in, and replaced once if it turns out dead.

The token never becomes part of a request that others can see. It joins a copy of the request inside this
module's adapter, and the URL in the connection's last step: ``response.url``, ``response.request``, hooks,
errors, urllib3's debug lines and error trackers meet the call as it was written, without a token (S2).
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlsplit

import requests
from django.utils.translation import gettext as _
from requests.adapters import BaseAdapter
from requests.utils import rewind_body

from . import __version__
from .conf import Settings
from .engine import AccountRef, complain, current_entry, platform_of, resolve
from .exceptions import HostNotAllowed
from .platforms import ACCESS_TOKEN, Platform
from .platforms.errcodes import read_errcode
from .platforms.http_adapter import Exchange, get_adapter
from .platforms.transport import base_url, parse, proxies, shielded
from .redaction import Secret

TIMEOUT: Final = 30.0
LONGEST_REFUSAL: Final = 4096  # bytes; an answer longer than this is no error message


class WeChatSession(requests.Session):
    """A ``requests`` session that knows one account's access_token::

        with WeChatSession("wx0123456789abcdef") as wx:
            user = wx.get("/cgi-bin/user/info", params={"openid": openid}).json()

    A path is joined to ``API_BASE_URL``; other URLs must name one of WeChat's API hosts (``HostNotAllowed``).
    If the answer says that the token is dead (40001, 40014, 42001), the session complains about this very
    token (R8) and sends the call once more with the token it gets, unless it is the same. Never more often.
    A body that was read from a stream is sent again only if the stream can be rewound (else requests'
    ``UnrewindableBodyError``). The answers of ``stream=True`` calls are left unread and so are not repeated.

    ``account``: as for :func:`wechat_token.get_access_token`, whose errors every call can raise.
    ``timeout``: seconds in total for one request with its answer; also per call (``timeout=`` of ``get`` …),
    where of a pair the second number counts. A failed exchange raises ``TransportError``, which is a
    ``requests.RequestException``.

    Redirects are not followed. Proxy and trusted certificates are those of the ``WECHAT_TOKEN`` setting;
    the environment's are ignored. Sessions share the process's connections and are cheap to make.
    """

    __attrs__ = (*requests.Session.__attrs__, "account", "timeout")

    def __init__(self, account: AccountRef = None, *, timeout: float = TIMEOUT) -> None:
        super().__init__()
        self.account = account if account is None else resolve(account)[0]
        self.timeout = timeout
        self.trust_env = False
        self.headers["User-Agent"] = f"django-wechat-token/{__version__}"
        adapter = _TokenAdapter(self.account)
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """As in ``requests``; a path becomes a URL."""
        if isinstance(request.url, str) and request.url.startswith("/"):
            request = copy.copy(request)
            request.url = f"{base_url(_platform(self.account).way.settings())}{request.url}"
        return super().prepare_request(request)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """As in ``requests``, within ``timeout``. Raises ``ValueError`` for proxies, verify or cert."""
        if kwargs.get("proxies") or kwargs.get("verify", True) is not True or kwargs.get("cert"):
            raise ValueError(_("Set WECHAT_TOKEN['PROXY'] and ['CA_BUNDLE'] instead of proxies, verify and cert."))
        kwargs["timeout"] = _total(kwargs.get("timeout"), self.timeout)
        return super().send(request, **kwargs)

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: a redirect is handed back as it is; the token and the body do not travel on."""


def _total(timeout: Any, default: float) -> float:
    if isinstance(timeout, tuple):
        timeout = timeout[-1]
    return default if timeout is None else float(timeout)


class _TokenAdapter(BaseAdapter):
    """Adds the token, judges the answer, repeats at most once. Sends through the process's own adapter."""

    def __init__(self, ref: str | None) -> None:
        super().__init__()
        self.ref = ref

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = TIMEOUT,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        platform = _platform(self.ref)
        source = platform.source(ACCESS_TOKEN)
        settings = platform.way.settings()
        assert source is not None  # noqa: S101  for the type checker: system checks want one of each platform
        _refuse_unless_ours(request, settings, platform.way.hosts, source.parameter)
        key = resolve(self.ref)
        token = Secret(current_entry(key).value)
        response = _exchange(request, (source.parameter, token), settings, timeout, stream=stream)
        if stream or not _says_token_is_dead(response, source.dead_codes):
            return response
        successor = Secret(complain(key, token).value)
        if successor == token:  # WeChat accepts it after all: the refusal had another cause
            return response
        _rewind(request)
        return _exchange(request, (source.parameter, successor), settings, timeout, stream=stream)

    def close(self) -> None:
        """The connections belong to the process."""


def _platform(ref: str | None) -> Platform:
    return platform_of(resolve(ref)[0])


Carried = tuple[str, Secret]  # the query parameter, and the token it carries


def _exchange(
    request: requests.PreparedRequest, token: Carried, settings: Settings, seconds: float, *, stream: bool
) -> requests.Response:
    """One request and its answer. Errors are raised here, with no context, as in ``transport.call``."""
    exchange = Exchange(settings, seconds)
    send = partial(_send, request, token, exchange, stream=stream)
    outcome = shielded(exchange, urlsplit(_url(request)).hostname, send)
    if isinstance(outcome, requests.Response):
        return outcome
    try:
        raise outcome
    finally:
        del outcome


def _send(request: requests.PreparedRequest, token: Carried, exchange: Exchange, *, stream: bool) -> requests.Response:
    settings = exchange.settings
    carrier = request.copy()
    carrier.url = _with_token(_url(request), *token)
    response = get_adapter(settings).send(
        carrier,
        stream=True,
        timeout=(settings.connect_timeout, exchange.deadline),
        verify=True,
        proxies=proxies(settings),
    )
    response.request = request
    response.url = _url(request)
    if not stream:
        response.content  # noqa: B018  reads and keeps the body while errors are still caught
    return response


def _url(request: requests.PreparedRequest) -> str:
    return str(request.url or "")


def _with_token(url: str, parameter: str, token: Secret) -> str:
    parts = urlsplit(url)
    query = f"{parts.query}&" if parts.query else ""
    return parts._replace(query=f"{query}{parameter}={quote(token.reveal(), safe='')}", fragment="").geturl()


def _refuse_unless_ours(
    request: requests.PreparedRequest, settings: Settings, hosts: frozenset[str], parameter: str
) -> None:  # fmt: skip
    """The last gate before anything is sent, on the URL by which ``requests`` would choose the peer."""
    parts = urlsplit(_url(request))
    allowed = {("https", host, 443) for host in hosts} | {_origin(base_url(settings))}
    if "@" in parts.netloc or _origin(_url(request)) not in allowed:
        raise HostNotAllowed(
            _("The access_token is sent to WeChat's API hosts and API_BASE_URL only, not to %(host)s.")
            % {"host": f"{parts.scheme}://{parts.hostname}"}
        )
    if any(name == parameter for name, _value in parse_qsl(parts.query, keep_blank_values=True)):
        raise ValueError(
            _("Leave access_token out: WeChatSession adds it. For a user's OAuth token use plain requests.")
        )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _says_token_is_dead(response: requests.Response, dead_codes: frozenset[int]) -> bool:
    """Whatever the HTTP status and the Content-Type say: WeChat's verdict is in the body."""
    if len(response.content) > LONGEST_REFUSAL or b'"errcode"' not in response.content:
        return False
    body = parse(response.content)
    return body is not None and read_errcode(body) in dead_codes


def _rewind(request: requests.PreparedRequest) -> None:
    """Make the body ready to be sent again. Raises ``UnrewindableBodyError``; half a body is never sent."""
    if request.body is None or isinstance(request.body, str | bytes):
        return
    if not isinstance(request._body_position, int):
        raise requests.exceptions.UnrewindableBodyError(
            _(
                "WeChat refused the access_token and there is a new one, but the body was a stream that "
                "cannot be sent again. Make the call again, or pass bytes or a seekable file."
            )
        )
    rewind_body(request)
