"""The admin's forms: what operators paste is checked here, where it can still be told to them in words."""

from __future__ import annotations

import re
from copy import copy
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from . import clock
from .client_keys.networks import parse_networks, validate_networks
from .client_keys.scopes import Scope
from .models import Account, ClientKey
from .redaction import Secret

if TYPE_CHECKING:
    import datetime as dt

    from django.utils.functional import _StrOrPromise

    _AccountForm = forms.ModelForm[Account]
    _ClientKeyForm = forms.ModelForm[ClientKey]
else:
    _AccountForm = _ClientKeyForm = forms.ModelForm

# What WeChat issues today. Nothing is refused for looking different, only remarked upon.
_USUAL_SECRET = re.compile(r"[0-9a-f]{32}")
_USUAL_APPID = re.compile(r"wx[0-9a-f]{16}")


class SecretField(forms.CharField):
    """A secret that goes in and never comes out: the box is empty, the form holds a :class:`Secret`."""

    widget = forms.PasswordInput(
        render_value=False,
        attrs={"class": "vTextField", "autocomplete": "new-password", "spellcheck": "false"},
    )

    def clean(self, value: Any) -> Secret:
        return Secret(super().clean(value))

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(self.to_python(data))


class AccountForm(_AccountForm):
    """Adds or edits an account. An empty AppSecret keeps the stored one, unread."""

    secret = SecretField(label=_("AppSecret"))

    class Meta:
        model = Account
        fields = ("appid", "secret", "name", "endpoint", "is_active", "is_default", "js_domains", "daily_limit")
        widgets = {  # noqa: RUF012  Django reads it once, as a declaration
            "appid": forms.TextInput(attrs={"class": "vTextField", "autocomplete": "off", "spellcheck": "false"}),
            "js_domains": forms.Textarea(attrs={"class": "vLargeTextField", "rows": 3, "spellcheck": "false"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.pop("secret", None)
        self.secret_looks_unusual = False
        if "secret" in self.fields:
            adding = self.instance.pk is None
            self.fields["secret"].required = adding
            self.fields["secret"].help_text = (
                _("From the WeChat console. Stored encrypted and never shown again.")
                if adding
                else _("Stored encrypted and never shown. Leave empty to keep it.")
            )

    def clean_appid(self) -> str:
        appid: str = self.cleaned_data["appid"]
        if _USUAL_SECRET.fullmatch(appid):
            # An AppID is shown everywhere. Not this one: the box must not show it again either.
            data: Any = copy(self.data)  # a QueryDict, of which a dict would hold lists
            data[self.add_prefix("appid")] = ""
            self.data = data
            raise ValidationError(_("That was an AppSecret. The AppID is the shorter one, such as wx0123456789abcdef."))
        return appid

    def clean_secret(self) -> Secret:
        secret: Secret = self.cleaned_data["secret"]
        if not secret:
            return self.instance.secret
        objection = _objection(secret, self.cleaned_data.get("appid") or self.instance.appid)
        if objection:
            raise ValidationError(objection)
        self.secret_looks_unusual = not _USUAL_SECRET.fullmatch(secret.reveal())
        # Set here: the model's field takes whatever prints as a mask, as a Secret does, for a box left alone.
        self.instance.secret = secret
        return secret


def _objection(secret: Secret, appid: str) -> _StrOrPromise:
    """Why this cannot be an AppSecret, without a word of it; '' if it can."""
    if re.search(r"\s", secret.reveal()):
        return _("The AppSecret has a blank inside. Copy it again from the WeChat console.")
    if secret == Secret(appid) or _USUAL_APPID.fullmatch(secret.reveal()):
        return _("That is an AppID. The AppSecret is the longer one, which WeChat shows once, when it is reset.")
    if not re.fullmatch(r"[!-)+-~]+", secret.reveal()):
        return _(
            "The AppSecret has characters that cannot be right. WeChat's console masks it with “*” and shows it "
            "in full only when it is reset."
        )
    return ""


class ClientKeyForm(_ClientKeyForm):
    """What a key may do; the key itself is made when the form is saved.

    ``may_grant``: who fills it in may read tokens, and so let a key read them (S9); ``may_grant_all``: those of every
    account. Without, a key can be narrowed. ``former``: the scope before.
    """

    may_grant = True
    may_grant_all = True
    former: Scope | None = None

    class Meta:
        model = ClientKey
        fields = ("name", "all_accounts", "accounts", "may_read", "may_refresh", "networks", "expires_at")
        widgets = {  # noqa: RUF012  Django reads it once, as a declaration
            "networks": forms.Textarea(attrs={"class": "vLargeTextField", "rows": 3, "spellcheck": "false"}),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "may_read" in self.fields:
            self.fields["may_read"].required = False  # left out: as it is

    def clean_may_read(self) -> str:
        return self.cleaned_data["may_read"] or self.instance.may_read

    def clean_all_accounts(self) -> bool:
        chosen: bool = self.cleaned_data["all_accounts"]
        if chosen and not self.may_grant_all:
            raise ValidationError(_("You do not see every account, so you cannot make a key for all of them."))
        return chosen

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.errors:
            return cleaned
        self.former = Scope.of(self.instance) if self.instance.pk is not None else None
        names = ("all_accounts", "may_read", "may_refresh", "networks", "expires_at")
        given = {name: self.cleaned_data[name] for name in names}
        scope = Scope.of(ClientKey(**given), self.cleaned_data["accounts"])
        if not self.may_grant and (self.former is None or scope.widens(self.former)):
            raise ValidationError(
                _("To let a key read more, for longer or from elsewhere takes the permission to read tokens in clear.")
            )
        return cleaned

    def clean_networks(self) -> str:
        text: str = self.cleaned_data["networks"]
        validate_networks(text)
        return "\n".join(map(str, parse_networks(text)))

    def clean_expires_at(self) -> dt.datetime | None:
        expires_at: dt.datetime | None = self.cleaned_data["expires_at"]
        if expires_at is not None and "expires_at" in self.changed_data and expires_at <= clock.now():
            raise ValidationError(_("This moment has passed. To end a key at once, revoke it."))
        return expires_at
