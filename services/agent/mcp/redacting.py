"""Takes the secrets of a server's settings out of whatever the server says."""

from collections.abc import Iterable

MIN_SECRET_CHARACTERS = 8
"""Shorter values (`1`, `debug`) stand in every text, and give nothing away."""
HIDDEN = "[hidden]"


class Redaction:
    """``values``: header values and environment variables; of `Bearer <token>` the token alone is a secret too."""

    def __init__(self, values: Iterable[str]) -> None:
        words = {word for value in values for word in (value, *value.split())}
        # The longest first: a shorter one may be a part of it.
        self._secrets = sorted((word for word in words if len(word) >= MIN_SECRET_CHARACTERS), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text
