"""Bounds of every Git command: what it takes in, how much it writes, how it ends, whose folders it trusts."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from services.vcs.errors import GitError, GitFileTooLargeError, GitUnfitError
from services.vcs.git.addresses import AllowedRemotes, RemoteAccess
from services.vcs.git.processes import run_process
from services.vcs.git.remotes import clone_failed
from services.vcs.git.repositories import Repository, parse_repository
from services.vcs.git.runner import Git, Place
from tests.integration.git_server import GitServer, git_server
from tests.integration.vcs.conftest import git
from tests.integration.waiting import until

DEADLINE = timedelta(seconds=60)
HERE = RemoteAccess(AllowedRemotes.parse("127.0.0.1"), allow_insecure_http=True)
MEBIBYTE = 1024 * 1024
AUTHOR = "Ada <ada@example.org> 1700000000 +0000"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[GitServer]:
    async with git_server(tmp_path / "served") as server:
        server.create("o/n")
        yield server


def bare(server: GitServer) -> Path:
    return server.root / "o" / "n.git"


def written(server: GitServer, kind: str, content: bytes) -> str:
    """An object as it is, whatever Git thinks of it."""
    return git(bare(server), "hash-object", "-w", "--literally", "-t", kind, "--stdin", stdin=content)


def committed(server: GitServer, tree: str, *, author: str = AUTHOR) -> None:
    sha = written(server, "commit", f"tree {tree}\nauthor {author}\ncommitter {AUTHOR}\n\nm\n".encode())
    git(bare(server), "update-ref", "refs/heads/main", sha)


def tree(server: GitServer, entry: bytes, content: bytes = b"x\n") -> str:
    return written(server, "tree", entry + b"\0" + bytes.fromhex(written(server, "blob", content)))


async def fetch(runner: Git, server: GitServer, folder: Path) -> Repository:
    repository = parse_repository(server.address("o/n"), allow_local=False)
    await runner.run("init", "--quiet", "--bare", "--", str(folder), timeout=DEADLINE)
    arguments = ("fetch", "--end-of-options", repository.url, "+refs/heads/*:refs/heads/*")
    await runner.run_against(repository, *arguments, place=Place(folder), timeout=DEADLINE)
    return repository


@pytest.mark.parametrize(
    ("entry", "content", "finding"),
    [
        (b"100644 .git", b"x\n", "hasDotgit"),
        (b"100644 ..", b"x\n", "hasDotdot"),
        (b"100644 .gitmodules", b'[submodule "a"]\n\tpath = a\n\turl = -ufoo\n', "gitmodulesUrl"),
        (b"120000 .gitmodules", b"/etc/passwd", "gitmodulesSymlink"),
    ],
)
async def test_a_malicious_object_does_not_enter_a_mirror(
    server: GitServer, tmp_path: Path, entry: bytes, content: bytes, finding: str
) -> None:
    committed(server, tree(server, entry, content))
    with pytest.raises(GitError, match=finding) as caught:
        await fetch(Git(tmp_path / "home", remotes=HERE), server, tmp_path / "mirror")
    failed = clone_failed(parse_repository(server.address("o/n"), allow_local=False), caught.value)
    assert not failed.retryable


@pytest.mark.parametrize(
    ("entry", "author"),
    [
        (b"0100644 file", AUTHOR),
        (b"100664 file", AUTHOR),
        (b"100644 file", "Ada <ada@example.org>1700000000 +0000"),
        (b"100644 file", "Ada <ada@example.org> 1700000000 +051800"),
        (b"100644 file", "Ada 1700000000 +0000"),
    ],
)
async def test_what_old_programs_wrote_enters_all_the_same(
    server: GitServer, tmp_path: Path, entry: bytes, author: str
) -> None:
    committed(server, tree(server, entry), author=author)
    await fetch(Git(tmp_path / "home", remotes=HERE), server, tmp_path / "mirror")
    assert git(tmp_path / "mirror", "show", "main:file") == "x"


async def test_a_pack_over_the_limit_is_not_written(server: GitServer, tmp_path: Path) -> None:
    committed(server, tree(server, b"100644 file", os.urandom(3 * MEBIBYTE)))
    runner = Git(tmp_path / "home", remotes=HERE, max_file_bytes=MEBIBYTE)
    with pytest.raises(GitFileTooLargeError, match="1048576 bytes") as caught:
        await fetch(runner, server, tmp_path / "mirror")
    failed = clone_failed(parse_repository(server.address("o/n"), allow_local=False), caught.value)
    assert not failed.retryable
    assert "raise the limit" in failed.message
    largest = max(path.stat().st_size for path in (tmp_path / "mirror").rglob("*") if path.is_file())
    assert largest <= MEBIBYTE
    await fetch(Git(tmp_path / "home", remotes=HERE, max_file_bytes=4 * MEBIBYTE), server, tmp_path / "other")


async def test_a_file_over_the_limit_is_not_checked_out(server: GitServer, tmp_path: Path) -> None:
    # Packed it is small.
    committed(server, tree(server, b"100644 file", bytes(3 * MEBIBYTE)))
    runner = Git(tmp_path / "home", remotes=HERE, max_file_bytes=MEBIBYTE)
    await fetch(runner, server, tmp_path / "mirror")
    place = Place(tmp_path / "mirror", work_tree=tmp_path / "tree", index=tmp_path / "index")
    (tmp_path / "tree").mkdir()
    with pytest.raises(GitFileTooLargeError):
        await runner.run("read-tree", "-u", "--reset", "main", place=place, timeout=DEADLINE)


async def test_arguments_are_never_read_by_the_shell_that_sets_the_limit(tmp_path: Path) -> None:
    hostile = ["$(touch pwned)", "`touch pwned`", "; touch pwned", '"', "'", "-x", "a b", ""]
    ended = await run_process(
        ["printf", "<%s>", *hostile],
        environment={"PATH": os.environ["PATH"]},
        folder=tmp_path,
        timeout=DEADLINE,
        max_output_bytes=1000,
        max_file_bytes=MEBIBYTE,
    )
    assert ended.stdout.decode() == "".join(f"<{word}>" for word in hostile)
    assert not (tmp_path / "pwned").exists()


async def test_of_a_long_stderr_whole_lines_are_kept(tmp_path: Path) -> None:
    """What is to be hidden in a line could not be found by its half."""
    ended = await run_process(
        ["sh", "-c", "yes 'line of 19 letters' | head -n 5000 >&2"],
        environment={"PATH": os.environ["PATH"]},
        folder=tmp_path,
        timeout=DEADLINE,
        max_output_bytes=1000,
    )
    assert len(ended.stderr) > 10_000
    assert set(ended.stderr.splitlines()) == {b"line of 19 letters"}


def processes_of(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and mark in (folder / "environ").read_text(errors="replace"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


async def test_a_cancelled_command_leaves_no_process_of_its_group(tmp_path: Path) -> None:
    runner, started, mark = Git(tmp_path / "home"), tmp_path / "started", f"MARK={tmp_path}"
    # It and its child ignore SIGTERM.
    script = f"!trap '' TERM; (trap '' TERM; mkfifo {tmp_path}/never; : >{started}; cat {tmp_path}/never) & wait"
    command = runner.run("-c", f"alias.hang={script}", "hang", timeout=DEADLINE, variables={"MARK": str(tmp_path)})
    running = asyncio.create_task(command)
    await until(started.exists)
    assert len(processes_of(mark)) > 1
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()
    await until(lambda: not processes_of(mark))


async def test_a_command_that_is_cancelled_while_it_starts_leaves_no_process(tmp_path: Path) -> None:
    mark = f"MARK={tmp_path}"
    for turns in range(1, 12):
        running = asyncio.create_task(
            run_process(
                ["sh", "-c", "sleep 1000 & wait"],
                environment={"PATH": os.environ["PATH"], "MARK": str(tmp_path)},
                folder=tmp_path,
                timeout=DEADLINE,
                max_output_bytes=1000,
            )
        )
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])
        await until(lambda: not processes_of(mark))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
async def test_only_the_folders_of_a_place_are_trusted(server: GitServer, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    git(work, "init", "--quiet")
    for path in (work, work / ".git"):
        os.chown(path, 12345, 12345)
    runner = Git(tmp_path / "home")
    with pytest.raises(GitError, match="dubious ownership"):
        await runner.run("-C", str(work), "status", timeout=DEADLINE)
    await runner.run("status", place=Place(work / ".git", work_tree=work), timeout=DEADLINE)
    assert not server.seen


@pytest.mark.parametrize("version", ["git version 2.38.9", "git version 1.9", "something else"])
async def test_a_git_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    program = tmp_path / "bin" / "git"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '{version}'\n")
    program.chmod(0o755)
    await Git(tmp_path / "home").require_fit()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    with pytest.raises(GitUnfitError, match=r"install Git 2\.39 or newer"):
        await Git(tmp_path / "home").require_fit()


async def test_a_machine_without_git_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GitUnfitError, match=r"install Git 2\.39"):
        await Git(tmp_path / "home").require_fit()
