"""Attacks from inside a sandbox, each carried out unconfined too, where it must succeed, or it would prove nothing."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest

from services.agent.sandbox import Sandbox, SandboxUnavailableError
from tests.integration.agent.sandboxes import Trace, confined, is_root, open_to_all

SECRET = "qd-secret-7f3a"
BREACHED = "BREACHED"


@pytest.fixture
async def sandbox() -> Sandbox:
    return await confined()


@pytest.fixture
async def unconfined() -> Sandbox:
    return await Sandbox.find("none")


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The worktree of a run as vcs lays it out, with its Git data and another run's worktree beside it."""
    for folder in ("worktrees/mine/1", "worktrees/other/1", "state/mine/1/git"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "worktrees/other/1/secret.txt").write_text(SECRET)
    (tmp_path / "state/mine/1/git/config").write_text(SECRET)
    (tmp_path / "worktrees/mine/1/.git").write_text(f"gitdir: {tmp_path}/state/mine/1/git\n")
    (tmp_path / "worktrees/mine/1/link").symlink_to(tmp_path / "worktrees/other/1/secret.txt")
    return tmp_path


@pytest.fixture
def worktree(node: Path) -> Path:
    return node / "worktrees/mine/1"


async def breaches(sandbox: Sandbox, worktree: Path, attack: str, *, network: bool = False) -> bool:
    """Whether ``attack`` succeeds; it must be a condition in bash."""
    script = f"if {attack}; then echo {BREACHED}; else echo held; fi"
    ended = await sandbox.run(["bash", "-c", script], worktree=worktree, network=network)
    verdict = ended.output.splitlines()[-1]
    assert verdict in {BREACHED, "held"}, ended.output
    return verdict == BREACHED


@pytest.mark.parametrize(
    "attack",
    [
        "grep -q qd-secret {node}/worktrees/other/1/secret.txt",
        "grep -q qd-secret {node}/state/mine/1/git/config",
        "echo fsmonitor > {node}/state/mine/1/git/config",
        "echo more > {node}/worktrees/other/1/more.txt",
        "grep -q qd-secret link",
        "grep -q qd-secret $(cat .git | cut -c 9-)/config",
        "unshare --user true",
    ],
)
async def test_files_and_namespaces_beyond_the_worktree(
    sandbox: Sandbox, unconfined: Sandbox, node: Path, worktree: Path, attack: str
) -> None:
    attack = attack.format(node=node)
    assert not await breaches(sandbox, worktree, attack)
    assert (node / "state/mine/1/git/config").read_text() == SECRET
    assert await breaches(unconfined, worktree, attack)


@contextmanager
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    trace = Trace()
    with subprocess.Popen(trace.command.split(), env={"QD_SECRET": SECRET}) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    "attack",
    ["kill -0 {pid}", "[ -e /proc/{pid} ]", "grep -aqs qd-secret-7f3 /proc/[0-9]*/environ"],
)
async def test_other_processes(sandbox: Sandbox, unconfined: Sandbox, worktree: Path, attack: str) -> None:
    with other_process() as process:
        attack = attack.format(pid=process.pid)
        assert not await breaches(sandbox, worktree, attack)
        assert await breaches(unconfined, worktree, attack)


async def test_services_on_loopback_unless_the_job_may_use_the_network(
    sandbox: Sandbox, unconfined: Sandbox, worktree: Path
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        attack = f"(exec 3<>/dev/tcp/127.0.0.1/{server.getsockname()[1]})"
        assert not await breaches(sandbox, worktree, attack)
        assert await breaches(unconfined, worktree, attack)
        assert await breaches(sandbox, worktree, attack, network=True)


@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_unix_sockets(sandbox: Sandbox, unconfined: Sandbox, node: Path, worktree: Path, kind: str) -> None:
    address = str(node / "service.sock") if kind == "path" else f"\0qd-{os.getpid()}"
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(address)
        server.listen()
        spelled = address.replace("\0", "\\0")
        code = f'use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un("{spelled}")) or exit 1'
        (worktree / "reach.pl").write_text(code)
        assert not await breaches(sandbox, worktree, "perl reach.pl")
        assert await breaches(unconfined, worktree, "perl reach.pl")


@pytest.mark.parametrize(
    "attack",
    ['[ -n "$(find /proc/sys /proc/irq /proc/pressure -type f -writable 2>/dev/null)" ]', "[ -f /proc/slabinfo ]"],
)
async def test_what_root_may_do_in_proc_without_any_capability(
    sandbox: Sandbox, unconfined: Sandbox, worktree: Path, attack: str
) -> None:
    assert not await breaches(sandbox, worktree, attack)
    if is_root():
        assert await breaches(unconfined, worktree, attack)


@pytest.mark.parametrize("folder", ["/", "/usr", "/usr/bin", "/etc", "/dev", "/proc/sys/kernel"])
async def test_nothing_but_the_worktree_and_temporary_folders_can_be_written(
    sandbox: Sandbox, worktree: Path, folder: str
) -> None:
    assert not await breaches(sandbox, worktree, f"touch {folder}/qd-probe")
    assert await breaches(sandbox, worktree, "touch here /tmp/there ~/home")
    assert (worktree / "here").exists()


async def test_it_has_no_capability_and_can_get_none(sandbox: Sandbox, worktree: Path) -> None:
    ended = await sandbox.run(["cat", "/proc/self/status"], worktree=worktree)
    facts = dict(line.split(":\t", 1) for line in ended.output.splitlines() if ":\t" in line)
    assert {facts[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert facts["NoNewPrivs"] == "1"


@pytest.mark.parametrize("kind", ["auto", "none"])
async def test_its_environment_is_its_own(kind: str, worktree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    sandbox = await confined() if kind == "auto" else await Sandbox.find("none")
    ended = await sandbox.run(["env"], worktree=worktree, environment={"GIVEN": "yes"})
    names = {line.partition("=")[0] for line in ended.output.splitlines()}
    usual = {"PATH", "HOME", "TMPDIR", "LANG", "TERM", "NO_COLOR", "CI", "GIVEN"}
    assert usual <= names <= usual | {"PWD", "OLDPWD", "SHLVL", "_"}


async def test_what_it_is_given_is_on_no_command_line(sandbox: Sandbox, worktree: Path) -> None:
    trace = Trace()
    async with sandbox.open(trace.command.split(), worktree=worktree, environment={"TOKEN": SECRET}):
        assert await trace.runs()
        lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not any(SECRET in line for line in lines)


async def test_a_library_that_it_is_given_is_not_loaded_outside(sandbox: Sandbox, worktree: Path) -> None:
    ended = await sandbox.run(["true"], worktree=worktree, environment={"LD_PRELOAD": "/nonexistent/evil.so"})
    # The loader's complaint comes once from each program inside, and never from bubblewrap itself.
    assert "evil.so" in ended.output
    assert "bwrap" not in ended.output


async def test_it_inherits_no_open_file(sandbox: Sandbox, worktree: Path) -> None:
    ended = await sandbox.run(["sh", "-c", "ls /proc/$$/fd"], worktree=worktree)
    assert ended.output.split() == ["0", "1", "2"]


@pytest.mark.skipif(not is_root(), reason="only root can become another user")
async def test_root_becomes_the_owner_of_the_worktree(sandbox: Sandbox) -> None:
    with open_to_all() as folder:
        (folder / "of-root").write_text(SECRET)
        (folder / "of-root").chmod(0o600)
        os.chown(folder, 54_321, 54_321)
        assert not await breaches(sandbox, folder, "cat of-root")
        assert await breaches(sandbox, folder, "touch made")
        assert (folder / "made").stat().st_uid == 54_321


async def test_more_folders_can_be_shown_but_not_the_whole_machine(node: Path, worktree: Path) -> None:
    tools = node / "toolchain"
    (tools / "bin").mkdir(parents=True)
    (tools / "bin/compile").write_text("#!/bin/sh\necho compiled\n")
    (tools / "bin/compile").chmod(0o755)
    sandbox = await confined(tools)
    assert (await sandbox.run(["compile"], worktree=worktree)).output == "compiled\n"
    assert not await breaches(sandbox, worktree, f"touch {tools}/bin/more")
    with pytest.raises(ValueError, match="SANDBOX_PATHS"):
        await Sandbox.find("auto", paths=[Path("/")])


async def test_where_there_is_no_bubblewrap_commands_are_refused(
    worktree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "bwrap"
    program.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr("services.agent.sandbox.sandbox.find_program", lambda: program)
    sandbox = await Sandbox.find("auto")
    assert sandbox.kind == "unavailable"
    assert sandbox.words.startswith("unavailable: bwrap: No permissions to create new namespace; commands are refused")
    with pytest.raises(SandboxUnavailableError, match="SANDBOX=none"):
        await sandbox.run(["true"], worktree=worktree)
    assert (await Sandbox.find("none")).words == "none: commands run unconfined because SANDBOX=none is set"


async def test_a_worktree_that_is_gone_is_an_error_and_no_exit_code(sandbox: Sandbox, worktree: Path) -> None:
    with pytest.raises(SandboxUnavailableError):
        await sandbox.run(["true"], worktree=worktree / "missing")
