"""Generated requests against the description: every answer must be one that ``openapi.json`` promises."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import PREFIX

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

from schemathesis.specs.openapi import checks  # noqa: E402  after the skip

# Not `negative_data_rejection`: in WeChat's dialect a refusal is a 200 with an errcode.
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@cache
def description() -> Any:
    return schemathesis.openapi.from_wsgi(f"{PREFIX}/openapi.json", app=get_wsgi_application())


@pytest.mark.parametrize("examples", [10, pytest.param(50, marks=pytest.mark.proof)])
@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/accounts/{appid}/access_token", "GET"),
        ("/accounts/{appid}/access_token/refresh", "POST"),
        ("/accounts/{appid}/jsapi_ticket", "GET"),
        ("/accounts/{appid}/jsapi_ticket/refresh", "POST"),
        ("/accounts/{appid}/jsapi_signature", "GET"),
        ("/cgi-bin/token", "GET"),
        ("/cgi-bin/ticket/getticket", "GET"),
        ("/cgi-bin/stable_token", "POST"),
    ],
)
def test_service__keeps_its_description(caller, path, method, mode, examples):
    strategy = description()[path][method].as_strategy(generation_mode=schemathesis.GenerationMode(mode))

    @given(case=strategy, appid=st.sampled_from([caller.appid, "wxunknown", None]), with_key=st.booleans())
    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    def ask(case, appid, with_key):
        if appid and "appid" in case.path_parameters:
            case.path_parameters["appid"] = appid
        response = case.call(headers=caller.auth if with_key else {})
        case.validate_response(response, checks=CHECKS)
        assert response.status_code < 500

    ask()
