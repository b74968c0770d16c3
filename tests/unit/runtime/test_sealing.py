"""Secrets come back only with a key that sealed them and to the owner that they were sealed for."""

import base64

import pytest

from services.runtime.sealing import (
    BadSecretKeyError,
    CannotOpenError,
    NoSecretKeyError,
    Sealer,
    WrongOwnerError,
)

OLD, NEW = (base64.urlsafe_b64encode(letter * 32).decode() for letter in (b"o", b"n"))
SECRETS = {"key": "sk-ä", "more": {"a": "b"}}


def test_what_was_sealed_is_opened_and_not_to_be_seen_in_between() -> None:
    sealed = Sealer(OLD).seal(SECRETS, owner="me")
    opened = Sealer(OLD).open(sealed, owners=["you", "me"])
    assert (opened.owner, opened.secrets) == ("me", SECRETS)
    assert b"sk-" not in sealed
    assert "sk-" not in repr(opened)


def test_the_first_key_seals_and_all_open() -> None:
    both = Sealer(f"{NEW}, {OLD}")
    assert both.open(Sealer(OLD).seal(SECRETS, owner="me"), owners=["me"]).secrets == SECRETS
    assert Sealer(NEW).open(both.seal(SECRETS, owner="me"), owners=["me"]).secrets == SECRETS


def test_another_owner_another_key_and_damage_are_told_apart() -> None:
    sealed = Sealer(OLD).seal(SECRETS, owner="me")
    with pytest.raises(WrongOwnerError):
        Sealer(OLD).open(sealed, owners=["you"])
    for other, found in [(NEW, sealed), (OLD, sealed[:-1]), (OLD, b""), (OLD, b"\xff" * 80)]:
        with pytest.raises(CannotOpenError, match="QUARTERDECK_SECRET_KEY"):
            Sealer(other).open(found, owners=["me"])


@pytest.mark.parametrize("keys", [None, ""])
def test_without_a_key_nothing_is_sealed_or_opened(keys: str | None) -> None:
    with pytest.raises(NoSecretKeyError, match="QUARTERDECK_SECRET_KEY is not set"):
        Sealer(keys).seal(SECRETS, owner="me")
    with pytest.raises(NoSecretKeyError):
        Sealer(keys).open(Sealer(OLD).seal(SECRETS, owner="me"), owners=["me"])


@pytest.mark.parametrize("keys", ["secret", OLD[:-2], f"{OLD},", f"{OLD},short", "ü" * 44, OLD + OLD])
def test_a_bad_key_is_refused_without_being_repeated(keys: str) -> None:
    with pytest.raises(BadSecretKeyError, match="make one by") as refused:
        Sealer(keys)
    assert keys not in str(refused.value)
    assert refused.value.__cause__ is None
