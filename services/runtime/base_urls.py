"""Which addresses of model services may be used: the server's own, and those that it lists. No other is ever asked."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

VARIABLE = "MODEL_BASE_URLS"
PROVIDER = "https://api.anthropic.com"
_PORTS = {"http": 80, "https": 443}


class BadBaseUrlError(ValueError):
    """It can be no address of a model service; its words say why."""


class BaseUrlNotAllowedError(ValueError):
    """The server does not let clients and jobs name this address."""

    def __init__(self) -> None:
        super().__init__(
            "this server does not allow this address, only its own and those that whoever runs it lists in " + VARIABLE
        )


@dataclass(frozen=True)
class _Place:
    """What tells one address from another."""

    scheme: str
    host: str
    port: int
    path: str


class BaseUrls:
    """``own``: where the server sends requests itself; None: to the provider. ``listed``: split by commas."""

    def __init__(self, own: str | None = None, listed: str | None = None) -> None:
        """Raises ``BadBaseUrlError``."""
        self.own = own or PROVIDER
        self._own = _place(self.own)
        others = [each.strip() for each in (listed or "").split(",") if each.strip()]
        self._allowed = {_place(each): each for each in others} | {self._own: self.own}

    def allowed(self, address: str) -> str:
        """``address`` as the server wrote it, so that nobody reads it in another way than it was checked.

        Raises ``BaseUrlNotAllowedError``.
        """
        try:
            return self._allowed[_place(address)]
        except (BadBaseUrlError, KeyError) as error:
            raise BaseUrlNotAllowedError from error

    def same(self, one: str, other: str) -> bool:
        """Whether two allowed addresses are one place."""
        return _place(one) == _place(other)


def _place(address: str) -> _Place:
    parts, port = _split(address)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise BadBaseUrlError(f"{_shown(address)} must be http:// or https:// and a host, as in {PROVIDER}")
    if "@" in parts.netloc or parts.query or parts.fragment or any(not "!" <= each <= "~" for each in address):
        raise BadBaseUrlError(f"{parts.hostname!r}: must have no user, password, query, fragment or odd characters")
    return _Place(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], parts.path.rstrip("/"))


def _split(address: str) -> tuple[SplitResult, int | None]:
    try:
        return (parts := urlsplit(address)), parts.port
    except ValueError as error:
        raise BadBaseUrlError(f"{_shown(address)} is no address: {error}") from error


def _shown(address: str) -> str:
    """Without what may be a password."""
    return repr(address.rpartition("@")[2])
