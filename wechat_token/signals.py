"""What happened to a token, for the host project's alerts and metrics. No payload holds a secret (S2).

Sent with ``send_robust`` after the change is committed, in the process and thread that did the work. ``sender`` is
:class:`wechat_token.models.Token`, unless another is named. Logging is a receiver like any other
(:mod:`wechat_token.logs`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Model
from django.dispatch import Signal

#: Every refresh that called WeChat: ``entry`` (RefreshLog, perhaps unsaved), ``appid``, ``kind``.
refresh_finished = Signal()

#: Somebody has to look, once per streak: ``appid``, ``kind``, ``error_class``, ``errcode``, ``message``,
#: ``action`` (what to do, a lazy translation), ``usable_until`` (datetime or None).
attention_needed = Signal()

#: A token died early and nobody here renewed it (R14): ``appid``, ``kind``, ``count``.
foreign_refresh_detected = Signal()

#: A ciphertext does not open where it was found (S8), in the database or in the cache: its key is lost, it is damaged,
#: or somebody put it there. ``field`` (where), ``row`` (whose, '' if not known), ``cause``. At most once a minute for
#: each place in each process. ``sender`` is :class:`wechat_token.encryption.Place`.
encryption_unfit = Signal()
#: Something that a security officer wants to know of: ``name`` and ``fields`` (a dict of strings), as documented in
#: ``docs/secrecy.md``. ``sender`` is None.
security_event = Signal()


def on_model(signal: Signal, receiver: Callable[..., Any], model: type[Model]) -> None:
    """Connect one of Django's model signals, for proxies and children of the model too: Django tells them apart."""

    def receive(sender: type[Model], **kwargs: Any) -> None:
        if issubclass(sender, model):
            receiver(sender=sender, **kwargs)

    signal.connect(receive, weak=False, dispatch_uid=f"{receiver.__module__}.{receiver.__name__}")
