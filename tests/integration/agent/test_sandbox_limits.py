"""The limits of a command, each reached for real."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from services.agent.sandbox import Ended, Limits, Sandbox, cgroups
from services.agent.sandbox.cgroups import Cgroups
from tests.integration.agent.sandboxes import confined, is_root, open_to_all

MEGABYTE = 1024**2


@pytest.fixture(params=["auto", "none"])
async def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    return await confined() if request.param == "auto" else await Sandbox.find("none")


async def run(sandbox: Sandbox, worktree: Path, script: str, limits: Limits | None = None) -> Ended:
    return await sandbox.run(["bash", "-c", script], worktree=worktree, limits=limits or Limits())


async def test_memory(sandbox: Sandbox, tmp_path: Path) -> None:
    script = 'perl -e \'$x = "x" x (300 * 1024 ** 2); print "held"\''
    ended = await run(sandbox, tmp_path, script, Limits(memory_bytes=100 * MEGABYTE))
    assert ended.exit_code != 0
    assert "held" not in ended.output
    assert (await run(sandbox, tmp_path, script)).output == "held"


async def test_memory_of_all_processes_and_temporary_files_together(tmp_path: Path) -> None:
    sandbox = await confined()
    if "memory and processes limited by cgroup" not in sandbox.words:
        pytest.skip(sandbox.words)
    script = "head -c 80M /dev/zero > /tmp/one; head -c 80M /dev/zero > /dev/shm/two; echo held"
    ended = await run(sandbox, tmp_path, script, Limits(memory_bytes=100 * MEGABYTE))
    assert "held" not in ended.output or "Killed" in ended.output


async def test_processes(tmp_path: Path) -> None:
    sandbox = await confined()
    script = "exec sh -c 'for i in $(seq 60); do sleep 20 & done; echo held'"
    ended = await run(sandbox, tmp_path, script, Limits(processes=30))
    assert "Cannot fork" in ended.output
    assert (await run(sandbox, tmp_path, script)).output == "held\n"


async def test_processes_where_no_cgroup_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "find", lambda: Cgroups([]))
    sandbox = await confined()
    assert "limited by resource limits alone" in sandbox.words
    with open_to_all() as folder:
        if is_root():
            os.chown(folder, 54_321, 54_321)
        script = "exec sh -c 'for i in $(seq 60); do sleep 20 & done; echo held'"
        assert "Cannot fork" in (await run(sandbox, folder, script, Limits(processes=30))).output


async def test_file_size(sandbox: Sandbox, tmp_path: Path) -> None:
    await run(sandbox, tmp_path, "head -c 9M /dev/zero > big", Limits(file_bytes=2 * MEGABYTE))
    assert (tmp_path / "big").stat().st_size <= 2 * MEGABYTE
    await run(sandbox, tmp_path, "head -c 9M /dev/zero > big")
    assert (tmp_path / "big").stat().st_size > 2 * MEGABYTE


async def test_temporary_files_together(tmp_path: Path) -> None:
    script = "for i in 1 2 3 4; do head -c 1M /dev/zero > /tmp/$i || exit 3; done"
    ended = await run(await confined(), tmp_path, script, Limits(file_bytes=2 * MEGABYTE))
    assert ended.exit_code == 3
    assert "No space left" in ended.output


async def test_processor_time(sandbox: Sandbox, tmp_path: Path) -> None:
    limits = Limits(cpu=timedelta(seconds=1), wall=timedelta(seconds=60))
    ended = await run(sandbox, tmp_path, "while :; do :; done", limits)
    assert ended.exit_code == 137
    assert not ended.timed_out


async def test_wall_time_and_what_it_printed_until_then(sandbox: Sandbox, tmp_path: Path) -> None:
    limits = Limits(wall=timedelta(seconds=0.5))
    ended = await run(sandbox, tmp_path, "echo before; exec sleep 300", limits)
    assert ended.timed_out
    assert (ended.exit_code, ended.output) == (143, "before\n")


async def test_no_core_is_left(sandbox: Sandbox, tmp_path: Path) -> None:
    assert (await run(sandbox, tmp_path, "ulimit -c; ulimit -Hc")).output == "0\n0\n"


async def test_output_is_bounded_as_it_is_read(sandbox: Sandbox, tmp_path: Path) -> None:
    ended = await run(sandbox, tmp_path, "echo first; yes | head -c 12M; echo last; printf '\\033[2J'; exit 3")
    assert ended.exit_code == 3
    assert ended.output.startswith("first\ny\n")
    assert ended.output.endswith("last\n\\x1b[2J")
    assert len(ended.output) < 30_100
    assert ended.whole is not None
    assert len(ended.whole) <= MEGABYTE
    assert ended.whole.endswith(b"last\n\x1b[2J")


async def test_a_command_has_no_input_and_both_its_outputs_come_in_order(sandbox: Sandbox, tmp_path: Path) -> None:
    ended = await run(sandbox, tmp_path, "echo one; echo two >&2; cat; echo three")
    assert ended.output == "one\ntwo\nthree\n"
    assert ended.whole is None
