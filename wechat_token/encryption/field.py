"""The model field that writes nothing but ciphertext, bound to its field and row (S1, S8)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from django.core.exceptions import FieldError, ValidationError
from django.db import models
from django.db.models.expressions import ExpressionWrapper, F
from django.db.models.lookups import Exact
from django.db.models.query_utils import DeferredAttribute
from django.utils.translation import gettext_lazy as _

from ..exceptions import EncryptionKeyError
from ..redaction import MASK, Secret
from .cipher import Place, decrypt, encrypt

# Marks ciphertext in fixtures, so that loaddata does not encrypt it a second time.
FIXTURE_PREFIX: Final = "encrypted:"


class StoredSecret(Secret):
    """A secret as the database holds it, decrypted only when it is revealed. ``place``: where it was found; None
    before it has one."""

    __slots__ = ("place",)

    def __init__(self, ciphertext: str, place: Place | None = None) -> None:
        super().__init__(ciphertext)
        self.place = place

    @property
    def ciphertext(self) -> str:
        return self._text

    def reveal(self) -> str:
        return decrypt(self._text, self.place or Place("")) if self._text else ""


class _SecretAttribute(DeferredAttribute):
    """Wraps whatever is assigned, so that ``repr(account.__dict__)`` and tracebacks never show it."""

    field: EncryptedTextField

    def __get__(self, instance: models.Model | None, cls: Any = None) -> Any:
        """What was loaded later than its row (deferred) learns here whose it is."""
        value = super().__get__(instance, cls)
        if instance is None or not isinstance(value, StoredSecret) or _has_row(value):
            return value
        return StoredSecret(value.ciphertext, self.field.place_of(instance))

    def __set__(self, instance: models.Model, value: Any) -> None:
        instance.__dict__[self.field.attname] = _wrapped(value)


def _has_row(secret: StoredSecret) -> bool:
    return secret.place is not None and secret.place.row is not None


def _wrapped(value: Any) -> Secret:
    if isinstance(value, Secret):
        return value
    return Secret("" if value is None else str(value))


if TYPE_CHECKING:
    _TextField = models.TextField[Secret | str, Secret]
else:
    _TextField = models.TextField


class EncryptedTextField(_TextField):
    """Text of any length, ciphertext in the database, a :class:`Secret` in Python. Cannot be searched.

    ``bound_to``: the fields of the same model that say whose secret it is. A ciphertext opens only beside the very
    values it was written with. Renaming the field or its model needs a migration that encrypts anew.
    """

    description = _("Encrypted text")
    descriptor_class = _SecretAttribute
    non_db_attrs = (*models.TextField.non_db_attrs, "bound_to")

    def __init__(self, *args: Any, bound_to: Sequence[str] = (), **kwargs: Any) -> None:
        self.bound_to = tuple(bound_to)
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        name, _path, args, kwargs = super().deconstruct()
        if self.bound_to:
            kwargs["bound_to"] = self.bound_to
        return name, "wechat_token.encryption.EncryptedTextField", args, kwargs

    def contribute_to_class(self, cls: type[models.Model], name: str, *args: Any, **kwargs: Any) -> None:
        super().contribute_to_class(cls, name, *args, **kwargs)
        if self.bound_to and not cls._meta.abstract:
            models.signals.post_init.connect(self._settle, sender=cls)
            models.signals.class_prepared.connect(self._settle_in_heirs)

    def _settle_in_heirs(self, sender: type[models.Model], **kwargs: Any) -> None:
        """Proxies and children of the model have its fields, and send signals of their own."""
        if sender is not self.model and issubclass(sender, self.model):
            models.signals.post_init.connect(self._settle, sender=sender)

    def _settle(self, instance: models.Model, **kwargs: Any) -> None:
        """Whose a secret is, is what its row said when it was read, whatever is assigned to the instance later."""
        held = instance.__dict__.get(self.attname)
        if isinstance(held, StoredSecret) and not _has_row(held) and instance.__dict__.keys() >= set(self.bound_to):
            setattr(instance, self.attname, StoredSecret(held.ciphertext, self.place_of(instance)))

    def place(self, row: Mapping[str, Any] | None = None) -> Place:
        """Where a value of this field lies. ``row``: values of the fields it is bound to, None if not known."""
        field = f"{self.model._meta.label_lower}.{self.name}"
        if row is None or not self.bound_to:
            return Place(field)
        # A slash inside a value is written otherwise, so that no two rows are the same text.
        return Place(
            field, "/".join([str(row[name]).replace("%", "%25").replace("/", "%2F") for name in self.bound_to])
        )

    def place_of(self, instance: models.Model) -> Place:
        return self.place({name: getattr(instance, name) for name in self.bound_to})

    def from_db_value(self, value: str | None, *args: Any) -> StoredSecret:
        return StoredSecret(value or "", self.place())

    def to_python(self, value: Any) -> Secret:
        """What a fixture says; nowhere else does :data:`FIXTURE_PREFIX` mean ciphertext."""
        if isinstance(value, str) and value.startswith(FIXTURE_PREFIX):
            return StoredSecret(value.removeprefix(FIXTURE_PREFIX), self.place())
        return _wrapped(value)

    def validate(self, value: Any, model_instance: models.Model | None) -> None:
        # Django would compare with '' and find that no Secret equals it.
        if not self.blank and not value:
            raise ValidationError(self.error_messages["blank"], code="blank")

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        """From here on the instance holds what is stored: saved again, it is the same secret, not one entered anew."""
        held = model_instance.__dict__.get(self.attname)
        if isinstance(held, Secret):
            place = self.place_of(model_instance)
            held = StoredSecret(self.ciphertext(held, place), place)
            setattr(model_instance, self.attname, held)
            return held
        return super().pre_save(model_instance, add)

    def get_prep_value(self, value: Any) -> str:
        return self.ciphertext(value, self.place())

    def ciphertext(self, value: Any, place: Place) -> str:
        """What to store at this place; a stored secret as it is if it was found there, or nobody can read it."""
        secret = _wrapped(value)
        if isinstance(secret, StoredSecret):
            if place.row is None or not _has_row(secret) or secret.place == place:
                return secret.ciphertext
            with suppress(EncryptionKeyError):  # its account was renamed, or it is another row's
                return encrypt(Secret(secret.reveal()), place) if secret else ""
            return secret.ciphertext
        return encrypt(secret, place) if secret else ""

    def value_to_string(self, obj: models.Model) -> str:
        ciphertext = self.get_prep_value(self.value_from_object(obj))
        return FIXTURE_PREFIX + ciphertext if ciphertext else ""

    def save_form_data(self, instance: models.Model, data: Any) -> None:
        # A form that shows the field shows the mask, and sends it back if nobody typed over it.
        if isinstance(data, Secret) or data != MASK:
            super().save_form_data(instance, data)

    def get_lookup(self, lookup_name: str) -> Any:
        raise FieldError(
            f"{self.model.__name__}.{self.name} is encrypted and cannot be searched ({lookup_name!r}): "
            "the same text has another ciphertext each time."
        )


def unchanged(name: str, stored: StoredSecret) -> Exact[bool]:
    """A condition for ``filter()``: the row still holds this very ciphertext in the field ``name``.

    The one comparison that makes sense, for an UPDATE that must not overwrite a newer secret.
    """
    return Exact(ExpressionWrapper(F(name), output_field=models.TextField()), stored.ciphertext)


def encrypted_fields(model: type[models.Model]) -> list[EncryptedTextField]:
    """Those whose columns are in the model's own table."""
    return [field for field in model._meta.local_concrete_fields if isinstance(field, EncryptedTextField)]


def sealed(instance: models.Model, fields: Mapping[str, Any]) -> dict[str, Any]:
    """``fields`` for an UPDATE of this one row, with its secrets bound to what the row will be."""
    prepared = dict(fields)
    for field in encrypted_fields(type(instance)):
        if field.name in fields and not isinstance(fields[field.name], StoredSecret):
            row = {name: fields.get(name, getattr(instance, name)) for name in field.bound_to}
            place = field.place(row)
            prepared[field.name] = StoredSecret(field.ciphertext(fields[field.name], place), place)
    return prepared
