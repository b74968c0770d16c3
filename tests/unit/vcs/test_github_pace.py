"""A pause holds for all and only grows; so many creations a minute and no more; answers are kept within bounds."""

import pytest

from services.vcs.errors import ForgePausedError
from services.vcs.forges.github import LocalPace
from services.vcs.forges.github.etags import Known, KnownAnswers


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def test_a_pause_only_grows_and_ends() -> None:
    clock = Clock()
    pace = LocalPace(clock=clock)
    await pace.before(creates=True)
    await pace.pause(60, "a limit")
    await pace.pause(5, "a shorter one")
    clock.now += 30
    with pytest.raises(ForgePausedError, match="for a while: a limit") as caught:
        await pace.before(creates=False)
    assert caught.value.seconds == 30
    clock.now += 30
    await pace.before(creates=False)


async def test_the_minute_of_creations_slides() -> None:
    clock = Clock()
    pace = LocalPace(creates_per_minute=2, clock=clock)
    await pace.before(creates=True)
    clock.now += 40
    await pace.before(creates=True)
    with pytest.raises(ForgePausedError, match="2 pull requests were opened") as caught:
        await pace.before(creates=True)
    assert caught.value.seconds == 20
    await pace.before(creates=False)
    clock.now += 20
    await pace.before(creates=True)
    with pytest.raises(ForgePausedError):
        await pace.before(creates=True)


def _known(etag: str) -> Known:
    return Known.of(etag, etag.encode() * 10, is_last=True)


def test_the_answers_used_last_are_kept() -> None:
    known = KnownAnswers(most_bytes=3 * _known("a").size_bytes)
    for key in ("a", "b", "c"):
        known.put(key, _known(key))
    assert known.get("a") == _known("a")
    known.put("d", _known("d"))
    assert known.get("b") is None
    assert [one.content for key in "acd" if (one := known.get(key))] == [b"a" * 10, b"c" * 10, b"d" * 10]


def test_an_answer_takes_the_place_of_its_older_one() -> None:
    known = KnownAnswers(most_bytes=2 * _known("a").size_bytes)
    for _ in range(9):
        known.put("a", _known("a"))
    known.put("b", _known("b"))
    assert known.get("a") is not None
    assert known.get("b") is not None


def test_an_answer_too_large_is_not_kept() -> None:
    known = KnownAnswers(most_bytes=10)
    known.put("a", _known("a"))
    assert known.get("a") is None
