"""API keys as a request carries them: by bearer, or as the password that a browser asks for."""

from __future__ import annotations

import base64
import binascii
import re

MAX_KEY_CHARACTERS = 200
_PLAUSIBLE = re.compile("[!-~]+")


def is_plausible_key(key: str) -> bool:
    """Whether ``key`` could be one at all: 1 to 200 printable ASCII characters without spaces."""
    return len(key) <= MAX_KEY_CHARACTERS and _PLAUSIBLE.fullmatch(key) is not None


def bearer_key(authorization: str) -> str | None:
    """The key in a header `Bearer KEY`; None where it is none."""
    return _plausible(_after_scheme(authorization, "bearer"))


def basic_key(authorization: str) -> str | None:
    """The password in a header `Basic BASE64(user:password)`, whoever the user is; None where it is none."""
    try:
        pair = base64.b64decode(_after_scheme(authorization, "basic"), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    return _plausible(pair.partition(":")[2])


def _after_scheme(authorization: str, scheme: str) -> str:
    given, _, rest = authorization.partition(" ")
    return rest.strip() if given.lower() == scheme else ""


def _plausible(key: str) -> str | None:
    return key if is_plausible_key(key) else None
