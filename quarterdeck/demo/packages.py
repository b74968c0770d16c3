"""Source packages that people use, fetched with pip by version and hash, as repositories; kept for the next time."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from quarterdeck.demo.git import GitError, commit_all

FETCH_SECONDS = 90


@dataclass(frozen=True)
class SourcePackage:
    """A release of a pure Python package; ``sha256`` is that of its source archive."""

    name: str
    version: str
    sha256: str

    @property
    def title(self) -> str:
        return f"{self.name} {self.version}"


PACKAGES = (
    SourcePackage("requests", "2.32.5", "dbba0bac56e100853db0ea71b82b4dfd5fe2bf6d3754a8893c3af500cec7d7cf"),
    SourcePackage("httpie", "3.2.4", "302ad436c3dc14fd0d1b19d4572ef8d62b146bcd94b505f3c2521f701e2e7a2a"),
)


class FetchError(Exception):
    """A package could not be had; the message says why."""


def packaged_repository(package: SourcePackage, cache: Path) -> Path:
    """A bare repository with the package's files, made the first time. Raises FetchError."""
    repository = cache / f"{package.name}-{package.version}.git"
    if repository.exists():
        return repository
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=f".{package.name}-") as name:
        folder = Path(name)
        files = _unpacked(_fetched(package, folder), folder / "files")
        made = folder / "made.git"
        try:
            commit_all(files, made, f"{package.title} as released")
        except GitError as error:
            raise FetchError(str(error)) from error
        # In one step: a demo that is killed leaves no half repository behind under that name.
        made.rename(repository)
    return repository


def _fetched(package: SourcePackage, folder: Path) -> Path:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    words = ["download", "--quiet", "--no-deps", "--no-binary=:all:", "--no-build-isolation", "--require-hashes"]
    bounds = ["--retries=1", "--timeout=15", "--disable-pip-version-check", "--no-input"]
    downloads = folder / "downloads"
    try:
        subprocess.run(  # noqa: S603 (no shell; the words are ours)
            [sys.executable, "-m", "pip", *words, *bounds, f"--dest={downloads}", f"--requirement={requirement}"],
            env=os.environ | {"TMPDIR": str(folder)},
            capture_output=True,
            text=True,
            check=True,
            timeout=FETCH_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        raise FetchError(_last_line(error.stderr)) from error
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"pip took longer than {FETCH_SECONDS} s") from error
    return _checked(package, downloads)


def _checked(package: SourcePackage, downloads: Path) -> Path:
    for archive in downloads.glob("*.tar.gz"):
        if hashlib.sha256(archive.read_bytes()).hexdigest() == package.sha256:
            return archive
    raise FetchError("pip brought something else than the archive that was asked for")


def _unpacked(archive: Path, folder: Path) -> Path:
    """The one folder in the archive. The filter keeps every file inside ``folder``, and ours."""
    if not hasattr(tarfile, "data_filter"):
        raise FetchError("this Python unpacks no archive safely; use 3.11.4 or newer")
    try:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    except (tarfile.TarError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise FetchError(f"the archive cannot be unpacked: {error}") from error
    (root,) = folder.iterdir()
    return root


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else "pip failed without a word"
