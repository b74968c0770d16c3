"""Which changesets an event of GitHub may be about, from payloads as GitHub documents them and from hostile ones.

https://docs.github.com/webhooks/webhook-events-and-payloads
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.webhooks.subjects import concerned_by

NAME, SHA = "Octo/Hello-World", "6dcb09b5b57875f334f61aebed695e2e4193db5e"
REPOSITORY = {"id": 1, "name": "Hello-World", "full_name": NAME, "owner": {"login": "Octo"}, "private": False}
PULL = {
    "number": 2,
    "state": "open",
    "head": {"ref": "changes", "sha": SHA, "repo": REPOSITORY},
    "base": {"ref": "main", "sha": SHA, "repo": REPOSITORY},
}
LINK = {"url": "https://api.github.com/repos/Octo/Hello-World/pulls/2"}
EVENTS = (
    *("pull_request", "pull_request_review", "pull_request_review_comment", "pull_request_review_thread"),
    *("issue_comment", "check_suite", "check_run", "status", "push", "delete", "create"),
)


def concerned(event: str, **payload: Any) -> tuple[list[int], list[str], list[str]]:
    """Numbers, branches and SHAs; of the very repository."""
    found = concerned_by(event, {"repository": REPOSITORY, "sender": {"login": "octocat"}, **payload})
    assert found.repository == NAME
    return found.numbers, found.branches, found.shas


@pytest.mark.parametrize("action", ["opened", "closed", "reopened", "synchronize", "converted_to_draft", "labeled"])
def test_a_pull_request_concerns_its_number(action: str) -> None:
    assert concerned("pull_request", action=action, number=2, pull_request=PULL) == ([2], [], [])


@pytest.mark.parametrize(
    ("event", "more"),
    [
        ("pull_request_review", {"action": "submitted", "review": {"id": 80, "state": "approved", "commit_id": SHA}}),
        ("pull_request_review_comment", {"action": "created", "comment": {"id": 9, "path": "a", "commit_id": SHA}}),
        ("pull_request_review_thread", {"action": "resolved", "thread": {"comments": []}}),
    ],
)
def test_a_review_concerns_its_pull_request(event: str, more: dict[str, Any]) -> None:
    assert concerned(event, pull_request=PULL, **more) == ([2], [], [])


def test_a_comment_concerns_a_pull_request_and_no_issue() -> None:
    comment = {"id": 3, "body": "Why?"}
    on_pull = {"number": 2, "pull_request": LINK, "title": "Changes"}
    assert concerned("issue_comment", action="created", issue=on_pull, comment=comment) == ([2], [], [])
    on_issue = {"number": 2, "title": "Broken"}
    assert concerned("issue_comment", action="created", issue=on_issue, comment=comment) == ([], [], [])


@pytest.mark.parametrize("event", ["check_suite", "check_run"])
def test_a_check_concerns_its_commit_and_the_pull_requests_named(event: str) -> None:
    check = {"id": 4, "head_sha": SHA, "status": "completed", "conclusion": "success"}
    pulls = [{"number": 2, "head": {"sha": SHA}}, {"number": 5}]
    assert concerned(event, **{event: {**check, "pull_requests": pulls}}) == ([2, 5], [], [SHA])
    # Of a fork none is named.
    assert concerned(event, **{event: {**check, "pull_requests": []}}) == ([], [], [SHA])


def test_a_status_concerns_its_commit() -> None:
    branches = [{"name": "changes", "commit": {"sha": SHA}}]
    assert concerned("status", sha=SHA, state="success", context="ci", branches=branches) == ([], [], [SHA])


def test_a_push_concerns_its_branch() -> None:
    assert concerned("push", ref="refs/heads/feature/a", before=SHA, after=SHA) == ([], ["feature/a"], [])
    assert concerned("push", ref="refs/heads/gone", after="0" * 40, deleted=True) == ([], ["gone"], [])


@pytest.mark.parametrize("event", ["create", "delete"])
def test_a_branch_that_is_made_or_deleted_is_concerned(event: str) -> None:
    """Here GitHub gives the name alone."""
    assert concerned(event, ref="feature/a", ref_type="branch", pusher_type="user") == ([], ["feature/a"], [])
    assert concerned(event, ref="refs/heads/odd", ref_type="branch") == ([], ["refs/heads/odd"], [])


def test_tags_concern_nothing() -> None:
    nothing: tuple[list[int], list[str], list[str]] = ([], [], [])
    assert concerned("push", ref="refs/tags/v1", after=SHA) == nothing
    for event in ("create", "delete"):
        assert concerned(event, ref="v1", ref_type="tag") == nothing


@pytest.mark.parametrize("event", ["ping", "star", "issues", "installation", "workflow_run", "", "pull_request "])
def test_other_events_concern_nothing(event: str) -> None:
    payload = {"repository": REPOSITORY, "pull_request": PULL, "ref": "refs/heads/a", "sha": SHA, "number": 2}
    assert concerned_by(event, payload).is_nothing


def test_without_a_repository_nothing_is_concerned() -> None:
    strange: list[Any] = [None, [], "Octo/Hello-World", {}, {"full_name": None}, {"full_name": "a\0b"}]
    for repository in strange:
        found = concerned_by("pull_request", {"pull_request": PULL, "repository": repository})
        assert (found.numbers, found.is_nothing) == ([2], True)


@pytest.mark.parametrize("number", [0, -1, 2**31, 2**63, 1.0, "2", True, None, [2], {"number": 2}, float("nan")])
def test_what_is_no_number_of_a_pull_request_concerns_nothing(number: object) -> None:
    assert concerned("pull_request", pull_request={**PULL, "number": number}) == ([], [], [])


@pytest.mark.parametrize("text", ["", 1, None, True, [SHA], {}, "a\0", "a\nb", "\ud800", "\x1b[2J", "a" * 1_001])
def test_what_is_no_sha_or_branch_concerns_nothing(text: object) -> None:
    assert concerned("status", sha=text) == ([], [], [])
    assert concerned("create", ref=text, ref_type="branch") == ([], [], [])
    assert concerned("push", ref=f"refs/heads/{text}" if isinstance(text, str) else text) == ([], [], [])


def test_a_check_that_names_very_many_pull_requests_concerns_some() -> None:
    pulls = [{"number": number} for number in range(1, 10_000)]
    numbers, _, shas = concerned("check_run", check_run={"head_sha": SHA, "pull_requests": pulls})
    assert (len(numbers), shas) == (99, [SHA])


ANY_TEXT = st.text() | st.sampled_from([SHA, NAME, "branch", "tag", "refs/heads/a", "refs/tags/a", "a/b"])
ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["number", "full_name", "head_sha", "pull_requests", "ref"]), inner)
    ),
    max_leaves=8,
)
FIELDS = ("repository", "pull_request", "issue", "check_suite", "check_run", "sha", "ref", "ref_type")


@given(st.sampled_from(EVENTS) | st.text(), st.dictionaries(st.sampled_from(FIELDS) | st.text(), ANY_VALUE))
def test_whatever_a_payload_holds_nothing_is_raised(event: str, payload: dict[str, Any]) -> None:
    found = concerned_by(event, payload)
    assert all(type(number) is int and 0 < number < 2**31 for number in found.numbers)
    texts = [found.repository, *found.branches, *found.shas]
    assert all(text.isprintable() for text in texts)
    assert all([*found.branches, *found.shas])
