"""What an answer means: a pause of which length, or which error, and never a token in it."""

import pytest

from services.vcs.errors import ForgeError, ForgeNotFoundError, ForgeRefusedError, ForgeUnavailableError
from services.vcs.forges.github.errors import Failure, ForgeInvalidError, error_of, limit_of, words_of

NOW = 1_700_000_000


def _failure(status: int, words: str = "", **headers: str) -> Failure:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Failure(status, named, words, "GET /repos/a/b", "GITHUB_TOKEN")


@pytest.mark.parametrize(
    ("failure", "guesses", "seconds"),
    [
        (_failure(403, retry_after="30"), 0, 30),
        (_failure(429, retry_after="0"), 0, 1),
        (_failure(429, retry_after="999999"), 0, 3_600),
        (_failure(403, x_ratelimit_remaining="0", x_ratelimit_reset=str(NOW + 9)), 0, 10),
        (_failure(403, x_ratelimit_remaining="0", x_ratelimit_reset=str(NOW - 9)), 0, 1),
        (_failure(403, "You have exceeded a Secondary Rate Limit"), 0, 60),
        (_failure(403, "You have exceeded a secondary rate limit"), 2, 240),
        (_failure(403, "You have triggered an abuse detection mechanism"), 20, 960),
        (_failure(422, "Validation Failed: was submitted too quickly"), 0, 60),
        (_failure(429), 1, 120),
    ],
)
def test_a_limit_says_how_long(failure: Failure, guesses: int, seconds: float) -> None:
    limited = limit_of(failure, now=NOW, guesses=guesses)
    assert limited is not None
    assert limited.seconds == seconds


@pytest.mark.parametrize(
    "failure",
    [
        _failure(403, "Resource not accessible by integration", x_ratelimit_remaining="4999"),
        _failure(422, "Validation Failed"),
        _failure(404, x_ratelimit_remaining="0", x_ratelimit_reset=str(NOW + 9)),
        _failure(503, retry_after="30"),
    ],
)
def test_no_limit(failure: Failure) -> None:
    assert limit_of(failure, now=NOW, guesses=0) is None


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (301, ForgeRefusedError, False),
        (400, ForgeRefusedError, False),
        (401, ForgeRefusedError, False),
        (403, ForgeRefusedError, False),
        (404, ForgeNotFoundError, False),
        (405, ForgeRefusedError, False),
        (409, ForgeRefusedError, False),
        (410, ForgeNotFoundError, False),
        (422, ForgeInvalidError, False),
        (418, ForgeRefusedError, False),
        (500, ForgeUnavailableError, True),
        (599, ForgeUnavailableError, True),
    ],
)
def test_each_status_has_its_error(status: int, kind: type[ForgeError], retryable: bool) -> None:
    error = error_of(_failure(status, "their words"))
    assert type(error) is kind
    assert error.retryable is retryable
    assert retryable or error.git_message == "their words"


def test_what_is_missing_is_named() -> None:
    fine_grained = error_of(_failure(403, x_accepted_github_permissions="contents=write; pull_requests=write"))
    assert "the permission contents=write; pull_requests=write" in str(fine_grained)
    classic = error_of(_failure(403, x_accepted_github_permissions="", x_accepted_oauth_scopes="repo"))
    assert "the permission repo" in str(classic)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "Not Found"}, "Not Found"),
        (
            {"message": "Bad", "errors": ["one", {"message": "two"}, {"code": "invalid", "field": "f"}, {}]},
            "Bad: one; two; f invalid",
        ),
        ({"errors": "no list"}, ""),
        ({"message": None}, ""),
        (["no object"], ""),
        ({"message": "x" * 5_000}, "x" * 1_000),
        (
            {"message": "you sent ghp_0123456789abcdef, github_pat_11AB_cd and eyJhbGci.eyJpc3M.c2ln!"},
            "you sent ***, *** and ***!",
        ),
    ],
)
def test_their_words(body: object, words: str) -> None:
    assert words_of(body) == words
