"""The forge over gRPC: what is asked of it, what a request may say, and each of its failures as a status."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import grpc
import pytest

from services.contracts.v1 import vcs_pb2 as pb
from services.runtime.postgres import StoreUnavailableError
from services.vcs import errors
from services.vcs.forges import FailedCheck, ForgeRepository, Issue, IssueComment, RepositoryQuery
from services.vcs.forges.local import LocalForge
from services.vcs.git.repositories import Repository
from tests.integration.vcs.conftest import Node
from tests.integration.vcs.rpc_changesets import MERGED, RecordedChangesets
from tests.integration.vcs.rpc_serving import OneForge, Stub, detail, parts_of, read_all, refusal, stub_of

CHANGESET = "3f0e6a52-7f0b-4d0c-9a39-5d2f7f6f0009"
FOUND = ForgeRepository(
    full_name="acme/demo",
    clone_url="https://forge.example/acme/demo.git",
    default_branch="main",
    description="A demo",
    is_private=True,
    is_archived=True,
    is_fork=True,
    topics=("one", "two"),
    language="Python",
    size_kb=12,
)
SAID = IssueComment("9", "grace", "On Tuesdays too.", datetime(2026, 1, 31, 12, 0, 0, 5, UTC))
ISSUE = Issue(
    number=7,
    title="It breaks",
    body="Every time.",
    state="open",
    author="ada",
    url="https://forge.example/acme/demo/issues/7",
    labels=["bug"],
    is_pull_request=True,
    comments=[SAID],
)
FAILED = FailedCheck("tests", "failure", "2 failed", "of 3", "https://forge.example/runs/1")


class ListingForge(LocalForge):
    """Has repositories, an issue and a failed check, and remembers what it was asked."""

    def __init__(self, node: Node) -> None:
        super().__init__(node.git, node.mirrors, "http://127.0.0.1:8080")
        self.asked: list[object] = []

    async def repositories(self, query: RepositoryQuery) -> AsyncIterator[ForgeRepository]:
        self.asked.append(query)
        for _ in range(2):
            yield FOUND

    async def permission(self, repository: Repository, login: str) -> str:
        self.asked.append((repository.key, login))
        return "write"

    async def issue(self, repository: Repository, number: int) -> Issue:
        self.asked.append((repository.key, number))
        return ISSUE

    async def failed_checks(self, repository: Repository, sha: str) -> Sequence[FailedCheck]:
        self.asked.append((repository.key, sha))
        return [FAILED]


@pytest.fixture
def forge(node: Node) -> ListingForge:
    return ListingForge(node)


@pytest.fixture
def changesets() -> RecordedChangesets:
    return RecordedChangesets()


@pytest.fixture
async def stub(node: Node, forge: ListingForge, changesets: RecordedChangesets) -> AsyncIterator[Stub]:
    async with stub_of(parts_of(node, forges=OneForge(forge), changesets=changesets)) as stub:
        yield stub


async def test_repositories_are_listed_as_asked(stub: Stub, forge: ListingForge) -> None:
    request = pb.ListRepositoriesRequest(
        owner="acme",
        patterns=["acme/*"],
        topics=["one"],
        search="language:python",
        include_archived=True,
        include_forks=True,
        limit=1_000,
    )
    first, second = await read_all(stub.ListRepositories(request))
    assert first == second
    assert first == pb.ForgeRepository(
        full_name="acme/demo",
        clone_url="https://forge.example/acme/demo.git",
        default_branch="main",
        description="A demo",
        is_private=True,
        is_archived=True,
        is_fork=True,
        topics=["one", "two"],
        language="Python",
        size_kb=12,
    )
    await read_all(stub.ListRepositories(pb.ListRepositoriesRequest()))
    assert forge.asked == [
        RepositoryQuery(
            owner="acme",
            patterns=("acme/*",),
            topics=("one",),
            search="language:python",
            include_archived=True,
            include_forks=True,
            limit=1_000,
        ),
        RepositoryQuery(limit=100),
    ]


async def test_without_a_forge_that_lists_it_is_said_what_to_configure(node: Node) -> None:
    async with stub_of(parts_of(node)) as stub:
        error = await refusal(read_all(stub.ListRepositories(pb.ListRepositoriesRequest())))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "GitHub token" in (error.details() or "")


async def test_a_permission_is_looked_up(stub: Stub, forge: ListingForge) -> None:
    request = pb.GetPermissionRequest(repository="https://forge.example/acme/demo", login="renovate[bot]")
    assert (await stub.GetPermission(request)).permission == "write"
    assert forge.asked == [("forge.example/acme/demo", "renovate[bot]")]


async def test_an_issue_is_told_whole(stub: Stub, forge: ListingForge) -> None:
    request = pb.GetIssueRequest(repository="https://forge.example/acme/demo.git", number=7)
    assert await stub.GetIssue(request) == pb.Issue(
        number=7,
        title="It breaks",
        body="Every time.",
        state="open",
        author="ada",
        labels=["bug"],
        is_pull_request=True,
        comments=[pb.IssueComment(id="9", author="grace", body="On Tuesdays too.", time=1_769_860_800)],
        url="https://forge.example/acme/demo/issues/7",
    )
    assert forge.asked == [("forge.example/acme/demo", 7)]


async def test_failed_checks_are_told(stub: Stub, forge: ListingForge) -> None:
    request = pb.GetFailedChecksRequest(repository="https://forge.example/acme/demo", sha="a" * 40)
    check = pb.FailedCheck(
        name="tests", conclusion="failure", title="2 failed", summary="of 3", url="https://forge.example/runs/1"
    )
    assert await stub.GetFailedChecks(request) == pb.GetFailedChecksReply(checks=[check])
    assert forge.asked == [("forge.example/acme/demo", "a" * 40)]


async def test_without_a_forge_there_are_no_issues_and_no_checks(node: Node) -> None:
    address = "https://forge.example/acme/demo"
    async with stub_of(parts_of(node)) as stub:
        error = await refusal(stub.GetIssue(pb.GetIssueRequest(repository=address, number=7)))
        reply = await stub.GetFailedChecks(pb.GetFailedChecksRequest(repository=address, sha="a" * 40))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "has no forge that could have an issue 7" in (error.details() or "")
    assert list(reply.checks) == []


async def test_what_is_done_to_a_changeset_is_told_with_its_status(stub: Stub, changesets: RecordedChangesets) -> None:
    shown = pb.ChangesetStatus(
        changeset_id=CHANGESET,
        state="merged",
        is_draft=True,
        url=MERGED.url,
        head_sha=MERGED.head_sha,
        checks="passing",
        review="approved",
        mergeable="no",
        merge_sha=MERGED.merge_sha,
    )
    closing = pb.CloseChangesetRequest(changeset_id=CHANGESET, comment="bye", delete_branch=True)
    merging = pb.MergeChangesetRequest(changeset_id=CHANGESET, method="squash", delete_branch=True)
    assert await stub.LookUpChangeset(pb.LookUpChangesetRequest(changeset_id=CHANGESET)) == shown
    assert await stub.CloseChangeset(closing) == shown
    assert await stub.ReopenChangeset(pb.ReopenChangesetRequest(changeset_id=CHANGESET)) == shown
    assert await stub.MergeChangeset(merging) == shown
    reply = await stub.Comment(pb.CommentRequest(changeset_id=CHANGESET, body="hello", in_reply_to="9"))
    assert reply == pb.CommentReply(id="11", url="https://forge.example/c/11")
    identifier = UUID(CHANGESET)
    assert changesets.asked == [
        ("look_up", identifier),
        ("close", identifier, "bye", True),
        ("reopen", identifier),
        ("merge", identifier, "squash", True),
        ("comment", identifier, "hello", "9"),
    ]


@pytest.mark.parametrize(
    ("method", "request_", "words"),
    [
        ("LookUpChangeset", pb.LookUpChangesetRequest(changeset_id="7"), "changeset_id: '7' is no UUID"),
        ("ReopenChangeset", pb.ReopenChangesetRequest(), "changeset_id: '' is no UUID"),
        (
            "CloseChangeset",
            pb.CloseChangesetRequest(changeset_id=CHANGESET, comment="x" * 65_537),
            "comment: has 65,537 characters; at most 65,536",
        ),
        (
            "MergeChangeset",
            pb.MergeChangesetRequest(changeset_id=CHANGESET, method="octopus"),
            "method: 'octopus' is no way to merge; write merge or squash or rebase",
        ),
        ("Comment", pb.CommentRequest(changeset_id=CHANGESET, body=" "), "body: is empty"),
        ("Comment", pb.CommentRequest(changeset_id=CHANGESET, body="x" * 65_537), "body: has 65,537"),
        ("Comment", pb.CommentRequest(changeset_id=CHANGESET, body="x", in_reply_to="../1"), "in_reply_to: '../1'"),
        ("GetPermission", pb.GetPermissionRequest(repository="/x", login="a/b"), "login: 'a/b'"),
        ("GetPermission", pb.GetPermissionRequest(repository="", login="a"), "the repository is empty"),
        ("GetIssue", pb.GetIssueRequest(repository="https://forge.example/a/b"), "number: no issue has the number 0"),
        ("GetIssue", pb.GetIssueRequest(repository="https://forge.example/a/b", number=2**31), "number: no issue"),
        ("GetIssue", pb.GetIssueRequest(number=1), "the repository is empty"),
        ("GetFailedChecks", pb.GetFailedChecksRequest(repository="https://forge.example/a/b", sha="main"), "sha: "),
    ],
)
async def test_a_field_that_cannot_be_is_named(
    stub: Stub, changesets: RecordedChangesets, forge: ListingForge, method: str, request_: Any, words: str
) -> None:
    error = await refusal(getattr(stub, method)(request_))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in (error.details() or "")
    assert detail(error).retryable is False
    assert changesets.asked == forge.asked == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"limit": 1_001}, "limit: at most 1,000"),
        ({"owner": "a b"}, "owner: 'a b'"),
        ({"patterns": ["a/*", ""]}, "patterns[1]: is empty"),
        ({"topics": ["x" * 201]}, "topics[0]: has 201"),
        ({"topics": ["x"] * 101}, "topics: holds 101 values"),
        ({"search": "x" * 501}, "search: has 501"),
    ],
)
async def test_a_query_that_cannot_be_is_refused_before_anything_is_listed(
    stub: Stub, forge: ListingForge, fields: dict[str, Any], words: str
) -> None:
    error = await refusal(read_all(stub.ListRepositories(pb.ListRepositoriesRequest(**fields))))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in (error.details() or "")
    assert forge.asked == []


@pytest.mark.parametrize(
    ("error", "code", "retryable", "seconds"),
    [
        (errors.ForgeUnavailableError("GitHub answered 502"), "UNAVAILABLE", True, 0),
        (errors.ForgePausedError("GitHub wants a pause", seconds=12.5), "RESOURCE_EXHAUSTED", True, 12.5),
        (errors.ForgeRefusedError("it cannot be merged"), "FAILED_PRECONDITION", False, 0),
        (errors.ForgeNotFoundError("no such pull request"), "NOT_FOUND", False, 0),
    ],
)
async def test_each_failure_of_a_forge_has_its_status(
    node: Node, error: errors.ForgeError, code: str, retryable: bool, seconds: float
) -> None:
    async with stub_of(parts_of(node, changesets=RecordedChangesets(error))) as stub:
        caught = await refusal(stub.LookUpChangeset(pb.LookUpChangesetRequest(changeset_id=CHANGESET)))
    assert (caught.code().name, caught.details()) == (code, str(error))
    told = detail(caught)
    assert (told.exit_reason, told.retryable, told.retry_after_seconds) == ("forge_rejected", retryable, seconds)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (StoreUnavailableError("connection refused"), "UNAVAILABLE", "Postgres is away"),
        (KeyError("secret"), "INTERNAL", "its log has more under the request id "),
    ],
)
async def test_what_is_no_failure_of_the_forge_says_nothing_of_inside(
    node: Node, error: Exception, code: str, words: str
) -> None:
    async with stub_of(parts_of(node, changesets=RecordedChangesets(error))) as stub:
        caught = await refusal(stub.LookUpChangeset(pb.LookUpChangesetRequest(changeset_id=CHANGESET)))
    assert caught.code().name == code
    assert words in (caught.details() or "")
    assert "secret" not in str(caught)
