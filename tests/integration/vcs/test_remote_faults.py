"""What a remote can do to a fetch or a push, over HTTP: the right error, words that help, a retry where it helps."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.vcs.errors import CloneFailedError, GitError, GitTimeoutError, PushRejectedError
from services.vcs.git import push as pushing
from services.vcs.git import remotes
from services.vcs.git.addresses import AllowedRemotes, RemoteAccess
from services.vcs.git.credentials import Credential, StaticCredentials
from services.vcs.git.push import Pushed, delete_branch, push
from services.vcs.git.remotes import clone_failed, list_remote
from services.vcs.git.repositories import Repository, parse_repository
from services.vcs.git.runner import Git, Place
from tests.integration.git_server import Fault, GitServer, git_server
from tests.integration.vcs.conftest import Remote, git

DEADLINE = timedelta(seconds=60)
HERE = RemoteAccess(AllowedRemotes.parse("127.0.0.1"), allow_insecure_http=True)
TOKEN = "s3cret"
BRANCH = "quarterdeck/run-1"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[GitServer]:
    async with git_server(tmp_path / "served") as server:
        server.create("o/n", token=TOKEN)
        yield server


@pytest.fixture
def remote(server: GitServer, tmp_path: Path) -> Remote:
    """One commit on main in the served repository."""
    work = tmp_path / "work"
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(work))
    remote = Remote(server.root / "o" / "n.git", work)
    remote.commit({"README.md": "# Demo\n", "noise": "".join(f"{number}\n" for number in range(50_000))})
    return remote


@pytest.fixture
def mirror(remote: Remote) -> Place:
    """Where what is pushed comes from, and what is fetched goes to."""
    return Place(remote.work / ".git")


def runner(tmp_path: Path, server: GitServer, password: str = TOKEN) -> Git:
    credentials = StaticCredentials({server.authority: Credential("bot", password)} if password else {})
    return Git(tmp_path / "home", remotes=HERE, credentials=credentials)


def served(server: GitServer, name: str = "o/n") -> Repository:
    return parse_repository(server.address(name), allow_local=False)


async def fetch(git: Git, repository: Repository, mirror: Place, timeout: timedelta = DEADLINE) -> None:
    arguments = ("fetch", "--progress", "--end-of-options", repository.url, "+refs/heads/*:refs/remotes/origin/*")
    try:
        await git.run_against(repository, *arguments, place=mirror, timeout=timeout, progress=lambda *_: None)
    except (GitError, GitTimeoutError) as error:
        raise clone_failed(repository, error) from error


async def pushed(git: Git, server: GitServer, mirror: Place, sha: str, **options: Any) -> Pushed:
    options = {"branch": BRANCH, "expected_remote_sha": ""} | options
    return await push(git, mirror, served(server), commit_sha=sha, **options)


@pytest.mark.parametrize(
    ("fault", "words", "retryable"),
    [
        (Fault(403), "refused the credentials that are set up for 127.0.0.1", False),
        (Fault(404), "or it is private and these credentials do not see it", False),
        (Fault(500), "tried again", True),
        (Fault(502), "tried again", True),
        (Fault(503), "tried again", True),
        (Fault(429), "tried again", True),
        (Fault(301, location="/elsewhere.git/info/refs?service=git-upload-pack"), "write the address", False),
        (Fault(302, location="http://127.0.0.1:1/x.git/info/refs"), "write the address", False),
        (Fault(drop_after=10), "tried again", True),
    ],
)
@pytest.mark.parametrize("call", ["list", "fetch", "push", "also ours", "delete"])
async def test_an_answer_that_is_none(
    server: GitServer,
    remote: Remote,
    mirror: Place,
    tmp_path: Path,
    fault: Fault,
    words: str,
    retryable: bool,
    call: str,
) -> None:
    git, sha = runner(tmp_path, server), remote.at("main")
    server.fault = fault
    repository = served(server)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "list": lambda: list_remote(git, repository, ""),
        "fetch": lambda: fetch(git, repository, mirror),
        "push": lambda: pushed(git, server, mirror, sha),
        "also ours": lambda: pushed(git, server, mirror, sha, also_ours=("f" * 40,)),
        "delete": lambda: delete_branch(git, mirror, repository, "main", sha),
    }
    kind = CloneFailedError if call in {"list", "fetch"} else PushRejectedError
    with pytest.raises(kind, match=words) as caught:
        await calls[call]()
    assert caught.value.retryable == retryable
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("password", "words"), [("", "no credentials are set up for 127.0.0.1"), ("old", "refused the credentials")]
)
async def test_who_is_not_known_is_told_what_to_set_up(
    server: GitServer, remote: Remote, mirror: Place, tmp_path: Path, password: str, words: str
) -> None:
    git = runner(tmp_path, server, password)
    with pytest.raises(CloneFailedError, match=words) as clone:
        await list_remote(git, served(server), "")
    with pytest.raises(PushRejectedError, match=words) as rejected:
        await pushed(git, server, mirror, remote.at("main"))
    assert not clone.value.retryable
    assert not rejected.value.retryable


async def test_a_repository_that_is_not_there(server: GitServer, tmp_path: Path) -> None:
    with pytest.raises(CloneFailedError, match="no such repository, or it is private") as caught:
        await list_remote(runner(tmp_path, server), served(server, "o/absent"), "")
    assert not caught.value.retryable


async def test_a_remote_that_hangs(
    server: GitServer, remote: Remote, mirror: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fault = Fault(hang=True)
    git, second = runner(tmp_path, server), timedelta(seconds=1)
    monkeypatch.setattr(remotes, "ASK_TIMEOUT", second)
    monkeypatch.setattr(pushing, "PUSH_TIMEOUT", second)
    with pytest.raises(CloneFailedError, match="did not answer in time") as clone:
        await fetch(git, served(server), mirror, second)
    with pytest.raises(PushRejectedError, match="whether it arrived is not known") as rejected:
        await pushed(git, server, mirror, remote.at("main"))
    assert server.hanging.is_set()
    assert clone.value.retryable
    assert rejected.value.retryable


@pytest.mark.parametrize("after_bytes", [0, 100, 50_000])
async def test_a_pack_that_is_cut_off_is_fetched_at_the_next_try(
    server: GitServer, remote: Remote, tmp_path: Path, after_bytes: int
) -> None:
    git_dir = tmp_path / "mirror"
    git(tmp_path, "init", "--quiet", "--bare", str(git_dir))
    server.fault = Fault(drop_after=after_bytes, only="/git-upload-pack")
    runner_ = runner(tmp_path, server)
    with pytest.raises(CloneFailedError, match="tried again") as caught:
        await fetch(runner_, served(server), Place(git_dir))
    assert caught.value.retryable
    assert not remotes.is_corruption(caught.value.git_message)
    server.fault = None
    await fetch(runner_, served(server), Place(git_dir))
    assert git(git_dir, "rev-parse", "refs/remotes/origin/main") == remote.at("main")


async def test_a_push_whose_answer_is_cut_off_has_arrived(
    server: GitServer, remote: Remote, mirror: Place, tmp_path: Path
) -> None:
    server.fault = Fault(drop_after=5, only="/git-receive-pack")
    sha = remote.at("main")
    assert await pushed(runner(tmp_path, server), server, mirror, sha) == Pushed(sha, moved=False)
    assert remote.at(BRANCH) == sha


async def test_a_protected_branch_stays_as_it_is(
    server: GitServer, remote: Remote, mirror: Place, tmp_path: Path
) -> None:
    server.protect("o/n", BRANCH)
    with pytest.raises(PushRejectedError, match=r"rules protect the branch.*another prefix") as caught:
        await pushed(runner(tmp_path, server), server, mirror, remote.at("main"))
    assert not caught.value.retryable
    assert "protected branch hook declined" in caught.value.git_message
    assert remote.at(BRANCH) == ""


async def test_a_users_commit_on_our_branch_is_never_overwritten(
    server: GitServer, remote: Remote, mirror: Place, tmp_path: Path
) -> None:
    ours, runner_ = remote.at("main"), runner(tmp_path, server)
    await pushed(runner_, server, mirror, ours)
    theirs = await asyncio.to_thread(remote.commit, {"theirs": "x\n"}, branch=BRANCH)
    next_of_ours = await asyncio.to_thread(git, remote.work, "commit-tree", f"{ours}^{{tree}}", "-p", ours, "-m", "x")
    for expected, also_ours in ((ours, ()), ("", ()), (ours, (ours,)), ("", (ours,))):
        with pytest.raises(PushRejectedError, match=f"it is at {theirs}, which is not ours") as caught:
            await pushed(runner_, server, mirror, next_of_ours, expected_remote_sha=expected, also_ours=also_ours)
        assert not caught.value.retryable
    with pytest.raises(PushRejectedError, match=theirs):
        await delete_branch(runner_, mirror, served(server), BRANCH, ours)
    assert remote.at(BRANCH) == theirs
