"""A run's branch: legal for Git whatever the title, and another for every run."""

import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from services.jobs.submission import branch_name

RUN = UUID("019aa5c0-0000-7000-8000-0000deadbeef")
LEGAL = re.compile(r"quarterdeck/[a-z0-9]+(-[a-z0-9]+)*-[0-9a-f]{8}")


@pytest.mark.parametrize(
    ("title", "branch"),
    [
        ("Rename foo to bar", "quarterdeck/rename-foo-to-bar-deadbeef"),
        ("  --Fix: the (old) thing!  ", "quarterdeck/fix-the-old-thing-deadbeef"),
        ("../../etc/passwd.lock", "quarterdeck/etc-passwd-lock-deadbeef"),
        ("日本語", "quarterdeck/change-deadbeef"),
        ("a" * 39 + " b", "quarterdeck/" + "a" * 39 + "-deadbeef"),
        ("line one\nline two", "quarterdeck/line-one-line-two-deadbeef"),
    ],
)
def test_titles(title: str, branch: str) -> None:
    assert branch_name(title, RUN) == branch


@given(st.text())
def test_any_title_makes_a_legal_short_branch(title: str) -> None:
    branch = branch_name(title, RUN)

    assert LEGAL.fullmatch(branch)
    assert len(branch) <= len("quarterdeck/") + 40 + len("-deadbeef")


def test_runs_of_one_title_get_branches_of_their_own() -> None:
    assert len({branch_name("the same", uuid7()) for _ in range(1_000)}) == 1_000
