"""What an operator sets and types: the addresses, their checks, the test message, and a site in remote mode."""

from __future__ import annotations

import json

import pytest
import responses
from django.core import checks as django_checks
from django.core import mail

from tests.test_command import Run
from wechat_token import checks, conf
from wechat_token.exceptions import ConfigurationError
from wechat_token.models import Host

CANARY = "canary-4f9a7c1e-webhook-key"
HOOK = f"https://monitor.example.com/{CANARY}"


def found(settings, *, deploy=False, **values):
    settings.WECHAT_TOKEN = values
    return django_checks.run_checks(tags=["wechat_token"], include_deployment_checks=deploy)


def test_settings__keep_an_address_to_themselves(settings):
    settings.WECHAT_TOKEN = {"ALERT_WEBHOOKS": [HOOK, {"url": HOOK, "secret": CANARY}]}
    hooks = conf.get_settings().alert_webhooks
    assert [hook.url.reveal() for hook in hooks] == [HOOK, HOOK]
    assert CANARY not in repr(conf.get_settings())


@pytest.mark.parametrize("value", [CANARY, [7], [{"secret": CANARY}], [{"url": HOOK, "key": CANARY}], [{"url": 7}]])
def test_settings__what_is_no_list_of_webhooks(settings, value):
    settings.WECHAT_TOKEN = {"ALERT_WEBHOOKS": value}
    (problem,) = conf.problems()
    assert problem.message.startswith("WECHAT_TOKEN['ALERT_WEBHOOKS'] must be a list of URLs")
    assert CANARY not in problem.message
    with pytest.raises(ConfigurationError):
        conf.get_settings()


@pytest.mark.parametrize(
    "url", [f"ftp://host/{CANARY}", CANARY, f"https:///{CANARY}", f"https://[/{CANARY}", f"http://h:0/{CANARY}", "",
            f"https://host/{CANARY}\nx"],
)  # fmt: skip
def test_check__an_address_that_is_none_is_named_by_its_number(settings, url):
    (message,) = found(settings, ALERT_WEBHOOKS=["http://10.0.0.5/hook", url])
    assert message == checks.unusable_value(
        "WECHAT_TOKEN['ALERT_WEBHOOKS']: entry 2 is no URL of the form https://HOST/PATH.",
        "Copy it again from the robot's page.",
    )


def test_check__an_email_address_that_is_none(settings):
    (message,) = found(settings, ALERT_EMAILS=["oncall@example.com", "oncall"])
    assert message.msg == "WECHAT_TOKEN['ALERT_EMAILS']: entry 2 is no e-mail address."


def test_check__somebody_should_be_told(settings):
    settings.EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
    assert checks.nobody_is_told() in found(settings, deploy=True)
    assert checks.mail_stays_here("console") in found(settings, deploy=True, ALERT_EMAILS=["oncall@example.com"])
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    good = found(settings, deploy=True, ALERT_EMAILS=["oncall@example.com"])
    assert {message.id for message in good} & {"wechat_token.W030", "wechat_token.W031"} == set()


def test_alert__sends_a_test_to_everybody_and_says_who_was_not_reached(settings):
    settings.WECHAT_TOKEN = {"ALERT_EMAILS": ["oncall@example.com"], "ALERT_WEBHOOKS": [HOOK, HOOK + "/2"]}
    with responses.RequestsMock() as net:
        net.post(HOOK, status=200)
        net.post(HOOK + "/2", status=500)
        run = Run("alert", "--test")
    assert (run.code, run.error) == (1, "Not everybody can be reached.")
    assert run.out.splitlines() == ["webhook 1: sent", "webhook 2: failed: HTTP 500", "ALERT_EMAILS: sent"]
    assert mail.outbox[0].subject == "[wechat_token] This is a test: alerts of this site reach you."


def test_alert__wants_to_be_told_what_and_whom(settings):
    assert Run("alert").code == 2
    settings.WECHAT_TOKEN = {}
    run = Run("alert", "--test")
    assert (run.code, run.out) == (1, "")
    assert "ALERT_EMAILS" in run.error


def test_status__names_what_is_wrong_with_the_site(account, time):
    told = {"cache": {"at": time.now().isoformat(), "pid": 1, "text": "ConnectionError"}}
    Host.objects.create(name="web-2", seen_at=time.now(), problems=told)
    run = Run("status")
    assert run.code == 1
    assert "problem: The cache fails on web-2: ConnectionError." in run.out
    report = json.loads(Run("status", "--json").out)
    assert [problem["id"] for problem in report["problems"]] == ["cache-down"]
    assert report["healthy"] is False


@pytest.fixture
def remote(settings):
    """Without the ``db`` fixture, touching a table is an error: a site in remote mode may have none."""
    settings.WECHAT_TOKEN = {
        "REMOTE_URL": "https://tokens.example.com/wechat", "REMOTE_KEY": "wxt_" + "a" * 38, "REMOTE_APPID": "wxremote",
    }  # fmt: skip
    settings.DEBUG = True
    with responses.RequestsMock(assert_all_requests_are_fired=False) as net:
        yield net


TOKEN_URL = "https://tokens.example.com/wechat/accounts/wxremote/access_token"


def test_remote__status_speaks_of_the_token_server(remote):
    answer = {"access_token": "remote-token", "expires_in": 3600, "expires_at": "2030-01-01T00:00:00+00:00"}
    remote.get(TOKEN_URL, json=answer)
    run = Run("status")
    assert run.code == 0
    assert run.out.splitlines() == [
        "This site takes its tokens from https://tokens.example.com/wechat; its accounts are there.",
        "A token of wxremote can be had, good for 59 min.",
    ]
    assert json.loads(Run("status", "--json").out)["healthy"] is True


def test_remote__status_of_a_token_server_that_is_down(remote, time):
    remote.get(TOKEN_URL, status=502)
    run = Run("status")
    assert (run.code, run.error) == (1, "No token can be had from there.")
    assert "REMOTE_URL" in run.out


def test_remote__doctor_speaks_of_no_table(remote, time):
    remote.get(TOKEN_URL, status=502)
    told = Run("doctor").out
    assert "every process asks the token server for itself" in told
    assert "database" not in told
