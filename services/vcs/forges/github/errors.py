"""What an answer of GitHub that is no success means, in one table. Pure; no text of it holds a credential."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.vcs.errors import ForgeError, ForgeNotFoundError, ForgeRefusedError, ForgeUnavailableError

LONGEST_PAUSE_SECONDS: Final = 3_600.0
_SECONDARY_PAUSE_SECONDS: Final = 60.0
_LONGEST_SECONDARY_SECONDS: Final = 960.0
_MOST_WORDS: Final = 1_000
_SERVER_ERROR: Final = 500
_TOO_MANY: Final = 429
_LIMITED: Final = (403, _TOO_MANY)
_CORE: Final = "core"
# Said of a 422, which else is about what was asked.
_TOO_QUICKLY: Final = "submitted too quickly"
_LIMIT_WORDS: Final = ("rate limit", "abuse detection", _TOO_QUICKLY)

_TOKENS: Final = re.compile(r"\b(?:gh[a-z]_|github_pat_)\w+|\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?")


class ForgeInvalidError(ForgeRefusedError):
    """GitHub finds what was asked for invalid (422); its reasons are in ``git_message``."""


@dataclass(frozen=True, slots=True)
class Failure:
    """``asked``: method and path. ``words``: GitHub's own. ``settings``: those that hold the credentials."""

    status: int
    headers: Mapping[str, str]
    words: str
    asked: str
    settings: str


@dataclass(frozen=True, slots=True)
class Limited:
    """GitHub wants to be left alone for ``seconds``."""

    seconds: float
    reason: str
    is_guess: bool = False
    """GitHub did not say how long; each guess in a row is twice the one before."""
    is_apart: bool = False
    """It is a limit of its own, as searches have: all else may be asked meanwhile."""


def words_of(body: Any) -> str:
    """The message of an error answer and the reasons beneath it, without anything that looks like a token."""
    if not isinstance(body, Mapping):
        return ""
    reasons = body.get("errors")
    listed = [_reason(reason) for reason in reasons] if isinstance(reasons, list) else []
    words = ": ".join(filter(None, [str(body.get("message") or ""), "; ".join(filter(None, listed))]))
    return without_tokens(words)[:_MOST_WORDS]


def without_tokens(text: str) -> str:
    return _TOKENS.sub("***", text)


def limit_of(failure: Failure, *, now: float, guesses: int) -> Limited | None:
    """Whether the answer says that too much was asked. ``now``: Unix time. ``guesses``: made in a row so far.

    See GitHub's "Rate limits for the REST API": Retry-After, else the reset of a spent limit, else a minute that grows.
    """
    said = failure.words.lower()
    if failure.status not in _LIMITED and _TOO_QUICKLY not in said:
        return None
    retry_after, reset = failure.headers.get("retry-after", ""), failure.headers.get("x-ratelimit-reset", "")
    if retry_after.isdecimal():
        return Limited(_bounded(float(retry_after)), failure.words)
    if failure.headers.get("x-ratelimit-remaining") == "0" and reset.isdecimal():
        is_apart = failure.headers.get("x-ratelimit-resource", _CORE) != _CORE
        return Limited(_bounded(float(reset) - now + 1), failure.words or "the rate limit is spent", is_apart=is_apart)
    if failure.status == _TOO_MANY or any(words in said for words in _LIMIT_WORDS):
        seconds = min(_SECONDARY_PAUSE_SECONDS * 2**guesses, _LONGEST_SECONDARY_SECONDS)
        return Limited(seconds, failure.words, is_guess=True)
    return None


def error_of(failure: Failure) -> ForgeError:
    """The error that an answer other than success, and other than a limit, stands for."""
    if failure.status >= _SERVER_ERROR:
        return ForgeUnavailableError(f"GitHub failed itself at {failure.asked} ({failure.status}); try again later")
    return _TABLE.get(failure.status, _refused)(failure)


def _unauthorized(failure: Failure) -> ForgeError:
    return ForgeRefusedError(
        f"GitHub does not accept the credentials; check {failure.settings}", git_message=failure.words
    )


def _forbidden(failure: Failure) -> ForgeError:
    needed = failure.headers.get("x-accepted-github-permissions") or failure.headers.get("x-accepted-oauth-scopes")
    advice = (
        f"give the credentials in {failure.settings} the permission {needed}"
        if needed
        else (f"check the permissions of the credentials in {failure.settings}")
    )
    return ForgeRefusedError(f"GitHub does not permit {failure.asked}; {advice}", git_message=failure.words)


def _not_found(failure: Failure) -> ForgeError:
    return ForgeNotFoundError(
        f"GitHub has nothing at {failure.asked}, or does not show it to the credentials in {failure.settings}; "
        "check the name, and that they may see the repository",
        git_message=failure.words,
    )


def _gone(failure: Failure) -> ForgeError:
    return ForgeNotFoundError(f"GitHub no longer has what {failure.asked} is about", git_message=failure.words)


def _moved(failure: Failure) -> ForgeError:
    return ForgeRefusedError(
        f"GitHub has moved what {failure.asked} is about (it was renamed or transferred); use its new address",
        git_message=failure.words,
    )


def _invalid(failure: Failure) -> ForgeError:
    return ForgeInvalidError(f"GitHub finds {failure.asked} invalid", git_message=failure.words)


def _refused(failure: Failure) -> ForgeError:
    return ForgeRefusedError(f"GitHub refuses {failure.asked} ({failure.status})", git_message=failure.words)


_TABLE: Final[Mapping[int, Callable[[Failure], ForgeError]]] = {
    301: _moved,
    302: _moved,
    307: _moved,
    308: _moved,
    401: _unauthorized,
    403: _forbidden,
    404: _not_found,
    405: _refused,
    409: _refused,
    410: _gone,
    422: _invalid,
    451: _gone,
}


def _reason(reason: Any) -> str:
    if not isinstance(reason, Mapping):
        return str(reason)
    if reason.get("message"):
        return str(reason["message"])
    return " ".join(str(reason[name]) for name in ("resource", "field", "code") if reason.get(name))


def _bounded(seconds: float) -> float:
    return min(max(seconds, 1.0), LONGEST_PAUSE_SECONDS)
