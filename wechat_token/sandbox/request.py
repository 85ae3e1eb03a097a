"""One request as the fake reads it: parameters from the query or from a JSON body."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .answers import Refusal


class Request:
    """Has no ``repr`` of its own: query and body hold secrets."""

    __slots__ = ("_fields", "body", "method", "query", "remote_ip")

    def __init__(self, method: str, query: Mapping[str, str], body: bytes, remote_ip: str) -> None:
        self.method = method
        self.query = query
        self.body = body
        self.remote_ip = remote_ip
        self._fields: dict[str, Any] | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The JSON object in the body. Raises :class:`Refusal` 44002 if empty, 47001 if anything else."""
        if self._fields is None:
            if not self.body:
                raise Refusal(44002)
            try:
                parsed = json.loads(self.body)
            except ValueError:
                parsed = None
            if not isinstance(parsed, dict):
                raise Refusal(47001)
            self._fields = parsed
        return self._fields

    def readable_fields(self) -> dict[str, Any]:
        """The same, or an empty dict: for looking who calls before judging the call."""
        try:
            return self.fields
        except Refusal:
            return {}


def credentials(parameters: Mapping[str, Any]) -> tuple[str, str]:
    """AppID and AppSecret of a token call. Raises :class:`Refusal` for what is missing."""
    if parameters.get("grant_type") != "client_credential":
        raise Refusal(40002)
    appid, secret = parameters.get("appid"), parameters.get("secret")
    if not appid:
        raise Refusal(41002)
    if not secret:
        raise Refusal(41004)
    if not isinstance(appid, str) or not isinstance(secret, str):
        raise Refusal(47001)
    return appid, secret
