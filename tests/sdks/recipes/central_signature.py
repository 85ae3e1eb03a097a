from typing import Any
from urllib.parse import quote

import requests


def sign_page(url: str, appid: str, key: str, page: str) -> dict[str, Any]:
    """What wx.config takes for ``page`` (location.href). ``key``: a client key made with --may-read signatures."""
    answer = requests.get(
        f"{url.rstrip('/')}/accounts/{quote(appid, safe='')}/jsapi_signature",
        params={"url": page},
        headers={"Authorization": f"Bearer {key}"},
        timeout=30,
    )
    answer.raise_for_status()
    return dict(answer.json())
