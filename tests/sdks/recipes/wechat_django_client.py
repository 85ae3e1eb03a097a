from wechat_django.client import WeChatClient
from wechat_django.models import WeChatApp

from .central_token import CentralToken
from .wechatpy_client import CentralTokenMixin


class CentralWeChatClient(CentralTokenMixin, WeChatClient):
    """Server and key are those of the app's form: accesstoken_url, and the client key as AppSecret."""

    def __init__(self, app: WeChatApp) -> None:
        super().__init__(app)
        self.auto_retry = False  # it would fetch the same dead token again, without end
        server = app.configurations["ACCESSTOKEN_URL"].removesuffix("/cgi-bin/token")
        self.tokens = CentralToken(server, app.appid, app.appsecret)


def install() -> None:
    """Call this from ``ready()`` of an app of yours that is listed after ``wechat_django``."""
    WeChatApp._get_client = lambda app: CentralWeChatClient(app)
