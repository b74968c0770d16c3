"""The forge without an account, on real repositories: what is merged how, what is refused, and that twice is once."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from services.contracts.words import Mergeable, MergeMethod
from services.vcs.errors import ForgeNotFoundError, ForgeRefusedError, ForgeUnavailableError
from services.vcs.forges import ChangeRef, ChangeState, Forge, MarkedComment, Opened, PublishedChange, RepositoryQuery
from services.vcs.forges.local import LocalForge
from services.vcs.git.addresses import AllowedRemotes, RemoteAccess
from services.vcs.git.push import push
from services.vcs.git.repositories import parse_repository
from services.vcs.git.runner import Git
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.mirrors.options import MirrorOptions
from tests.integration.git_server import git_server
from tests.integration.vcs.conftest import METADATA, Node, Remote, git

BRANCH = "quarterdeck/run-1"
PAGE = "http://127.0.0.1:8080/changesets/c%2F1"


@pytest.fixture
def forge(node: Node) -> Forge:
    return LocalForge(node.git, node.mirrors, "http://127.0.0.1:8080/")


def patch_of(text: str) -> bytes:
    return f"diff --git a/new b/new\nnew file mode 100644\n--- /dev/null\n+++ b/new\n@@ -0,0 +1 @@\n+{text}\n".encode()


async def published(node: Node, remote: Remote, text: str = "x", *, base_branch: str = "main") -> ChangeRef:
    """A pushed change that adds the file `new`."""
    base = await node.mirrors.fetch(remote.repository)
    sha = await node.commits.commit_patch(remote.repository, base.sha, patch_of(text), METADATA)
    place, expected = node.mirrors.place(remote.repository), remote.at(BRANCH)
    await push(node.git, place, remote.repository, branch=BRANCH, commit_sha=sha, expected_remote_sha=expected)
    return ChangeRef("c/1", remote.repository, BRANCH, base_branch, sha)


def shown(remote: Remote, name: str, *, of: str = "main") -> str:
    return git(remote.bare, "show", f"{of}:{name}")


def parents(remote: Remote, sha: str) -> list[str]:
    return git(remote.bare, "rev-list", "--parents", "-1", sha).split()[1:]


def field(remote: Remote, shape: str, *, of: str = "main") -> str:
    return git(remote.bare, "show", "--no-patch", f"--format={shape}", of)


async def test_a_changeset_has_one_page(forge: Forge, remote: Remote) -> None:
    change = PublishedChange("c/1", remote.repository, BRANCH, "main", "a" * 40, "Title", "Body")
    assert await forge.open(change) == await forge.open(change) == Opened(PAGE)


async def test_an_open_change_is_looked_up(forge: Forge, node: Node, remote: Remote) -> None:
    change = await published(node, remote)
    remote.commit({"other": "y\n"})
    status = await forge.look_up(change)
    assert (status.state, status.head_sha, status.mergeable) == (ChangeState.OPEN, change.commit_sha, Mergeable.YES)
    assert (status.url, status.number, status.merge_sha) == (PAGE, None, "")


async def test_a_change_against_the_default_branch_needs_no_name_for_it(
    forge: Forge, node: Node, remote: Remote
) -> None:
    change = await published(node, remote, base_branch="")
    assert (await forge.look_up(change)).mergeable is Mergeable.YES
    status = await forge.merge(change, MergeMethod.MERGE, delete_branch=False)
    assert remote.at("main") == status.merge_sha


async def test_a_conflict_is_told_with_its_files_and_moves_nothing(forge: Forge, node: Node, remote: Remote) -> None:
    change = await published(node, remote)
    theirs = remote.commit({"new": "theirs\n"})
    assert (await forge.look_up(change)).mergeable is Mergeable.NO
    for method in MergeMethod:
        with pytest.raises(ForgeRefusedError, match="the same lines in new;"):
            await forge.merge(change, method, delete_branch=True)
    assert (remote.at("main"), remote.at(BRANCH)) == (theirs, change.commit_sha)


@pytest.mark.parametrize("method", list(MergeMethod))
@pytest.mark.parametrize("moved", [True, False])
async def test_merged_twice_is_merged_once(
    forge: Forge, node: Node, remote: Remote, method: MergeMethod, moved: bool
) -> None:
    change = await published(node, remote)
    base = remote.commit({"other": "y\n"}) if moved else remote.at("main")
    first = await forge.merge(change, method, delete_branch=False)
    assert await forge.merge(change, method, delete_branch=False) == first == await forge.look_up(change)
    assert first.state is ChangeState.MERGED
    assert first.merge_sha == remote.at("main")
    assert shown(remote, "new") == "x"
    expected = [base, change.commit_sha] if method is MergeMethod.MERGE else [base]
    assert parents(remote, first.merge_sha) == expected
    assert git(remote.bare, "fsck", "--strict") == ""


async def test_a_rebase_of_what_needs_none_keeps_the_commit(forge: Forge, node: Node, remote: Remote) -> None:
    change = await published(node, remote)
    status = await forge.merge(change, MergeMethod.REBASE, delete_branch=False)
    assert status.merge_sha == remote.at("main") == change.commit_sha


@pytest.mark.parametrize("method", [MergeMethod.SQUASH, MergeMethod.REBASE])
async def test_author_and_message_survive_and_name_what_was_pushed(
    forge: Forge, node: Node, remote: Remote, method: MergeMethod
) -> None:
    change = await published(node, remote)
    remote.commit({"other": "y\n"})
    await forge.merge(change, method, delete_branch=False)
    assert field(remote, "%an <%ae> %at") == "Ada <ada@example.org> 1700000000"
    assert field(remote, "%cn") == "Quarterdeck"
    assert field(remote, "%B") == f"Change it\n\nBecause.\n\nQuarterdeck-Commit: {change.commit_sha}"


@pytest.mark.parametrize("method", [MergeMethod.SQUASH, MergeMethod.REBASE])
async def test_what_was_merged_stays_so_when_the_base_goes_on(
    forge: Forge, node: Node, remote: Remote, method: MergeMethod
) -> None:
    change = await published(node, remote)
    git(remote.work, "fetch", "-q", str(remote.bare), "main")
    remote.commit({"other": "y\n"})
    status = await forge.merge(change, method, delete_branch=True)
    assert (status.head_sha, remote.at(BRANCH)) == ("", "")
    git(remote.work, "fetch", "-q", str(remote.bare), "main")
    git(remote.work, "reset", "-q", "--hard", "FETCH_HEAD")
    remote.commit({"new": "changed since\n"})
    later = await forge.look_up(change)
    assert (later.state, later.merge_sha) == (ChangeState.MERGED, status.merge_sha)


async def test_a_series_is_rebased_commit_by_commit(forge: Forge, node: Node, remote: Remote) -> None:
    await node.mirrors.fetch(remote.repository)
    base = remote.at("main")
    remote.commit({"one": "1\n"}, branch=BRANCH)
    tip = remote.commit({"two": "2\n", "one": "1\n1\n"}, branch=BRANCH)
    git(remote.work, "reset", "-q", "--hard", base)
    moved = remote.commit({"other": "y\n"})
    change = ChangeRef("c/1", remote.repository, BRANCH, "main", tip)
    status = await forge.merge(change, MergeMethod.REBASE, delete_branch=False)
    assert git(remote.bare, "rev-list", "--count", f"{moved}..main") == "2"
    assert (shown(remote, "one"), shown(remote, "two"), shown(remote, "other")) == ("1\n1", "2", "y")
    assert git(remote.bare, "diff", "--name-only", "main^", "main").split() == ["one", "two"]
    assert status.merge_sha == remote.at("main")


async def test_a_merge_by_hand_is_found_with_its_commit(forge: Forge, node: Node, remote: Remote) -> None:
    change = await published(node, remote)
    remote.commit({"other": "y\n"})
    git(remote.work, "fetch", "-q", str(remote.bare), BRANCH)
    git(remote.work, "merge", "-q", "--no-ff", "FETCH_HEAD")
    merge_sha = remote.push()
    remote.commit({"later": "z\n"})
    status = await forge.look_up(change)
    assert (status.state, status.merge_sha) == (ChangeState.MERGED, merge_sha)


async def test_the_same_content_on_the_base_is_merged(forge: Forge, node: Node, remote: Remote) -> None:
    change = await published(node, remote)
    sha = remote.commit({"new": "x\n", "other": "y\n"})
    status = await forge.look_up(change)
    assert (status.state, status.merge_sha) == (ChangeState.MERGED, sha)


async def test_a_branch_that_somebody_went_on_with_is_not_merged(forge: Forge, node: Node, remote: Remote) -> None:
    change, base = await published(node, remote), remote.at("main")
    git(remote.work, "fetch", "-q", str(remote.bare), BRANCH)
    git(remote.work, "reset", "-q", "--hard", "FETCH_HEAD")
    theirs = remote.commit({"theirs": "z\n"}, branch=BRANCH)
    status = await forge.look_up(change)
    assert (status.head_sha, status.mergeable) == (theirs, Mergeable.NO)
    with pytest.raises(ForgeRefusedError, match=f"is at {theirs}, not at {change.commit_sha}"):
        await forge.merge(change, MergeMethod.MERGE, delete_branch=True)
    with pytest.raises(ForgeRefusedError):
        await forge.close(change, comment="", delete_branch=True)
    assert (remote.at("main"), remote.at(BRANCH)) == (base, theirs)


async def test_a_base_that_moves_meanwhile_is_merged_anew(forge: Forge, node: Node, remote: Remote) -> None:
    change = await published(node, remote)
    # Another push of the base, within the window between our look at it and our own push, twice.
    script = remote.bare / "hooks" / "pre-receive"
    script.parent.mkdir(exist_ok=True)
    script.write_text(
        "#!/bin/sh\n"
        'n=$(cat moves 2>/dev/null || echo 0); [ "$n" -ge 2 ] && exit 0; echo $((n+1)) > moves\n'
        "export GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x\n"
        "unset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES\n"
        'new=$(git commit-tree -p main -m "theirs $n" main^{tree})\n'
        "git update-ref refs/heads/main $new\n"
    )
    script.chmod(0o755)
    status = await forge.merge(change, MergeMethod.SQUASH, delete_branch=False)
    assert (remote.bare / "moves").read_text() == "2\n"
    assert git(remote.bare, "log", "--format=%s", "main").splitlines()[:3] == ["Change it", "theirs 1", "theirs 0"]
    assert status.merge_sha == remote.at("main")


async def test_two_who_merge_at_once_merge_once(make_node: Callable[[str], Node], node: Node, remote: Remote) -> None:
    change = await published(node, remote)
    remote.commit({"other": "y\n"})
    nodes = [node, make_node("second")]
    forges = [LocalForge(one.git, one.mirrors, "http://127.0.0.1:8080") for one in nodes]
    first, second = await asyncio.gather(*(one.merge(change, MergeMethod.MERGE, delete_branch=True) for one in forges))
    assert first.merge_sha == second.merge_sha == remote.at("main")
    assert remote.at(BRANCH) == ""


async def test_a_partial_mirror_gets_the_content_that_a_merge_needs(tmp_path: Path, remote: Remote) -> None:
    async with git_server(tmp_path / "served") as server:
        served = Remote(server.create("o/n"), remote.work)
        for setting in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant"):
            git(served.bare, "config", setting, "true")
        lines = [f"{number}\n" for number in range(30)]
        base = served.commit({"shared": "".join(lines), "other": "x\n"})
        tip = served.commit({"shared": "".join(["ours\n", *lines[1:]])}, branch=BRANCH)
        git(served.work, "reset", "-q", "--hard", base)
        served.commit({"shared": "".join([*lines[:-1], "theirs\n"])})
        here = RemoteAccess(AllowedRemotes.parse("127.0.0.1"), allow_insecure_http=True)
        node_git = Git(tmp_path / "home", remotes=here)
        mirrors = Mirrors(tmp_path / "partial", node_git, options=MirrorOptions(filter="blob:none"))
        forge = LocalForge(node_git, mirrors, "")
        address = parse_repository(server.address("o/n"), allow_local=False)
        change = ChangeRef("c/1", address, BRANCH, "main", tip)
        assert (await forge.look_up(change)).mergeable is Mergeable.YES
        status = await forge.merge(change, MergeMethod.SQUASH, delete_branch=False)
    assert (status.state, served.at("main")) == (ChangeState.MERGED, status.merge_sha)
    assert shown(served, "shared").split() == ["ours", *map(str, range(1, 29)), "theirs"]


async def test_a_base_that_was_made_anew_has_nothing_to_merge_with(forge: Forge, node: Node, remote: Remote) -> None:
    change = await published(node, remote)
    git(remote.work, "checkout", "-q", "--orphan", "anew")
    git(remote.work, "commit", "-q", "--message", "Anew")
    git(remote.work, "push", "-q", "--force", str(remote.bare), "HEAD:main")
    status = await forge.look_up(change)
    assert (status.state, status.mergeable) == (ChangeState.OPEN, Mergeable.UNKNOWN)
    with pytest.raises(ForgeRefusedError, match="unrelated histories"):
        await forge.merge(change, MergeMethod.MERGE, delete_branch=False)


async def test_a_declined_push_is_told_with_the_servers_words(forge: Forge, node: Node, remote: Remote) -> None:
    change, base = await published(node, remote), remote.at("main")
    hook = remote.bare / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho main is protected >&2; exit 1\n")
    hook.chmod(0o755)
    with pytest.raises(ForgeRefusedError, match="main is protected"):
        await forge.merge(change, MergeMethod.MERGE, delete_branch=True)
    assert (remote.at("main"), remote.at(BRANCH)) == (base, change.commit_sha)


async def test_a_base_branch_that_is_checked_out_says_what_to_do(forge: Forge, node: Node, remote: Remote) -> None:
    change = await published(node, remote)
    git(remote.bare, "config", "core.bare", "false")
    with pytest.raises(ForgeRefusedError, match="check another branch out there"):
        await forge.merge(change, MergeMethod.MERGE, delete_branch=False)


async def test_closed_and_opened_again(forge: Forge, node: Node, remote: Remote) -> None:
    change = await published(node, remote)
    for _ in range(2):
        closed = await forge.close(change, comment="Not wanted.", delete_branch=True)
        assert (closed.state, closed.head_sha, remote.at(BRANCH)) == (ChangeState.CLOSED, "", "")
    assert (await forge.look_up(change)).state is ChangeState.OPEN  # Git does not know that it was closed
    for _ in range(2):
        opened = await forge.reopen(change)
        assert (opened.state, opened.head_sha, remote.at(BRANCH)) == (
            ChangeState.OPEN,
            change.commit_sha,
            change.commit_sha,
        )


async def test_closing_without_deleting_leaves_the_branch(forge: Forge, node: Node, remote: Remote) -> None:
    change = await published(node, remote)
    closed = await forge.close(change, comment="", delete_branch=False)
    assert (closed.state, closed.head_sha, remote.at(BRANCH)) == (
        ChangeState.CLOSED,
        change.commit_sha,
        change.commit_sha,
    )


async def test_what_is_merged_is_neither_closed_nor_opened_again(forge: Forge, node: Node, remote: Remote) -> None:
    change = await published(node, remote)
    await forge.merge(change, MergeMethod.MERGE, delete_branch=False)
    assert (await forge.close(change, comment="", delete_branch=True)).state is ChangeState.MERGED
    assert remote.at(BRANCH) == ""
    with pytest.raises(ForgeRefusedError, match="is merged"):
        await forge.reopen(change)


async def test_a_branch_and_commit_that_are_gone_cannot_be_opened_again(
    make_node: Callable[[str], Node], node: Node, remote: Remote
) -> None:
    change = await published(node, remote)
    git(remote.bare, "branch", "-D", BRANCH)
    elsewhere = make_node("elsewhere")
    forge = LocalForge(elsewhere.git, elsewhere.mirrors, "")
    git(remote.bare, "gc", "-q", "--prune=now")
    with pytest.raises(ForgeRefusedError, match="publish the changeset again"):
        await forge.reopen(change)
    with pytest.raises(ForgeRefusedError, match="is gone; reopen"):
        await forge.merge(change, MergeMethod.MERGE, delete_branch=False)


async def test_a_remote_that_is_away_is_unavailable(tmp_path: Path) -> None:
    away = parse_repository("https://127.0.0.1:1/x", allow_local=False)
    node_git = Git(tmp_path / "home", remotes=RemoteAccess(AllowedRemotes.parse("127.0.0.1")))
    forge = LocalForge(node_git, Mirrors(tmp_path, node_git), "")
    with pytest.raises(ForgeUnavailableError):
        await forge.look_up(ChangeRef("c/1", away, BRANCH, "main", "a" * 40))


async def test_what_takes_an_account_says_so(forge: Forge, remote: Remote) -> None:
    change = ChangeRef("c/1", remote.repository, BRANCH, "main", "a" * 40)
    with pytest.raises(ForgeRefusedError, match="nowhere to comment"):
        await forge.comment(change, "Hello.", in_reply_to="")
    with pytest.raises(ForgeRefusedError, match="name the repositories"):
        [found async for found in forge.repositories(RepositoryQuery())]
    assert await forge.permission(remote.repository, os.environ.get("USER", "ada")) == "admin"
    with pytest.raises(ForgeRefusedError, match="nowhere to comment"):
        await forge.post(MarkedComment("c-1", remote.repository, 7, "Hello."))
    with pytest.raises(ForgeNotFoundError, match="no forge that could have an issue 7"):
        await forge.issue(remote.repository, 7)
    assert list(await forge.failed_checks(remote.repository, "a" * 40)) == []


async def test_what_may_be_done_on_another_host_is_not_made_up_here(forge: Forge) -> None:
    """A vcs without credentials beside others that have them: its "admin" would let anybody start work."""
    elsewhere = parse_repository("https://github.com/acme/private", allow_local=False)
    with pytest.raises(ForgeUnavailableError, match=r"no credentials for the forge of .*what mallory may do") as caught:
        await forge.permission(elsewhere, "mallory")
    assert caught.value.retryable
    with pytest.raises(ForgeUnavailableError, match="nowhere to comment"):
        await forge.post(MarkedComment("c-1", elsewhere, 7, "Hello."))
