"""The engine room: the refresh protocol, and the tokens it serves. Nothing else of it is imported from outside.

From the top of a token's way to the bottom:

``serving`` ``tickets``   memory → cache → database → refresh; what readers and complainers call
``served``       the entries in memory and cache
``refresh``      the one flow behind the one door, in a flight of its own; ``needs``: what comes first, ``attempt``: the
                 single steps
``schedule`` ``complaints`` ``birth``   the decisions: pure, from a row and the time
``batch``        many at once, for beat
``accounts`` ``lifecycle``   which account is meant; what follows when one is edited
``quota``        a person sets WeChat's counters to zero
``rows`` ``hosts`` ``site``  the tables; ``fingerprints``: whose token is this;
``domains``: for whose pages browsers may ask
``remote``       the same names against another site
``ground``       flights, waiting, lanes; ``connections``: private ones; ``threads``
"""

from __future__ import annotations

from . import complaints, schedule
from .accounts import find_token, platform_of, resolve
from .attempt import TOLERATED_SKEW
from .batch import drain, refresh_each
from .connections import alias, in_place, in_test_case, lock_is_held, patiently, private, read
from .domains import js_hosts
from .fingerprints import holder
from .ground import Crowded, Key, NotYet, aside, lane, settle
from .hosts import name as host_name
from .hosts import note as note_problem
from .hosts import say as host_lives
from .hosts import sign as sign_of_life
from .lifecycle import connect
from .outcome import Outcome, Status
from .quota import clear_quota
from .refresh import refresh_now
from .remote import look as look_remote
from .rows import server_clock, write
from .schedule import Fields, Reason
from .served import Entry, clear_memory, forget, isolated, publish
from .serving import (
    AccountRef,
    acurrent_entry,
    aget_access_token,
    arefresh_access_token,
    aresolve,
    complain,
    current_entry,
    get_access_token,
    refresh_access_token,
)
from .site import fingerprint, identity, renew_fingerprint_key
from .site import settle as settle_site
from .tickets import aget_ticket, arefresh_ticket, entry_or_why, get_ticket, refresh_ticket, tell_rarely

__all__ = [
    "TOLERATED_SKEW",
    "AccountRef",
    "Crowded",
    "Entry",
    "Fields",
    "Key",
    "NotYet",
    "Outcome",
    "Reason",
    "Status",
    "acurrent_entry",
    "aget_access_token",
    "aget_ticket",
    "alias",
    "arefresh_access_token",
    "arefresh_ticket",
    "aresolve",
    "aside",
    "clear_memory",
    "clear_quota",
    "complain",
    "complaints",
    "connect",
    "current_entry",
    "drain",
    "entry_or_why",
    "find_token",
    "fingerprint",
    "forget",
    "get_access_token",
    "get_ticket",
    "holder",
    "host_lives",
    "host_name",
    "identity",
    "in_place",
    "in_test_case",
    "isolated",
    "js_hosts",
    "lane",
    "lock_is_held",
    "look_remote",
    "note_problem",
    "patiently",
    "platform_of",
    "private",
    "publish",
    "read",
    "refresh_access_token",
    "refresh_each",
    "refresh_now",
    "refresh_ticket",
    "renew_fingerprint_key",
    "resolve",
    "schedule",
    "server_clock",
    "settle",
    "settle_site",
    "sign_of_life",
    "tell_rarely",
    "write",
]
