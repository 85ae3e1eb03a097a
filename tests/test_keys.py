"""What client keys look like, and what is kept of them."""

from __future__ import annotations

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from wechat_token.client_keys import keys
from wechat_token.models import Account, ClientKey


def test_generate__is_well_formed_and_never_the_same():
    made = {keys.generate().reveal() for _ in range(200)}
    assert len(made) == 200
    assert all(keys.is_well_formed(key) for key in made)


def test_generate__has_at_least_190_random_bits():
    assert len(keys._ALPHABET) ** keys.RANDOM_LENGTH > 2**190


@given(st.integers(4, 41), st.sampled_from("0aZ"))
def test_is_well_formed__finds_every_single_wrong_character(place, other):
    key = keys.generate().reveal()
    if key[place] != other:
        assert not keys.is_well_formed(key[:place] + other + key[place + 1 :])


@given(st.text())
def test_is_well_formed__takes_any_text(text):
    assert not keys.is_well_formed(text)


@pytest.mark.parametrize("change", [str.upper, lambda key: key + "0", lambda key: key + "\n", lambda key: key[4:]])
def test_is_well_formed__refuses_other_shapes(change):
    assert not keys.is_well_formed(change(keys.generate().reveal()))


def test_checksum__has_six_characters_whatever_the_crc():
    assert {len(keys.checksum(str(n))) for n in range(1000)} == {6}


@pytest.mark.django_db
def test_make_key__stores_the_digest_and_eight_characters_only():
    account = Account.objects.create(appid="wx0123456789abcdef", secret="x")
    key, plain = keys.make_key("orders", accounts=[account], may_refresh=True, networks="10.0.0.0/8")
    key.refresh_from_db()
    assert key.digest == keys.digest(plain.reveal())
    assert key.prefix == plain.reveal()[4:12]
    assert list(key.accounts.all()) == [account]
    assert (key.may_refresh, key.all_accounts, key.networks) == (True, False, "10.0.0.0/8")
    stored = ClientKey.objects.filter(pk=key.pk).values().get()
    assert not any(plain.reveal()[4:] in str(value) for value in stored.values())


@pytest.mark.django_db
@pytest.mark.parametrize("wrong", [{"networks": "10.0.0.300"}, {"networks": "10.0.0.5/8"}, {"name": ""}])
def test_make_key__refuses_what_could_not_work(wrong):
    with pytest.raises(ValidationError):
        keys.make_key(**{"name": "orders", **wrong})
    assert not ClientKey.objects.exists()


def test_make_key__shows_the_key_to_nobody_who_does_not_ask():
    plain = keys.generate()
    assert plain.reveal() not in f"{plain!r} {plain} {plain:>99}"
