"""What the site answers over HTTP."""

from __future__ import annotations

import json
from itertools import cycle
from pprint import pformat
from typing import Any, Final

from django.contrib.messages.storage.cookie import CookieStorage
from django.http import HttpRequest

from tests.secrecy.scene import Scene
from tests.secrecy.site import Answer, new_process
from wechat_token.api import openapi

from .base import Seen, name_account, sink

# -- what is answered --------------------------------------------------------------------------------


@sink("HTTP answers", lambda scene, text: scene.answers.append(Answer("x", 503, (), text.encode())))
def http_answers(scene: Scene) -> Seen:
    """All of an answer except the token in one that is meant to bring it."""
    for answer in scene.answers:
        body = answer.json
        rest = answer.body.decode("utf-8", "replace")
        if answer.status == 200 and "access_token" in body:
            rest = json.dumps({name: value for name, value in body.items() if name != "access_token"})
        yield answer.call, f"{answer.status} {rest}"


@sink(
    "HTTP headers and cookies", lambda scene, text: scene.answers.append(Answer("x", 200, (("X-Planted", text),), b""))
)
def http_headers(scene: Scene) -> Seen:
    for answer in scene.answers:
        for name, value in answer.headers:
            yield f"{answer.call} {name}", value
            if name == "Set-Cookie" and value.startswith("messages="):
                data = value.partition("=")[2].partition(";")[0].strip('"')
                yield f"{answer.call} messages", pformat([vars(m) for m in _messages(data)])


def _messages(data: str) -> list[Any]:
    return [message for message in CookieStorage(HttpRequest())._decode(data) or [] if not isinstance(message, str)]


_PAGES: Final = (
    "wechat_token/account/", "wechat_token/account/1/change/", "wechat_token/account/2/change/",
    "wechat_token/refreshlog/", "wechat_token/refreshlog/1/change/", "wechat_token/clientkey/",
    "wechat_token/clientkey/1/change/",
)  # fmt: skip
_QUIET_PAGES: Final = (
    "", "wechat_token/account/add/", "wechat_token/account/1/delete/", "wechat_token/account/1/history/",
    "wechat_token/clientkey/add/", "wechat_token/clientkey/1/delete/", "wechat_token/clientkey/1/history/",
    "django_celery_beat/periodictask/",
)  # fmt: skip


@sink("admin pages", name_account)
def admin_pages(scene: Scene) -> Seen:
    """Those that tell of failures, and of the others the next at each call: all of them in turn."""
    for page in (*_PAGES, next(_next_quiet_page)):
        yield f"/admin/{page}", scene.admin(page).body.decode()


_next_quiet_page = cycle(_QUIET_PAGES)


@sink("health", name_account)
def health(scene: Scene) -> Seen:
    new_process()
    for headers in ({}, {"Authorization": f"Bearer {scene.keys['all'].reveal()}"}):
        answer = scene.http("GET", "/wechat/health", headers=headers)
        yield "health", f"{answer.headers} {answer.body.decode()}"


def _plant_in_openapi(scene: Scene, text: str) -> None:
    scene.stack.callback(setattr, openapi, "document", openapi.document)
    openapi.document = lambda: {"info": text, "paths": {}}


@sink("openapi.json", _plant_in_openapi)
def openapi_json(scene: Scene) -> Seen:
    yield "openapi.json", scene.http("GET", "/wechat/openapi.json").body.decode()
