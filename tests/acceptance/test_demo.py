"""The demo as a new user runs it: it checks itself; here is seen that it ends, is quick, and leaves nothing behind."""

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from quarterdeck.demo.origins import checkout_folder, checkout_state
from tests.acceptance.test_cli import environment

FIRST_RUN_SECONDS = 300
SECOND_RUN_SECONDS = 15


def run_demo(data_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quarterdeck.demo", "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        env=environment(data_dir),
        cwd=data_dir.parent,
        timeout=FIRST_RUN_SECONDS,
        check=False,
    )


def left_behind(data_dir: Path) -> list[str]:
    """Processes that name the data folder or stand in it."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        if any(str(data_dir) in word for word in words):
            found.append(" ".join(words))
    return found


@pytest.mark.timeout(2 * FIRST_RUN_SECONDS)
def test_the_demo_succeeds_twice_and_the_second_time_quickly(tmp_path):
    data_dir = tmp_path / "demo"
    before = checkout_state(checkout_folder())
    first = run_demo(data_dir)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "holds exactly the asked change; the checkout is untouched" in first.stdout
    assert "+++ b/" in first.stdout
    assert left_behind(data_dir) == []

    started = time.monotonic()
    second = run_demo(data_dir)
    assert second.returncode == 0, second.stdout + second.stderr
    assert time.monotonic() - started < SECOND_RUN_SECONDS
    assert left_behind(data_dir) == []
    assert checkout_state(checkout_folder()) == before
