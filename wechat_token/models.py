"""What is stored: accounts, their tokens with the lease of a running refresh, the refresh log, client keys, and what
the site and its hosts say of themselves."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, ClassVar

from django.core.exceptions import ValidationError
from django.db import models, router, transaction
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from . import clock
from .encryption import EncryptedTextField, StoredSecret
from .exceptions import EncryptionKeyError, ErrorClass
from .platforms import ACCESS_TOKEN as ACCESS_TOKEN
from .platforms import OFFICIAL_ACCOUNT, platform
from .platforms.js_domains import normalised
from .querysets import (
    AccountQuerySet,
    ClientKeyQuerySet,
    PrimaryManager,
    RefreshLogQuerySet,
    TokenQuerySet,
    new_stamp,
)
from .redaction import is_unseen

_APPID = re.compile(r"[A-Za-z0-9_-]{4,64}")


def validate_appid(value: str) -> None:
    """Refuse what cannot be an AppID; WeChat's are ``wx`` and 16 hex digits, which is not relied on."""
    if re.search(r"\s", value):
        raise ValidationError(_("The AppID has a blank inside. Copy it again from the WeChat console."))
    if not _APPID.fullmatch(value):
        raise ValidationError(_("An AppID has 4 to 64 letters, digits, “-” or “_”, such as wx0123456789abcdef."))


def validate_name(value: str) -> None:
    """Refuse what would forge a line of a log, or another name, where this one is shown."""
    unseen = next(filter(is_unseen, value), "")
    if unseen:
        raise ValidationError(
            _("The name has a character that cannot be seen (%(code)s). Type the name instead of pasting it."),
            params={"code": f"U+{ord(unseen):04X}"},
        )


class Endpoint(models.TextChoices):
    STABLE = "stable", _("stable (recommended)")
    CLASSIC = "classic", _("classic")


if TYPE_CHECKING:
    _CharField = models.CharField[str, str]
else:
    _CharField = models.CharField

# What makes a token outdated when it is edited (R10). A new name or limit is no reason to ask WeChat.
CREDENTIALS = frozenset({"appid", "platform", "secret", "endpoint", "is_active"})


class RefField(_CharField):
    """The one string that names an account everywhere (R27). Derived, also where ``save()`` is passed by."""

    def pre_save(self, model_instance: models.Model, add: bool) -> str:
        ref: str = model_instance.derived_ref()  # type: ignore[attr-defined]  # an Account
        setattr(model_instance, self.attname, ref)
        return ref


class Account(models.Model):
    """One set of credentials at a platform: AppID, AppSecret and the endpoint they are used at."""

    # Memory, cache, URLs, key scopes and logs carry this and nothing less. An official account's is its AppID.
    ref = RefField(
        _("AppID"), max_length=160, unique=True, editable=False,
        error_messages={"unique": _("There is already an account with this AppID.")},
    )  # fmt: skip
    platform = models.CharField(_("platform"), max_length=32, default=OFFICIAL_ACCOUNT)

    appid = models.CharField(_("AppID"), max_length=64, validators=[validate_appid])
    secret = EncryptedTextField(_("AppSecret"), bound_to=["ref"])
    name = models.CharField(_("name"), max_length=100, blank=True, db_index=True, validators=[validate_name])
    endpoint = models.CharField(
        _("endpoint"), max_length=16, choices=Endpoint.choices, default=Endpoint.STABLE,
        help_text=_(
            "Stable: a repeated call returns the same token, so other systems with this AppID do no harm. "
            "Classic: every call kills the token before it."
        ),
    )  # fmt: skip
    is_active = models.BooleanField(pgettext_lazy("account", "active"), default=True)
    is_default = models.BooleanField(
        _("default"), default=False, help_text=_("Used where code asks for a token without naming an account.")
    )
    daily_limit = models.PositiveIntegerField(
        _("classic calls a day"), null=True, blank=True,
        help_text=_("What WeChat allows this account. Empty: 2000. A test account (测试号) has 200."),
    )  # fmt: skip
    js_domains = models.TextField(
        _("JS domains"), blank=True,
        help_text=_(
            "For pages that ask without a key: hosts such as shop.example.com, one a line, exactly. Enter the same at "
            "WeChat: mp.weixin.qq.com → 设置与开发 → 公众号设置 → 功能设置 → JS接口安全域名. Empty: only Django's "
            "own pages and client keys get signatures."
        ),
    )  # fmt: skip
    # Another number whenever the credentials change. A token made for another edition is due, whether or not the
    # process that edited the account lived to say so.
    edition = models.PositiveBigIntegerField(default=0, editable=False)
    # When somebody here last asked WeChat to clear its counters: a double click is one of the month's ten, not two.
    quota_cleared_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(_("changed"), auto_now=True)

    objects = PrimaryManager.from_queryset(AccountQuerySet)()

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("account")
        verbose_name_plural = _("accounts")
        ordering = ("ref",)
        # Serves "the only active account, or the default one" among a million.
        indexes: ClassVar = [models.Index(fields=["is_active", "is_default"], name="wechat_token_account_default")]

    def __str__(self) -> str:
        ref = self.ref or self.appid
        return f"{self.name} ({ref})" if self.name else ref

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save; the default is one account at most, so the former default steps back."""
        only: Collection[str] | None = kwargs.get("update_fields")
        renamed = False
        if "appid" not in self.get_deferred_fields() and (only is None or {"appid", "ref", "platform"} & set(only)):
            former, self.appid = self.ref, self.appid.strip()
            ref = self.derived_ref()
            renamed = bool(former) and former != ref
            if renamed:
                self.secret = self.secret  # read as the former ref's, so that it is written anew as the new one's (S8)
            self.ref = ref
        kwargs["using"] = using = kwargs.get("using") or router.db_for_write(type(self), instance=self)
        with transaction.atomic(using=using):
            if self.is_default and (only is None or "is_default" in only):
                others = type(self)._default_manager.using(using).filter(is_default=True).exclude(pk=self.pk)
                others.update(is_default=False)
            if self._credentials_changed(using, CREDENTIALS if only is None else CREDENTIALS & set(only)):
                self.edition = max(self.edition + 1, int(clock.now().timestamp() * 1000))
                if only is not None:
                    kwargs["update_fields"] = {*only, "edition", *(["ref", "secret"] if renamed else [])}
            super().save(*args, **kwargs)

    def derived_ref(self) -> str:
        """The ref by the rule of the account's platform.

        Raises ``ConfigurationError`` for a platform that is not installed, ``ValueError`` for a ref it cannot have.
        """
        return platform(self.platform).ref(self)

    def _credentials_changed(self, using: str, names: Collection[str]) -> bool:
        """Whether one of these fields differs from what is stored.

        The same AppSecret entered anew is a change where it is to mend something, and none where a deployment merely
        sets it each time.
        """
        loaded = set(names) - self.get_deferred_fields()
        if self._state.adding or not loaded:
            return False
        stored = type(self)._default_manager.using(using).filter(pk=self.pk).only(*loaded).first()
        if stored is None:
            return False
        if any(_differs(getattr(self, name), getattr(stored, name)) for name in loaded):
            return True
        entered_anew = "secret" in loaded and not isinstance(self.secret, StoredSecret)
        return entered_anew and Token.objects.using(using).filter(account=self.pk, failures__gt=0).exists()

    def clean_fields(self, exclude: Any = None) -> None:
        self.appid = self.appid.strip()
        super().clean_fields(exclude=exclude)
        if "js_domains" not in (exclude or ()):
            try:
                self.js_domains = normalised(self.js_domains)
            except ValidationError as error:
                raise ValidationError({"js_domains": error}) from None

    def validate_unique(self, exclude: Collection[str] | None = None) -> None:
        """As in Django; two accounts may share an AppID, but not the ref."""
        super().validate_unique({*(exclude or ()), "ref"})
        others = type(self)._default_manager.exclude(pk=self.pk)
        if others.filter(ref=self.derived_ref()).exists():
            taken = ValidationError(_("There is already an account with this AppID."), code="unique")
            raise ValidationError({"appid": taken})


def _differs(ours: Any, stored: Any) -> bool:
    if isinstance(stored, StoredSecret) and isinstance(ours, StoredSecret):
        return ours.ciphertext != stored.ciphertext
    try:
        return bool(ours != stored)
    except EncryptionKeyError:  # the key it was written with is lost, and the secret is entered again (R36)
        return True


class Token(models.Model):
    """One renewable credential of an account, and the state of its renewal.

    Times are wall clock, UTC. The pure rules about these fields are in :mod:`wechat_token.engine.schedule`.
    """

    account = models.ForeignKey(Account, models.CASCADE, related_name="tokens", verbose_name=_("account"))
    kind = models.CharField(_("kind"), max_length=32, default=ACCESS_TOKEN)

    # The credential. ``version`` grows with every new value, also across a restored backup: it is at least the Unix
    # milliseconds of the claim (R32). 0 means there has been none. ``issued_for``: the account's ref at that time;
    # ``edition``: the account's when this row was last claimed.
    value = EncryptedTextField(_("value"), blank=True, bound_to=["issued_for", "kind"])
    version = models.PositiveBigIntegerField(_("version"), default=0)
    issued_for = models.CharField(max_length=160, blank=True)
    edition = models.PositiveBigIntegerField(default=0)
    issued_at = models.DateTimeField(_("issued"), null=True, blank=True)
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    # Whose token is this (:mod:`wechat_token.engine.fingerprints`): of the current one, and of the former one until
    # it is surely dead.
    fingerprint = models.CharField(max_length=64, blank=True, db_index=True)
    former_fingerprint = models.CharField(max_length=64, blank=True, db_index=True)
    former_until = models.DateTimeField(null=True, blank=True)
    # The version that WeChat was seen to refuse before its time; not served, however long its life.
    rejected_version = models.PositiveBigIntegerField(default=0)

    # Of a value that its issuer repeats (R23): the life told with its first answer, in seconds; when the issuer last
    # answered with this value, and with another one before it, each by the time the request left; and the digest of
    # that other one, which may come back.
    life = models.PositiveIntegerField(default=0)
    answered_at = models.DateTimeField(null=True, blank=True)
    born_after = models.DateTimeField(null=True, blank=True)
    former_digest = models.CharField(max_length=64, blank=True)
    # When somebody last asked for it, to the hour; null where it is renewed whether or not anybody does (R28).
    asked_at = models.DateTimeField(null=True, blank=True)
    # The credential that this one needs and could not get, '' if it waits for none (R22): ref, a blank, kind.
    waits_for = models.CharField(max_length=200, blank=True)

    # When the next refresh is due: renewal, retry, repair or the end of a lease. Null: never (inactive).
    due_at = models.DateTimeField(_("due"), null=True, blank=True, db_index=True)

    # The lease: who refreshes now, and until when nobody else may (R1, R2). ``revision`` changes with every write.
    lease_owner = models.CharField(max_length=64, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    revision = models.PositiveBigIntegerField(default=0)

    # Intent (R2): when the latest request left; since when a request that displaces the token is unanswered;
    # and when the latest request left whose answer never came.
    sent_at = models.DateTimeField(null=True, blank=True)
    unanswered_since = models.DateTimeField(null=True, blank=True)
    lost_at = models.DateTimeField(null=True, blank=True)

    # Rations (R8, R9, R16, R33). ``usage`` counts calls by endpoint for the day it names; ``complaints`` what false
    # complaints have left of each client's allowance; ``probe_after``: until then the last verdict is believed.
    usage = models.JSONField(default=dict, blank=True)
    forced_at = models.DateTimeField(null=True, blank=True)
    complaints = models.JSONField(default=dict, blank=True)
    complaints_refused_at = models.DateTimeField(null=True, blank=True)
    probe_after = models.DateTimeField(null=True, blank=True)

    # The current streak of failures (R10); cleared by a success.
    failures = models.PositiveIntegerField(_("failures in a row"), default=0)
    error_class = models.CharField(max_length=16, blank=True, choices=[(c.value, c.value) for c in ErrorClass])
    errcode = models.IntegerField(_("errcode"), null=True, blank=True)
    error = models.CharField(_("last error"), max_length=255, blank=True)
    rid = models.CharField(max_length=64, blank=True)
    egress_ip = models.CharField(max_length=64, blank=True)
    failed_at = models.DateTimeField(null=True, blank=True)
    alerted_at = models.DateTimeField(null=True, blank=True)

    # Somebody outside renewed this account (R14).
    foreign_refreshes = models.PositiveIntegerField(default=0)
    foreign_at = models.DateTimeField(null=True, blank=True)

    objects = PrimaryManager.from_queryset(TokenQuerySet)()

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("token")
        verbose_name_plural = _("tokens")
        constraints: ClassVar = [models.UniqueConstraint(fields=["account", "kind"], name="wechat_token_one_per_kind")]
        # What needs somebody is found among a million without reading them; almost all rows have 0 or nothing here.
        indexes: ClassVar = [
            models.Index(fields=["failures"], name="wechat_token_failing"),
            models.Index(fields=["waits_for"], name="wechat_token_waiting"),
            models.Index(fields=["foreign_at"], name="wechat_token_foreign"),
            models.Index(fields=["complaints_refused_at"], name="wechat_token_refused"),
        ]
        permissions: ClassVar = [
            ("refresh_token", _("Can refresh tokens")),
            ("reveal_token", _("Can read tokens in clear")),
        ]

    def __str__(self) -> str:
        return f"{self.account.ref} {self.kind}"


class RefreshLog(models.Model):
    """One refresh: when, why, for whom, with what outcome (R15). Removed by age alone."""

    class Outcome(models.TextChoices):
        RENEWED = "renewed", _("renewed")
        UNCHANGED = "unchanged", _("same token, still good")
        FAILED = "failed", _("failed")
        LOST = "lost", _("answer lost")
        SUPERSEDED = "superseded", _("overtaken by a newer refresh")
        REFUSED = "refused", _("complaint refused: WeChat accepts the token")
        UNDECIDED = "undecided", _("WeChat did not tell whether it accepts the token")
        LIMITED = "limited", _("held back by a limit")

    # As text: the record outlives its account, and waits for nobody who has the account's row locked (R30).
    ref = models.CharField(_("account"), max_length=160)
    platform = models.CharField(max_length=32, default=OFFICIAL_ACCOUNT)  # whose errcode it is
    kind = models.CharField(_("kind"), max_length=32)
    at = models.DateTimeField(_("time"), db_index=True)
    reason = models.CharField(_("reason"), max_length=16)
    client = models.CharField(_("client"), max_length=100, blank=True)
    endpoint = models.CharField(_("endpoint"), max_length=32)
    outcome = models.CharField(_("outcome"), max_length=16, choices=Outcome.choices)
    errcode = models.IntegerField(_("errcode"), null=True, blank=True)
    error = models.CharField(_("error"), max_length=255, blank=True)
    rid = models.CharField(max_length=64, blank=True)
    duration_ms = models.PositiveIntegerField(_("duration (ms)"))
    version = models.PositiveBigIntegerField(_("version"), default=0)

    objects = PrimaryManager.from_queryset(RefreshLogQuerySet)()

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("refresh")
        verbose_name_plural = _("refresh log")
        ordering = ("-at", "-pk")
        indexes: ClassVar = [models.Index(fields=["ref", "-at"], name="wechat_token_log_ref")]

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.ref} {self.outcome}"


class Reading(models.TextChoices):
    """What a client key is given; each includes those before it."""

    SIGNATURES = "signatures", _("signatures of pages")
    TICKETS = "tickets", _("tickets and signatures")
    EVERYTHING = "everything", _("everything: access_tokens, tickets, signatures")


class ClientKey(models.Model):
    """The credential of a service that reads tokens over HTTP (S3). Only its digest is stored."""

    name = models.CharField(
        _("name"), max_length=100, validators=[validate_name], help_text=_("The service that uses this key.")
    )
    prefix = models.CharField(_("key"), max_length=16, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    accounts = models.ManyToManyField(
        Account, blank=True, related_name="client_keys", verbose_name=_("accounts"),
        help_text=_("The accounts this key may read. None chosen: none may be read."),
    )  # fmt: skip
    all_accounts = models.BooleanField(_("all accounts"), default=False)
    may_read = models.CharField(
        _("may read"), max_length=16, choices=Reading.choices, default=Reading.EVERYTHING,
        help_text=_("A front end that shares pages needs signatures and nothing else."),
    )  # fmt: skip
    may_refresh = models.BooleanField(
        _("may complain"), default=False, help_text=_("May report a refused token, which can cause a refresh.")
    )
    networks = models.TextField(
        _("networks"), blank=True,
        help_text=_("Addresses or CIDR networks, one a line. Empty: from anywhere."),
    )  # fmt: skip
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    revoked_at = models.DateTimeField(_("revoked"), null=True, blank=True)
    last_used_at = models.DateTimeField(_("last used"), null=True, blank=True, editable=False)
    created_at = models.DateTimeField(_("created"), auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    # A new random number with every write. Processes compare the sum over all keys to learn that some key changed:
    # times would miss the edit of a host whose clock is behind, and transactions that commit out of order.
    stamp = models.PositiveIntegerField(default=new_stamp, editable=False)

    objects = PrimaryManager.from_queryset(ClientKeyQuerySet)()

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("client key")
        verbose_name_plural = _("client keys")
        ordering = ("name", "pk")

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    def save(self, *args: Any, **kwargs: Any) -> None:
        self.stamp = new_stamp()
        if kwargs.get("update_fields") is not None:
            kwargs["update_fields"] = {*kwargs["update_fields"], "stamp", "updated_at"}
        super().save(*args, **kwargs)

    def is_live(self, now: dt.datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class KeyUsage(models.Model):
    """What one client key asked for on one day (of Beijing, as WeChat's own counters), counted by appid."""

    key = models.ForeignKey(ClientKey, models.CASCADE, related_name="usage", verbose_name=_("client key"))
    appid = models.CharField(
        _("AppID"), max_length=160, blank=True, help_text=_("Empty: requests for accounts that this key may not use.")
    )
    day = models.DateField(_("day"))
    reads = models.PositiveBigIntegerField(_("reads"), default=0)
    complaints = models.PositiveBigIntegerField(_("complaints"), default=0)
    refusals = models.PositiveBigIntegerField(_("refusals"), default=0)
    # Of all these, how many came in WeChat's dialect: with the key in the URL, and in the body.
    by_url = models.PositiveBigIntegerField(default=0)
    by_body = models.PositiveBigIntegerField(default=0)

    objects = PrimaryManager["KeyUsage"]()

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("use of a client key")
        verbose_name_plural = _("use of client keys")
        ordering = ("-day", "key", "appid")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["day", "key", "appid"], name="wechat_token_usage_once")
        ]
        # Who reads an account, on the account's page.
        indexes: ClassVar = [models.Index(fields=["appid", "day"], name="wechat_token_usage_appid")]

    def __str__(self) -> str:
        return f"{self.day} {self.key_id} {self.appid}"


class TokenRead(models.Model):
    """Who was given which token: one row for each reader and token, to find out who let one leak."""

    fingerprint = models.CharField(max_length=32)
    prefix = models.CharField(_("key"), max_length=16, blank=True)  # empty: a person, in the admin
    reader = models.CharField(_("name"), max_length=150)
    ref = models.CharField(_("account"), max_length=160)
    kind = models.CharField(_("kind"), max_length=32)
    version = models.PositiveBigIntegerField(_("version"))
    at = models.DateTimeField(_("time"), db_index=True)

    objects = PrimaryManager["TokenRead"]()

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("token read")
        verbose_name_plural = _("token reads")
        ordering = ("at", "pk")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["fingerprint", "prefix", "reader"], name="wechat_token_read_once")
        ]

    def __str__(self) -> str:
        return f"{self.reader} {self.ref} {self.version}"


class Host(models.Model):
    """What a host says of itself, at most every 30 s: that it lives, what it does, what it cannot do (R31, R35)."""

    name = models.CharField(_("host"), max_length=255, unique=True)
    seen_at = models.DateTimeField(_("last seen"))
    version = models.CharField(max_length=32, blank=True)
    # Signs of life: when beat sent the tick here, a worker lived here, a tick was worked off here and how long it took.
    beat_at = models.DateTimeField(null=True, blank=True)
    worker_at = models.DateTimeField(null=True, blank=True)
    ticked_at = models.DateTimeField(null=True, blank=True)
    tick_seconds = models.FloatField(default=0.0)
    drain_until = models.DateTimeField(null=True, blank=True)  # one batch a host at a time, and no longer than this
    # What keeps it from working, by subject: {"at", "pid", "text"}, of the process that met it last.
    problems = models.JSONField(default=dict, blank=True)

    objects = PrimaryManager["Host"]()

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("host")
        verbose_name_plural = _("hosts")
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Alert(models.Model):
    """What people are told about one cause: that it broke, again and again, that it is over. Each change is one
    conditional UPDATE, so that of many processes one sends. The rules are in :mod:`wechat_token.diagnosis.telling`."""

    cause = models.CharField(max_length=100, unique=True)
    revision = models.PositiveBigIntegerField(default=0)
    first_at = models.DateTimeField()  # since when it is there
    gone_at = models.DateTimeField(null=True, blank=True)  # since when it is not
    text = models.TextField(blank=True)  # what was told last
    count = models.PositiveIntegerField(default=0)  # how many it concerned then
    told = models.PositiveIntegerField(default=0)  # messages so far
    told_at = models.DateTimeField(null=True, blank=True)
    flaps = models.PositiveIntegerField(default=0)  # how often it came back soon after its end
    # The message under way: who has it already, how often it was tried, until when its sender is left alone.
    delivered = models.JSONField(default=list, blank=True)
    attempts = models.PositiveIntegerField(default=0)
    sending_until = models.DateTimeField(null=True, blank=True)

    objects = PrimaryManager["Alert"]()

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("alert")
        verbose_name_plural = _("alerts")
        ordering = ("cause",)

    def __str__(self) -> str:
        return self.cause


class Site(models.Model):
    """Which site this database belongs to: one row. A cache entry carries ``site_id``, so that no test, staging copy
    or second project reads another's (R32). ``place`` tells a copy of the database from the original."""

    site_id = models.CharField(max_length=32)
    place = models.CharField(max_length=255)
    # What tokens and keys in the security log are fingerprinted with. Random, so that it outlives every rotation.
    fingerprint_key = EncryptedTextField(blank=True)

    objects = PrimaryManager["Site"]()

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("site")
        verbose_name_plural = _("sites")

    def __str__(self) -> str:
        return self.site_id
