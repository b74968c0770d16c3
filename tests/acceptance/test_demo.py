"""The demo as a new user runs it: it checks itself; here is seen that it ends, keeps what it made, and leaves nothing
behind. How long it took it says itself.
"""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from quarterdeck.demo.origins import checkout_folder, checkout_state
from tests.acceptance.test_cli import environment

FIRST_RUN_SECONDS = 300


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


def packages(data_dir: Path) -> dict[Path, tuple[int, int]]:
    """The repositories of fetched packages, with what tells one that was made again from the one before."""
    configs = (data_dir / "repositories" / "packages").glob("*.git/config")
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in configs}


@pytest.mark.timeout(2 * FIRST_RUN_SECONDS)
def test_the_demo_succeeds_twice_and_fetches_its_packages_once(tmp_path):
    data_dir = tmp_path / "demo"
    before = checkout_state(checkout_folder())
    first = run_demo(data_dir)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "holds exactly the asked change; the checkout is untouched" in first.stdout
    assert "+++ b/" in first.stdout
    assert left_behind(data_dir) == []

    made = packages(data_dir)
    second = run_demo(data_dir)
    assert second.returncode == 0, second.stdout + second.stderr
    assert packages(data_dir) == made
    assert left_behind(data_dir) == []
    assert checkout_state(checkout_folder()) == before
