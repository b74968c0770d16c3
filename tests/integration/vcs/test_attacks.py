"""Attacks carried out. Each is shown to work against Git as a user runs it, and not to work against the service."""

import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from services.vcs.errors import CloneFailedError, GitError, GitTimeoutError, PushRejectedError, RepositoryRefusedError
from services.vcs.git.push import delete_branch, push
from services.vcs.git.remotes import list_remote
from services.vcs.git.repositories import Repository
from services.vcs.git.runner import Git, Place
from tests.integration.vcs.conftest import METADATA, Node, Remote, git

SECOND = timedelta(seconds=10)


def trap(folder: Path) -> tuple[str, Path]:
    """A program that leaves a mark when it runs, and the mark."""
    script, mark = folder / "trap.sh", folder / "pwned"
    script.write_text(f"#!/bin/sh\ntouch {mark}\ncat 2>/dev/null\nexit 0\n")
    script.chmod(0o755)
    return str(script), mark


def arm(git_dir: Path, program: str) -> None:
    """Configuration and hooks that make Git run ``program`` at every opportunity."""
    for hook in (
        "post-index-change",
        "post-checkout",
        "reference-transaction",
        "pre-push",
        "post-commit",
        "pre-commit",
    ):
        path = git_dir / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(program)
    with (git_dir / "config").open("a") as file:
        file.write(f"[core]\n\tfsmonitor = {program}\n\tsshCommand = {program}\n")
        file.write(f'[filter "evil"]\n\tclean = {program}\n\tsmudge = {program}\n\trequired = true\n')
        file.write(
            f'[diff "evil"]\n\tcommand = {program}\n\ttextconv = {program}\n[credential]\n\thelper = {program}\n'
        )


async def work_through(node: Node, run_id: str, attempt: int) -> None:
    await node.worktrees.checkpoint(run_id, attempt)
    await node.commits.commit_worktree(run_id, attempt, METADATA)
    await node.worktrees.release(run_id, attempt)


@pytest.mark.parametrize("shape", ["gitfile", "folder"])
async def test_a_rewritten_dot_git_runs_nothing(node: Node, remote: Remote, tmp_path: Path, shape: str) -> None:
    program, mark = trap(tmp_path)
    path = (await node.worktrees.prepare("run", 1, remote.repository)).path
    (path / ".git").unlink()
    evil = path / ".git" if shape == "folder" else path / "evil"
    git(path, "init", "--quiet", str(evil) if shape == "gitfile" else ".")
    if shape == "gitfile":
        (path / ".git").write_text(f"gitdir: {evil}/.git\n")
        evil = evil / ".git"
    (path / ".gitattributes").write_text("* filter=evil diff=evil\n")
    arm(evil, program)
    git(path, "add", "README.md")
    assert mark.exists(), "the attack itself must work against plain Git"
    mark.unlink()
    await work_through(node, "run", 1)
    assert not mark.exists()


@pytest.mark.parametrize("where", ["mirror", "attempt"])
async def test_hooks_filters_and_monitors_never_run(node: Node, remote: Remote, tmp_path: Path, where: str) -> None:
    program, mark = trap(tmp_path)
    remote.commit({".gitattributes": "* diff=evil\n"})
    await node.worktrees.prepare("run", 1, remote.repository)
    mirror = node.mirrors.place(remote.repository).git_dir
    if where == "mirror":
        arm(mirror, program)
        git(mirror, "update-ref", "refs/heads/probe", "refs/remotes/origin/main")
    else:
        arm(node.root / "state/run/1/git", program)
        git(node.root / "worktrees/run/1", "status")
    assert mark.exists(), "the attack itself must work against plain Git"
    mark.unlink()
    (node.root / "worktrees/run/1/new").write_text("x\n")
    remote.commit({"more": "x\n"})
    await node.worktrees.prepare("other", 1, remote.repository)
    await work_through(node, "run", 1)
    assert not mark.exists()


async def test_a_filter_named_by_the_repository_never_runs(node: Node, remote: Remote, tmp_path: Path) -> None:
    program, mark = trap(tmp_path)
    await node.mirrors.fetch(remote.repository)
    arm(node.mirrors.place(remote.repository).git_dir, program)
    remote.commit({".gitattributes": "*.md filter=evil\n"})
    ready = await node.worktrees.prepare("run", 1, remote.repository)
    (ready.path / "README.md").write_text("changed\n")
    await work_through(node, "run", 1)
    assert not mark.exists()


@pytest.mark.parametrize(
    "address",
    [
        *("--upload-pack=touch {mark}", "ext::touch {mark}", "file://{bare}", "{bare}"),
        *("git://127.0.0.1:1/x", "http://127.0.0.1:1/x"),
    ],
)
async def test_hostile_addresses_are_stopped_even_behind_the_parser(
    tmp_path: Path, remote: Remote, address: str
) -> None:
    mark = tmp_path / "pwned"
    # An option in place of the address is stopped by its place in the command, the others by what may be transported.
    runner = Git(tmp_path / "home", allow_local=address.startswith("-"))
    url = address.format(mark=mark, bare=remote.bare)
    with pytest.raises(RepositoryRefusedError):
        await list_remote(runner, Repository(url, "key", "folder"), "")
    with pytest.raises(GitError, match=r"transport '\w+' not allowed|strange pathname|No such file"):
        await runner.run("ls-remote", "--end-of-options", url, timeout=SECOND)
    assert not mark.exists()


class TrustingGit(Git):
    """Git that asks whatever it is told to."""

    async def run_against(self, repository: Repository, *arguments: str, **options: Any) -> bytes:
        return await self.run(*arguments, **options)


async def test_an_address_is_never_an_option_of_a_command(remote: Remote, tmp_path: Path) -> None:
    mark, runner, mirror = tmp_path / "pwned", TrustingGit(tmp_path / "home", allow_local=True), Place(remote.bare)
    for option in ("--upload-pack", "--receive-pack", "--exec"):
        hostile, sha = Repository(f"{option}=touch {mark};", "key", "folder"), remote.at("main")
        # Git looked for a repository of that name.
        with pytest.raises(CloneFailedError, match=f"'{option}=touch"):
            await list_remote(runner, hostile, "")
        with pytest.raises(PushRejectedError, match=f"'{option}=touch"):
            await push(runner, mirror, hostile, branch="x", commit_sha=sha, expected_remote_sha="")
        with pytest.raises(PushRejectedError, match=f"'{option}=touch"):
            await delete_branch(runner, mirror, hostile, "x", sha)
    assert not mark.exists()


def test_the_ext_transport_works_where_it_is_allowed(tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    command = ["git", "-c", "protocol.ext.allow=always", "ls-remote", f"ext::touch {mark}"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=False, timeout=10)
    assert mark.exists(), "else the test above proves nothing"


async def test_a_link_out_of_the_worktree_is_never_made(node: Node, remote: Remote) -> None:
    (remote.work / "out").symlink_to("/etc")
    remote.commit({})
    path = (await node.worktrees.prepare("run", 1, remote.repository)).path
    assert not (path / "out").is_symlink()
    assert (path / "out").read_text() == "/etc"


async def test_a_folder_that_became_a_link_is_not_read_through(node: Node, remote: Remote, tmp_path: Path) -> None:
    secret = tmp_path / "outside"
    secret.mkdir()
    (secret / "main.py").write_text("secret\n")
    path = (await node.worktrees.prepare("run", 1, remote.repository)).path
    (path / "src/main.py").unlink()
    (path / "src").rmdir()
    (path / "src").symlink_to(secret)
    snapshot = await node.worktrees.checkpoint("run", 1)
    assert b"secret\n" not in snapshot.patch
    assert {(file.path, file.change) for file in snapshot.files} == {(b"src", "added"), (b"src/main.py", "deleted")}


async def test_removing_a_worktree_follows_no_link(node: Node, remote: Remote, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    path = (await node.worktrees.prepare("run", 1, remote.repository)).path
    (path / "out").symlink_to(outside)
    await node.worktrees.release("run", 1)
    assert (outside / "file").read_text() == "x"


async def test_nothing_of_our_own_environment_reaches_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, _ = trap(tmp_path)
    monkeypatch.setenv("GIT_SSH_COMMAND", program)
    monkeypatch.setenv("SECRET_TOKEN", "s3cret")
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.fsmonitor'='{program}'")
    shown = await Git(tmp_path / "home").run("-c", "alias.e=!env", "e", timeout=SECOND)
    assert b"s3cret" not in shown
    assert program.encode() not in shown


async def test_a_command_that_asks_fails_instead_of_waiting(tmp_path: Path) -> None:
    runner = Git(tmp_path / "home")
    question = b"protocol=https\nhost=example.org\n\n"
    with pytest.raises(GitError):
        await runner.run("credential", "fill", stdin=question, timeout=SECOND, accept=())


async def test_a_deadline_ends_the_whole_process_group(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    runner = Git(tmp_path / "home")
    # It ignores SIGTERM, as does what it started.
    script = f"!trap '' TERM; sh -c 'trap \"\" TERM; echo $$ >{mark}; while :; do sleep 0.1; done' & wait"
    with pytest.raises(GitTimeoutError, match="ended after 1 s"):
        await runner.run("-c", f"alias.hang={script}", "hang", timeout=timedelta(seconds=1))
    assert is_gone(mark.read_text().strip())


def is_gone(pid: str) -> bool:
    state = Path("/proc", pid, "stat")
    return not state.exists() or ") Z" in state.read_text()


async def test_a_bare_repository_inside_a_worktree_is_not_taken_for_one(
    node: Node, remote: Remote, tmp_path: Path
) -> None:
    program, mark = trap(tmp_path)
    path = (await node.worktrees.prepare("run", 1, remote.repository)).path
    bare = path / "embedded"
    git(path, "init", "--quiet", "--bare", str(bare))
    arm(bare, program)
    with pytest.raises(GitError, match=r"safe\.bareRepository|bare repository"):
        await node.git.run("-C", str(bare), "rev-parse", "--git-dir", place=None, timeout=SECOND)
    snapshot = await node.worktrees.checkpoint("run", 1)
    assert b"embedded/config" in {file.path for file in snapshot.files}
    assert not mark.exists()


def test_a_place_says_all_that_git_would_look_up() -> None:
    place = Place(Path("/g"), work_tree=Path("/w"), index=Path("/i"))
    assert place.variables() == {"GIT_DIR": "/g", "GIT_WORK_TREE": "/w", "GIT_INDEX_FILE": "/i"}
