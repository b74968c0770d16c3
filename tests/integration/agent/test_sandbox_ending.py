"""Nothing that a command started outlives it, however it ends."""

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from services.agent.sandbox import Limits, Sandbox, SandboxUnavailableError
from services.agent.sandbox.cgroups import hierarchies
from services.agent.sandbox.namespace import Namespace
from services.agent.sandbox.process import GRACE
from tests.integration.agent.sandboxes import DEADLINE_SECONDS, Trace, comes_true, confined

# As daemons do: away from the shell, its process group and its session.
_DAEMON = "setsid sh -c '{command} >/dev/null 2>&1 & exit 0' & wait"


@pytest.fixture
async def sandbox() -> Sandbox:
    return await confined()


@pytest.fixture(params=["auto", "none"])
async def either(request: pytest.FixtureRequest) -> Sandbox:
    return await confined() if request.param == "auto" else await Sandbox.find("none")


def started(sandbox: Sandbox, worktree: Path, script: str) -> asyncio.Task[object]:
    return asyncio.create_task(sandbox.run(["bash", "-c", script], worktree=worktree, limits=Limits()))


async def cancel(task: asyncio.Task[object]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, DEADLINE_SECONDS)


async def test_cancelled_it_can_put_things_in_order(either: Sandbox, tmp_path: Path) -> None:
    trace = Trace()
    task = started(either, tmp_path, f"trap 'echo tidy > tidied; exit' TERM; {trace.command} & wait")
    assert await trace.runs()
    await cancel(task)
    assert (tmp_path / "tidied").read_text() == "tidy\n"
    assert not trace.is_running()


async def test_cancelled_it_is_killed_where_it_does_not_listen(either: Sandbox, tmp_path: Path) -> None:
    trace = Trace()
    task = started(either, tmp_path, f"trap '' TERM; {trace.command}; {trace.command}")
    assert await trace.runs()
    await cancel(task)
    assert not trace.is_running()


async def test_cancelled_twice_it_is_killed_at_once(either: Sandbox, tmp_path: Path) -> None:
    trace = Trace()
    task = started(either, tmp_path, f"trap 'echo told > told' TERM; {trace.command}; {trace.command}")
    assert await trace.runs()
    task.cancel()
    # The shell hears of it once its child has ended, which SIGTERM reached too.
    assert await comes_true((tmp_path / "told").exists)
    assert not task.done()
    await cancel(task)
    assert await trace.runs(wanted=False)


async def lose(sandbox: Sandbox, task: asyncio.Task[object]) -> None:
    """As a worker does whose lease is lost; what is left then has less than the grace."""
    began = time.monotonic()
    sandbox.kill()
    await cancel(task)
    assert time.monotonic() - began < GRACE.total_seconds() / 2


async def test_killed_it_is_not_asked_to_end(either: Sandbox, tmp_path: Path) -> None:
    trace = Trace()
    task = started(either, tmp_path, f"trap 'echo tidy > tidied' TERM; {trace.command}; {trace.command}")
    assert await trace.runs()
    await lose(either, task)
    assert await trace.runs(wanted=False)
    assert not (tmp_path / "tidied").exists()


async def test_killed_in_its_grace_it_has_no_more_of_it(either: Sandbox, tmp_path: Path) -> None:
    """A run that is cancelled, and lost while its command is still putting things in order."""
    trace = Trace()
    task = started(either, tmp_path, f"trap 'echo told > told; {trace.command}' TERM; {trace.command}")
    assert await trace.runs()
    task.cancel()
    assert await comes_true((tmp_path / "told").exists)
    await lose(either, task)
    assert await trace.runs(wanted=False)


async def test_killed_a_server_ends_at_once_and_nothing_is_started_any_more(either: Sandbox, tmp_path: Path) -> None:
    trace, other = Trace(), either.for_one_attempt()
    script = f"trap '' TERM; {trace.command}; {trace.command}"
    async with either.open(["bash", "-c", script], worktree=tmp_path):
        assert await trace.runs()
        began = time.monotonic()
        either.kill()
    assert time.monotonic() - began < GRACE.total_seconds() / 2
    assert await trace.runs(wanted=False)
    with pytest.raises(SandboxUnavailableError, match="not this agent's"):
        await either.run(["true"], worktree=tmp_path)
    assert (await other.run(["true"], worktree=tmp_path)).exit_code == 0, "other attempts go on"


async def test_killed_at_any_instant_of_its_start_it_ends_at_once(either: Sandbox, tmp_path: Path) -> None:
    for milliseconds in range(0, 30, 3):
        sandbox, trace = either.for_one_attempt(), Trace()
        task = started(sandbox, tmp_path, f"trap '' TERM; {trace.command}; {trace.command}")
        await asyncio.wait([task], timeout=milliseconds / 1_000)
        sandbox.kill()
        with suppress(SandboxUnavailableError):
            await asyncio.wait_for(task, DEADLINE_SECONDS)
        assert not trace.is_running(), f"killed after {milliseconds} ms"


async def test_cancelled_at_any_instant_of_its_start_it_ends_at_once(sandbox: Sandbox, tmp_path: Path) -> None:
    grace_seconds = GRACE.total_seconds()
    for milliseconds in range(0, 30, 2):
        trace = Trace()
        task = started(sandbox, tmp_path, f"exec {trace.command}")
        await asyncio.wait([task], timeout=milliseconds / 1_000)
        began = time.monotonic()
        await cancel(task)
        # Not a bound on speed: this long it takes only where SIGTERM reached nobody.
        assert time.monotonic() - began < grace_seconds, f"cancelled after {milliseconds} ms"
        assert not trace.is_running()


async def test_daemons_end_with_the_command(sandbox: Sandbox, tmp_path: Path) -> None:
    trace = Trace()
    script = f"{_DAEMON.format(command=trace.command)}; until pgrep -f {trace.seconds} >/dev/null; do :; done; echo up"
    ended = await sandbox.run(["bash", "-c", script], worktree=tmp_path)
    assert ended.output == "up\n"
    assert not trace.is_running()


async def test_daemons_end_with_a_cancelled_command(sandbox: Sandbox, tmp_path: Path) -> None:
    trace = Trace()
    task = started(sandbox, tmp_path, f"{_DAEMON.format(command=trace.command)}; sleep 300")
    assert await trace.runs()
    await cancel(task)
    assert not trace.is_running()


async def test_what_is_left_in_the_group_ends_unconfined_too(tmp_path: Path) -> None:
    trace = Trace()
    sandbox = await Sandbox.find("none")
    await sandbox.run(["bash", "-c", f"{trace.command} & exit 0"], worktree=tmp_path)
    assert await trace.runs(wanted=False)


_AGENT = """
import asyncio, sys
from pathlib import Path
from services.agent.sandbox import Sandbox

async def main():
    sandbox = await Sandbox.find("auto")
    await sandbox.run(["bash", "-c", sys.argv[1]], worktree=Path(sys.argv[2]))

asyncio.run(main())
"""


async def test_everything_ends_with_an_agent_that_is_killed(sandbox: Sandbox, tmp_path: Path) -> None:
    trace = Trace()
    script = f"trap '' TERM; {_DAEMON.format(command=trace.command)}; sleep 300"
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", _AGENT, script, str(tmp_path))
    try:
        assert await trace.runs()
    finally:
        agent.send_signal(signal.SIGKILL)
        await agent.wait()
    assert await trace.runs(wanted=False)
    left = left_cgroups(agent.pid)
    assert await comes_true(lambda: not any((folder / "cgroup.procs").read_text() for folder in left))
    # The next one to start here removes what the killed one could not.
    await confined()
    assert not left_cgroups(agent.pid)


async def test_a_command_that_was_not_let_go_never_begins(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the agent is killed after bubblewrap has begun and before the command has its limits."""

    waits = Namespace.wait_for_first

    async def fails(self: Namespace) -> int:
        status = Path(f"/proc/{await waits(self)}/status")
        assert await comes_true(lambda: f"CapBnd:\t{'0' * 16}" in status.read_text())
        os.close(self._pidfd)
        self._pidfd = -1
        raise OSError

    monkeypatch.setattr("services.agent.sandbox.namespace.Namespace.wait_for_first", fails)
    trace = Trace()
    with pytest.raises(SandboxUnavailableError, match="could not be started"):
        await sandbox.run(["touch", "begun", trace.seconds], worktree=tmp_path)
    assert await trace.runs(wanted=False)
    assert not (tmp_path / "begun").exists()


def left_cgroups(pid: int) -> list[Path]:
    found = hierarchies(Path("/proc/self/cgroup"), Path("/proc/self/mountinfo"))
    return [folder for hierarchy in found for folder in hierarchy.parent.glob(f"qd-sandbox-{pid}-*")]


async def test_no_cgroup_is_left(sandbox: Sandbox, tmp_path: Path) -> None:
    await sandbox.run(["true"], worktree=tmp_path)
    assert not left_cgroups(os.getpid())


async def test_a_server_over_pipes(either: Sandbox, tmp_path: Path) -> None:
    trace = Trace()
    script = f'echo warning >&2; {trace.command} & while read -r line; do echo "got $line"; done'
    async with either.open(["bash", "-c", script], worktree=tmp_path) as process:
        for message in (b"one\n", b"two\n"):
            process.stdin.write(message)
            assert await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS) == b"got " + message
        assert await trace.runs()
    assert await trace.runs(wanted=False)
    assert process.stderr() == "warning\n"


async def test_a_server_needs_no_worktree(either: Sandbox) -> None:
    async with either.open(["sh", "-c", "pwd; echo $HOME"], worktree=None) as process:
        where = await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)
        assert where == await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)
        assert await process.wait() == 0
