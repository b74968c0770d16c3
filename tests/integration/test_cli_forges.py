"""What the client and the commands send about changesets, repositories and clients, and what they show."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from pydantic import BaseModel
from typer.testing import CliRunner, Result

from quarterdeck import Client, ConflictError, InvalidRequestError
from quarterdeck.cli.app import app
from services.contracts import clients, repositories
from services.contracts.changesets import PostedComment
from services.contracts.repositories import MirrorState, RepositoryChange, SyncState
from services.contracts.rest import Changeset
from services.contracts.words import ChangesetState, Checks, Mergeable, Publish, Review
from tests.integration.fake_gateway import API_KEY, NOW, FakeGateway, make_job, problem, running

CHANGESET = Changeset(
    id=UUID("11111111-aaaa-4aaa-8aaa-000000000001"),
    job_id=uuid4(),
    run_id=uuid4(),
    state=ChangesetState.OPEN,
    repository="https://forge.example/team/widget.git",
    branch="quarterdeck/fix-12345678",
    base_sha="a" * 40,
    base_branch="main",
    commit_sha="b" * 40,
    files=[],
    insertions=3,
    deletions=1,
    url="https://forge.example/team/widget/pull/7",
    error="\x1b[31mred",
    publish=Publish.PULL_REQUEST,
    is_draft=False,
    verified=True,
    forge="github",
    number=7,
    superseded_by=None,
    head_sha="b" * 40,
    checks=Checks.PASSING,
    review=Review.APPROVED,
    mergeable=Mergeable.YES,
    merge_sha=None,
    observed_at=NOW,
    created_at=NOW,
    published_at=NOW,
    closed_at=None,
)
REPOSITORY = repositories.Repository(
    id=uuid4(),
    name="widget",
    url="https://forge.example/team/widget.git",
    base_ref=None,
    description="Gears",
    created_at=NOW,
    updated_at=NOW,
)
FOUND = repositories.ForgeRepository(
    full_name="acme/gear",
    clone_url="https://forge.example/acme/gear.git",
    default_branch="main",
    description=None,
    is_private=False,
    is_archived=False,
    is_fork=False,
    topics=[],
    language="Go",
    size_kb=2_000,
)
TENANT = clients.Client(id=uuid4(), name="acme", is_operator=False, created_at=NOW, disabled_at=None)
KEYED = clients.ClientWithKey(**dict(TENANT), api_key="qd_shown_once")
_CHANGESET, _REPOSITORY, _CLIENT = f"/{CHANGESET.id}", f"/{REPOSITORY.id}", f"/{TENANT.id}"


def mirror(node: str, state: MirrorState, **changes: Any) -> repositories.Mirror:
    values: dict[str, Any] = {"bytes": 0, "used_at": None, "fetched_at": None, "worktrees": 0, "rescued": []}
    return repositories.Mirror(**{"node": node, "state": state, "error": None, **values, **changes})


def node(name: str, state: SyncState, **changes: Any) -> repositories.NodeSync:
    values = dict.fromkeys(repositories.NodeSync.model_fields)
    return repositories.NodeSync(**{**values, "node": name, "state": state, **changes})


@dataclass
class ForgesGateway(FakeGateway):
    """The fake gateway with answers by method and path; ``sent``: what came, with its body or query."""

    answers: dict[str, Any] = field(default_factory=dict)
    sent: list[tuple[str, Any]] = field(default_factory=list)

    def application(self) -> web.Application:
        application = super().application()
        for root in ("changesets", "repositories", "clients"):
            application.router.add_route("*", f"/v1/{root}{{rest:.*}}", self._any)
        return application

    async def _any(self, request: web.Request) -> web.Response:
        name = f"{request.method} {request.path.removeprefix('/v1/')}"
        body = await request.read()
        self.sent.append((name, json.loads(body) if body else dict(request.query)))
        answer = self.answers.get(name)
        if answer is None:
            return problem(404, "Not Found", f"nothing is at {name}")
        if isinstance(answer, list):
            answer = {"items": [each.model_dump(mode="json", by_alias=True) for each in answer], "nextCursor": None}
        text = answer.model_dump_json(by_alias=True) if isinstance(answer, BaseModel) else json.dumps(answer)
        return web.json_response(text=text)

    def bodies_of(self, name: str) -> list[Any]:
        return [body for each, body in self.sent if each == name]


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ForgesGateway]:
    monkeypatch.setenv("QUARTERDECK_DATA_DIR", str(tmp_path / "no-stack"))
    served = ForgesGateway()
    served.answers = {
        "GET changesets": [CHANGESET],
        f"GET changesets{_CHANGESET}": CHANGESET,
        **{f"POST changesets{_CHANGESET}/{action}": CHANGESET for action in ("publish", "merge", "close")},
        **{f"POST changesets{_CHANGESET}/{action}": CHANGESET for action in ("reopen", "refresh")},
        f"POST changesets{_CHANGESET}/comments": PostedComment(id="9", url="https://forge.example/c/9"),
        "POST repositories": REPOSITORY,
        "GET repositories": [REPOSITORY],
        f"PATCH repositories{_REPOSITORY}": REPOSITORY,
        f"DELETE repositories{_REPOSITORY}": REPOSITORY,
        "GET repositories/discover": [FOUND],
        "GET clients": [TENANT],
        "GET clients/me": TENANT,
        f"GET clients{_CLIENT}": TENANT,
        "POST clients": KEYED,
        f"POST clients{_CLIENT}/key": KEYED,
        f"DELETE clients{_CLIENT}": TENANT,
    }
    with running(served):
        monkeypatch.setenv("QUARTERDECK_ADDRESS", served.address)
        monkeypatch.setenv("QUARTERDECK_API_KEY", API_KEY)
        yield served


def quarterdeck(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def ok(*words: str) -> str:
    result = quarterdeck(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (("publish",), {}),
        (("publish", "--publish", "draft"), {"publish": "draft"}),
        (("merge",), {"method": "merge", "deleteBranch": False}),
        (("merge", "--method", "squash", "--delete-branch"), {"method": "squash", "deleteBranch": True}),
        (("close",), {"deleteBranch": False}),
        (("close", "--comment", "No."), {"comment": "No.", "deleteBranch": False}),
        (("reopen",), {}),
        (("refresh",), {}),
    ],
)
def test_each_action_on_a_changeset_sends_what_was_said_and_shows_it(
    gateway: ForgesGateway, words: tuple[str, ...], sent: dict[str, Any]
) -> None:
    action, *options = words
    shown = ok("changesets", action, "11111111", *options)
    assert gateway.bodies_of(f"POST changesets{_CHANGESET}/{action}") == [sent]
    for words_of in (str(CHANGESET.id), "open", "passing", "approved", CHANGESET.url or ""):
        assert words_of in shown
    assert "\x1b" not in shown
    document = json.loads(ok("changesets", action, str(CHANGESET.id), *options, "--json"))
    assert document["id"] == str(CHANGESET.id)


def test_changesets_are_listed_shown_and_commented(gateway: ForgesGateway) -> None:
    listed = ok("changesets", "list", "--state", "open", "--repository", "https://x.example/y", "--limit", "5")
    assert str(CHANGESET.id) in listed
    query = {"state": "open", "repository": "https://x.example/y", "limit": "5"}
    assert gateway.bodies_of("GET changesets") == [query]
    assert "quarterdeck/fix-12345678" in ok("changesets", "show", str(CHANGESET.id))
    assert ok("changesets", "comment", "1111", "Why?", "--in-reply-to", "12") == "https://forge.example/c/9\n"
    assert gateway.bodies_of(f"POST changesets{_CHANGESET}/comments") == [{"body": "Why?", "inReplyTo": "12"}]


def test_a_forges_refusal_is_told_in_its_words(gateway: ForgesGateway) -> None:
    gateway.faults = [problem(409, "Conflict", "not mergeable: checks are failing")]
    refused = quarterdeck("changesets", "merge", str(CHANGESET.id))
    assert (refused.exit_code, "checks are failing" in refused.stderr) == (1, True)
    unknown = quarterdeck("changesets", "merge", "2222")
    assert (unknown.exit_code, "`quarterdeck changesets list`" in unknown.stderr) == (1, True)
    assert quarterdeck("changesets", "merge", "1111", "--method", "force").exit_code == 2


def test_a_repository_is_kept_listed_and_forgotten_by_its_name(gateway: ForgesGateway, tmp_path: Path) -> None:
    assert ok("repos", "add", "widget", REPOSITORY.url, "--base", "main") == f"{REPOSITORY.id}\n"
    ok("repos", "add", "here", str(tmp_path))
    assert gateway.bodies_of("POST repositories") == [
        {"name": "widget", "url": REPOSITORY.url, "baseRef": "main"},
        {"name": "here", "url": str(tmp_path)},
    ]
    assert REPOSITORY.url in ok("repos", "list", "--name", "wid*")
    assert gateway.bodies_of("GET repositories")[-1]["name"] == "wid*"
    assert "not kept any more" in ok("repos", "remove", "widget")
    assert "not kept any more" in ok("repos", "remove", str(REPOSITORY.id))
    unknown = quarterdeck("repos", "remove", "gadget")
    assert (unknown.exit_code, "No repository is called 'gadget'" in unknown.stderr) == (1, True)


def test_a_repository_is_shown_with_its_mirrors_or_why_there_are_none(gateway: ForgesGateway) -> None:
    mirrors = [mirror("vcs-1", MirrorState.PRESENT, bytes=5_000_000), mirror("vcs-2", MirrorState.UNKNOWN, error="?")]
    path = f"GET repositories{_REPOSITORY}"
    gateway.answers[path] = repositories.RepositoryStatus(**dict(REPOSITORY), mirrors=mirrors, mirrors_error=None)
    shown = ok("repos", "show", "widget")
    assert all(words in shown for words in ("vcs-1", "5.0 MB", "vcs-2", "unknown", "Gears"))
    gateway.answers[path] = repositories.RepositoryStatus(**dict(REPOSITORY), mirrors=[], mirrors_error="no node lives")
    assert "no node lives" in quarterdeck("repos", "show", "widget").stderr


def test_syncing_tells_each_node_and_exits_with_1_where_one_failed(gateway: ForgesGateway) -> None:
    done = node("vcs-1", SyncState.DONE, head_sha="c" * 40, default_branch="main", bytes=1_000)
    going = node("vcs-2", SyncState.RUNNING, phase="Receiving objects", percent=42)
    failed = node("vcs-3", SyncState.FAILED, error="remote: gone")
    gateway.answers[f"POST repositories{_REPOSITORY}/sync"] = repositories.Sync(
        repository_id=REPOSITORY.id, nodes=[done, going]
    )
    gateway.answers[f"POST repositories{_REPOSITORY}/clone"] = repositories.Sync(
        repository_id=REPOSITORY.id, nodes=[done, failed]
    )
    synced = quarterdeck("repos", "sync", "widget")
    assert (synced.exit_code, "running Receiving objects 42 %" in synced.stdout) == (0, True)
    assert "goes on" in synced.stderr
    cloned = quarterdeck("repos", "clone", "widget")
    assert (cloned.exit_code, "remote: gone" in cloned.stdout) == (1, True)
    assert quarterdeck("repos", "clone", "widget", "--json").exit_code == 1


def test_repositories_are_looked_for_and_taken_over(gateway: ForgesGateway) -> None:
    options = ("--owner", "acme", "--match", "acme/*", "--match", "acme/g*", "--topic", "metal", "-q", "go", "--forks")
    assert "acme/gear" in ok("repos", "discover", *options)
    assert gateway.bodies_of("GET repositories/discover") == [
        {
            "owner": "acme",
            "match": "acme/*,acme/g*",
            "topic": "metal",
            "q": "go",
            "forks": "true",
            "limit": "100",
        }
    ]
    gateway.answers["POST repositories/import"] = repositories.Imported(
        imported=[REPOSITORY], skipped=["acme/old"], missing=[]
    )
    taken = quarterdeck("repos", "import", "acme/gear", "acme/old")
    assert (taken.exit_code, "Kept already: acme/old" in taken.stderr) == (0, True)
    ok("repos", "import", *options, "--limit", "7")
    assert gateway.bodies_of("POST repositories/import") == [
        {"names": ["acme/gear", "acme/old"]},
        {
            "owner": "acme",
            "match": ["acme/*", "acme/g*"],
            "topic": ["metal"],
            "q": "go",
            "archived": False,
            "forks": True,
            "limit": 7,
        },
    ]
    gateway.answers["POST repositories/import"] = repositories.Imported(imported=[], skipped=[], missing=["acme/x"])
    missing = quarterdeck("repos", "import", "acme/x")
    assert (missing.exit_code, "Not on the forge: acme/x" in missing.stderr) == (1, True)


def test_a_clients_key_alone_goes_to_stdout(gateway: ForgesGateway) -> None:
    made = quarterdeck("clients", "add", "acme", "--operator")
    assert (made.exit_code, made.stdout) == (0, "qd_shown_once\n")
    assert "shown this once" in made.stderr
    assert gateway.bodies_of("POST clients") == [{"name": "acme", "isOperator": True}]
    assert ok("clients", "key", "acme") == "qd_shown_once\n"
    assert "acme" in ok("clients", "list")
    assert str(TENANT.id) in ok("clients", "show")
    assert str(TENANT.id) in ok("clients", "show", "acme")
    assert "acme" in ok("clients", "disable", "acme")
    assert json.loads(ok("clients", "disable", str(TENANT.id), "--json"))["id"] == str(TENANT.id)
    assert len(gateway.bodies_of(f"DELETE clients{_CLIENT}")) == 2


def test_submit_sends_how_a_change_is_to_be_delivered(gateway: ForgesGateway, tmp_path: Path) -> None:
    job = gateway.add(make_job())
    (tmp_path / "body.md").write_text("Does {prompt}")
    words = ["--publish", "draft", "--on-existing", "replace", "--label", "bot", "--label", "fix", "--reviewer", "ada"]
    words += ["--assignee", "bob", "--title", "{name}", "--body-file", str(tmp_path / "body.md")]
    words += ["--path", "services/x", "--sign-off"]
    assert ok("submit", "do it", "-r", "https://forge.example/x.git", *words) == f"{job.id}\n"
    (body,) = gateway.bodies
    assert body["repositories"] == [{"url": "https://forge.example/x.git", "checkout": {"path": "services/x"}}]
    pull_request = {"title": "{name}", "body": "Does {prompt}", "labels": ["bot", "fix"]}
    assert body["options"] == {
        "publish": "draft",
        "onExisting": "replace",
        "pullRequest": {**pull_request, "reviewers": ["ada"], "assignees": ["bob"]},
        "signOff": True,
    }


@pytest.mark.parametrize(
    "words",
    [
        ("submit", "x", "-r", "https://x.example/y", "--no-publish", "--publish", "draft"),
        ("submit", "x", "-r", "https://x.example/y", "--publish", "later"),
        ("submit", "x", "-r", "https://x.example/y", "--on-existing", "delete"),
        ("submit", "x", "-r", "https://x.example/y", "--body-file", "no/such/file"),
        ("repos", "add", "x", "no such folder"),
        ("repos", "discover", "--limit", "1001"),
        ("changesets", "show", "not-an-id"),
        ("clients", "frobnicate"),
    ],
)
def test_a_wrong_command_line_exits_2_and_asks_nothing(gateway: ForgesGateway, words: tuple[str, ...]) -> None:
    result = quarterdeck(*words)
    assert result.exit_code == 2
    assert not gateway.requests
    assert "Traceback" not in result.stderr


async def test_the_client_changes_what_is_named_and_types_what_is_refused(gateway: ForgesGateway) -> None:
    async with Client(gateway.address, API_KEY) as client:
        change = RepositoryChange.model_validate({"baseRef": None, "name": "gear"})
        assert await client.change_repository(REPOSITORY.id, change) == REPOSITORY
        await client.change_repository(REPOSITORY.id, {"description": None})
        assert gateway.bodies_of(f"PATCH repositories{_REPOSITORY}") == [
            {"baseRef": None, "name": "gear"},
            {"description": None},
        ]
        errors = [{"field": "url", "message": "holds a user name or token"}]
        gateway.faults = [
            problem(409, "Conflict", "the name is taken"),
            problem(422, "Unprocessable Entity", "url: holds a token", errors=errors),
        ]
        with pytest.raises(ConflictError, match="taken"):
            await client.add_repository("widget", "https://x.example/y")
        with pytest.raises(InvalidRequestError, match="url: holds a user name"):
            await client.add_repository("widget", "https://t@x.example/y")
