"""Reads what a payload holds, whatever it holds: nothing is raised, and what has another form is not there. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from services.contracts.text import storable

Payload = Mapping[str, Any]
_MAX_NUMBER: Final = 2**31 - 1
_MAX_ID: Final = 2**63 - 1
_MAX_TEXT: Final = 1_000
_MAX_WORDS: Final = 70_000
"""GitHub takes 65,536 characters in a comment."""
_BOT: Final = "[bot]"


@dataclass(frozen=True)
class RepositoryName:
    """``full_name``: owner/name. ``url``: its Git URL; empty where the payload has none that is of this name."""

    full_name: str
    url: str


@dataclass(frozen=True)
class Actor:
    login: str
    is_bot: bool


def mapping(of: Payload, name: str) -> Payload:
    value = of.get(name)
    return value if isinstance(value, Mapping) else {}


def mappings(of: Payload, name: str) -> Iterator[Payload]:
    value = of.get(name)
    for each in value if isinstance(value, list) else ():
        if isinstance(each, Mapping):
            yield each


def text(of: Payload, name: str) -> str:
    """One line of at most 1,000 characters, such as a name; else empty."""
    value = of.get(name)
    return value if isinstance(value, str) and len(value) <= _MAX_TEXT and value.isprintable() else ""


def words(of: Payload, name: str) -> str:
    """What somebody wrote, of any number of lines; cut where it is longer than GitHub takes it."""
    value = of.get(name)
    return storable(value[:_MAX_WORDS]) if isinstance(value, str) else ""


def number(of: Payload, name: str = "number") -> int:
    """Of an issue, a pull request or a line; 0 where there is none."""
    return _whole(of.get(name), _MAX_NUMBER)


def identifier(of: Payload, name: str = "id") -> int:
    """0 where there is none."""
    return _whole(of.get(name), _MAX_ID)


def moment(of: Payload, name: str) -> datetime | None:
    """An RFC 3339 time, or seconds since the epoch."""
    value = of.get(name)
    try:
        if isinstance(value, str):
            found = datetime.fromisoformat(value)
            return found if found.tzinfo is not None else None
        return datetime.fromtimestamp(value, UTC) if type(value) is int else None
    except (ValueError, OverflowError, OSError):
        return None


def actor(of: Payload, name: str) -> Actor:
    """Who it was; without a login where that is not told."""
    found = mapping(of, name)
    login = text(found, "login")
    return Actor(login, is_bot=found.get("type") == "Bot" or login.endswith(_BOT))


def repository(payload: Payload) -> RepositoryName:
    found = mapping(payload, "repository")
    full_name = text(found, "full_name")
    urls = (text(found, name) for name in ("clone_url", "html_url"))
    return RepositoryName(full_name, next((url for url in urls if _is_of(url, full_name)), ""))


def _is_of(url: str, full_name: str) -> bool:
    """Whether it is the address by which the repository of this name is fetched."""
    try:
        parts = urlsplit(url)
        is_plain = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False
    return is_plain and bool(full_name) and parts.path.removesuffix(".git").endswith(f"/{full_name}")


def _whole(value: object, most: int) -> int:
    return value if type(value) is int and 0 < value <= most else 0  # a bool is an int too
