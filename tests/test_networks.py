"""Where a request comes from, whatever its headers claim."""

from __future__ import annotations

import ipaddress

import pytest
from django.core.exceptions import ValidationError
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st

from wechat_token.client_keys.networks import (
    client_address,
    neighbourhood,
    parse_address,
    parse_networks,
    validate_networks,
)


def address_of(proxies, peer, forwarded=None):
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
    request = RequestFactory().get("/", headers=headers, REMOTE_ADDR=peer)
    found = client_address(request, proxies)
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("proxies", "peer", "forwarded", "expected"),
    [
        (0, "192.0.2.1", None, "192.0.2.1"),
        (0, "192.0.2.1", "10.0.0.1", "192.0.2.1"),  # nobody in front of us: the header is the client's own
        (1, "10.0.0.2", "192.0.2.1", "192.0.2.1"),
        (1, "10.0.0.2", "10.9.9.9, 192.0.2.1", "192.0.2.1"),  # the left part is a lie
        (2, "10.0.0.3", "10.9.9.9, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
        (2, "10.0.0.3", "10.9.9.9", "10.0.0.3"),  # came past a proxy
        (1, "10.0.0.2", None, "10.0.0.2"),
        (1, "10.0.0.2", " , ", "10.0.0.2"),
        (1, "", "192.0.2.1", "192.0.2.1"),  # a unix socket between the proxy and us
        (0, "", None, None),
        (1, "10.0.0.2", "unknown", None),
        (1, "10.0.0.2", "192.0.2.1:4711", "192.0.2.1"),
        (1, "10.0.0.2", "[2001:db8::1]:4711", "2001:db8::1"),
        (0, "::ffff:192.0.2.1", None, "192.0.2.1"),
    ],
)
def test_client_address__believes_our_own_proxies_only(proxies, peer, forwarded, expected):
    assert address_of(proxies, peer, forwarded) == expected


@given(st.text(max_size=60), st.integers(0, 3))
def test_client_address__takes_any_header(forwarded, proxies):
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.1")
    request.META["HTTP_X_FORWARDED_FOR"] = forwarded
    client_address(request, proxies)


def test_parse_networks__takes_lines_commas_and_single_addresses():
    found = parse_networks(" 10.0.0.0/8\n192.0.2.7, 2001:db8::/32\n")
    assert [str(network) for network in found] == ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("10.0.0.1\nexample.com", ["Line 2: “example.com” is neither"]),
        ("10.0.0.5/24", ["Line 1: 10.0.0.5/24 lies inside a network. Write 10.0.0.0/24"]),
        ("x, 10.0.0.1\ny", ["Line 1: “x”", "Line 2: “y”"]),
    ],
)
def test_validate_networks__names_each_part_that_is_wrong(text, errors):
    with pytest.raises(ValidationError) as caught:
        validate_networks(text)
    for message, start in zip(caught.value.messages, errors, strict=True):
        assert message.startswith(start)


def test_validate_networks__takes_none_at_all():
    validate_networks(" \n")


def test_neighbourhood__is_what_one_ipv6_customer_holds():
    one, other = parse_address("2001:db8:1:2::1"), parse_address("2001:db8:1:2:ffff::9")
    assert neighbourhood(one) == neighbourhood(other) == "2001:db8:1:2::/64"


def test_neighbourhood__is_a_single_ipv4_address():
    assert neighbourhood(ipaddress.ip_address("192.0.2.1")) == "192.0.2.1"
