"""Keeps secrets encrypted where they are stored. It knows no jobs, and tells nobody what it was given to seal."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet

VARIABLE = "QUARTERDECK_SECRET_KEY"
HOW_TO_MAKE_ONE = "head -c 32 /dev/urandom | base64 | tr '+/' '-_'"
_KEY_BYTES = 32


class BadSecretKeyError(ValueError):
    """The keys that are to seal cannot be used; told at the start."""


class SealingError(Exception):
    """A secret cannot be stored or read; its words are for the user and name no secret."""


class NoSecretKeyError(SealingError):
    def __init__(self) -> None:
        super().__init__(
            f"this server keeps no secrets: {VARIABLE} is not set; whoever runs it makes one by `{HOW_TO_MAKE_ONE}` "
            "and gives it to the gateways, agents and vcs nodes"
        )


class CannotOpenError(SealingError):
    def __init__(self) -> None:
        super().__init__(
            f"a stored secret cannot be opened: it was sealed with a key that {VARIABLE} does not hold, or is damaged; "
            f"put the old key back behind a comma, or store the secret anew"
        )


class WrongOwnerError(SealingError):
    def __init__(self) -> None:
        super().__init__("a stored secret belongs to somebody else: its row was changed by hand; store the secret anew")


@dataclass(frozen=True)
class Opened:
    owner: str
    secrets: Mapping[str, Any] = field(repr=False)


class Opener(Protocol):
    def open(self, sealed: bytes, *, owners: Collection[str]) -> Opened: ...


class Sealer:
    """Seals and opens mappings that JSON can hold."""

    def __init__(self, keys: str | None) -> None:
        """``keys``: of 32 bytes in URL-safe base64, split by commas: the first seals, all open. None: there are none.

        Raises ``BadSecretKeyError``.
        """
        self._fernet = MultiFernet([_fernet(key.strip()) for key in keys.split(",")]) if keys else None

    def seal(self, secrets: Mapping[str, Any], *, owner: str) -> bytes:
        """``owner`` is sealed with them: nobody else's row can hold them. Raises ``NoSecretKeyError``."""
        if self._fernet is None:
            raise NoSecretKeyError
        return self._fernet.encrypt(orjson.dumps({"owner": owner, "secrets": secrets}))

    def open(self, sealed: bytes, *, owners: Collection[str]) -> Opened:
        """What was sealed, where one of ``owners`` sealed it.

        Raises ``NoSecretKeyError``, ``CannotOpenError``, ``WrongOwnerError``.
        """
        if self._fernet is None:
            raise NoSecretKeyError
        try:
            found = orjson.loads(self._fernet.decrypt(sealed))
        except (InvalidToken, orjson.JSONDecodeError) as error:
            raise CannotOpenError from error
        if found["owner"] not in owners:
            raise WrongOwnerError
        return Opened(found["owner"], found["secrets"])


def _fernet(key: str) -> Fernet:
    try:
        raw = base64.b64decode(key.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raw = b""
    if len(raw) != _KEY_BYTES:
        # Without the cause: it might repeat the key.
        raise BadSecretKeyError(
            f"must be {_KEY_BYTES} bytes in URL-safe base64, or several such keys split by commas; "
            f"make one by `{HOW_TO_MAKE_ONE}`"
        ) from None
    return Fernet(key)
