"""The description that is served says what the service does: no call, code or state is missing or invented."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from django.test import Client

from tests.api.conftest import PREFIX
from wechat_token import urls
from wechat_token.api import bodies, openapi, refusals
from wechat_token.api.refusals import Problem
from wechat_token.diagnosis.states import State
from wechat_token.exceptions import ErrorClass

DOCS = Path(__file__).parents[2] / "docs" / "http-api.md"
PROBLEMS = [problem for problem in vars(refusals).values() if isinstance(problem, Problem)]
WEIXIN_ONLY = {
    refusals.INVALID_GRANT_TYPE, refusals.APPID_MISSING, refusals.SECRET_MISSING, refusals.SWITCHED_OFF,
    refusals.INVALID_TICKET_TYPE, refusals.INVALID_TOKEN,
}  # fmt: skip
# Of public/jssdk, which sites mount apart (wechat_token.public_urls).
PUBLIC = {
    refusals.ORIGIN_NOT_ALLOWED, refusals.URL_NOT_ALLOWED, refusals.SIGNATURES_OFF, refusals.TOO_MANY_SIGNATURES,
}  # fmt: skip


@pytest.fixture(scope="module")
def document():
    return openapi.document()


def schema(document, name):
    return document["components"]["schemas"][name]["properties"]


def test_openapi__is_served_to_anybody(document):
    response = Client().get(f"{PREFIX}/openapi.json")
    assert response.json() == {**document, "servers": [{"url": PREFIX}]}
    assert response["Content-Type"] == "application/json"


@pytest.mark.urls("wechat_token.urls")
def test_openapi__names_the_prefix_even_if_there_is_none():
    assert Client().get("/openapi.json").json()["servers"] == [{"url": "/"}]


def test_openapi__is_valid(document):
    pytest.importorskip("openapi_spec_validator", reason="openapi-spec-validator is not installed").validate(document)


def test_openapi__describes_every_call_and_no_other(document):
    mounted = {"/" + str(pattern.pattern).replace("<str:appid>", "{appid}") for pattern in urls.urlpatterns}
    assert set(document["paths"]) == mounted


def test_openapi__knows_every_code(document):
    codes = schema(document, "Error")["error"]["properties"]["code"]["enum"]
    assert set(codes) == {problem.code for problem in PROBLEMS if problem not in WEIXIN_ONLY | PUBLIC}
    assert len(codes) == len(set(codes))


def test_openapi__knows_every_errcode(document):
    assert set(schema(document, "WeixinError")["errcode"]["enum"]) == {problem.errcode for problem in PROBLEMS}


def test_openapi__knows_every_state_and_class(document):
    account = schema(document, "AccountHealth")
    assert set(account["state"]["enum"]) == set(State)
    assert set(account["error_class"]["enum"]) == {*ErrorClass, None}
    assert set(schema(document, "Error")["error"]["properties"]["class"]["enum"]) == {*ErrorClass, None}


def test_openapi__knows_the_size_of_a_body(document):
    assert str(bodies.MAX_BYTES) in document["components"]["responses"]["TooLarge"]["description"]


def test_openapi__gives_every_status_a_code_can_have(document):
    responses = document["components"]["responses"].values()
    described = {code for response in responses for code in response["content"]["application/json"]["examples"]}
    assert described == {problem.code for problem in PROBLEMS if problem not in WEIXIN_ONLY | PUBLIC}


def test_openapi__holds_nothing_that_looks_like_a_secret():
    assert not re.search(r"wxt_[0-9A-Za-z]{8}|[0-9a-f]{32}|[0-9A-Za-z_-]{60}", json.dumps(openapi.document()))


def test_docs__have_every_code_with_its_status_and_errcode():
    text = DOCS.read_text(encoding="utf-8")
    for problem in PROBLEMS:
        if problem in WEIXIN_ONLY:
            assert f"`{problem.errcode}`" in text
        else:
            assert re.search(rf"\| `{problem.code}` \| {problem.status} \|.*`{problem.errcode}`", text), problem


def test_problems__of_one_code_have_one_status():
    assert len({(problem.code, problem.status) for problem in PROBLEMS}) == len({p.code for p in PROBLEMS})
