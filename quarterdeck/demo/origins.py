"""The bare repositories that the demo's job works on; the checkout that they come from is only read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import quarterdeck
from quarterdeck.demo.git import GitError, commit_all, git, line
from quarterdeck.demo.packages import PACKAGES, FetchError, SourcePackage, packaged_repository

PARTS_OF_AN_INSTALLATION = ("quarterdeck", "services")


@dataclass(frozen=True)
class Origin:
    """``base``: the SHA that the work starts from; ``branch``: the branch it is the head of."""

    name: str
    path: Path
    branch: str
    base: str


@dataclass(frozen=True)
class CheckoutState:
    """What must be the same after the demo as before it."""

    head: str
    references: str
    status: str


def checkout_folder() -> Path:
    """The folder that holds the packages that run now."""
    return Path(quarterdeck.__file__).resolve().parent.parent


def checkout_state(checkout: Path) -> CheckoutState | None:
    """None where the folder is no Git checkout with a commit."""
    if not _is_checkout(checkout):
        return None
    return CheckoutState(
        head=line("rev-parse", "HEAD", folder=checkout),
        references=line("for-each-ref", folder=checkout),
        status=line("status", "--porcelain", folder=checkout),
    )


def make_origins(folder: Path, say: Callable[[str], None]) -> list[Origin]:
    """Fresh origins below ``folder``; ``say`` hears of what cannot be had. Raises GitError, OSError."""
    origins = folder / "origins"
    shutil.rmtree(origins, ignore_errors=True)
    origins.mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        # Each thread waits for processes; nothing of ours runs side by side.
        packages = [pool.submit(_package_origin, package, folder / "packages", origins) for package in PACKAGES]
        found = [_checkout_origin(checkout_folder(), origins, say)]
        for package, future in zip(PACKAGES, packages, strict=True):
            try:
                found.append(future.result())
            except FetchError as error:
                say(f"{package.title} cannot be fetched and is left out: {error}")
    return found


def _package_origin(package: SourcePackage, cache: Path, origins: Path) -> Origin:
    path = origins / f"{package.name}.git"
    return _origin(package.name, _clone(packaged_repository(package, cache), path))


def _checkout_origin(checkout: Path, origins: Path, say: Callable[[str], None]) -> Origin:
    path = origins / "quarterdeck.git"
    if _is_checkout(checkout):
        return _origin("quarterdeck", _clone(checkout, path))
    say(f"{checkout} is no Git checkout with a commit: its files become a repository of their own")
    whole = (checkout / "pyproject.toml").is_file()
    commit_all(checkout, path, "Quarterdeck as installed", only=(".",) if whole else PARTS_OF_AN_INSTALLATION)
    return _origin("quarterdeck", path)


def _is_checkout(folder: Path) -> bool:
    try:
        top = line("rev-parse", "--show-toplevel", folder=folder)
        line("rev-parse", "--verify", "HEAD^{commit}", folder=folder)
    except GitError:
        return False
    return Path(top).resolve() == folder


def _clone(source: Path, path: Path) -> Path:
    git("clone", "--quiet", "--bare", "--no-hardlinks", source, path, folder=path.parent)
    return path


def _origin(name: str, path: Path) -> Origin:
    base = line("rev-parse", "HEAD", folder=path)
    try:
        branch = line("symbolic-ref", "--short", "HEAD", folder=path)
    except GitError:  # a checkout of a commit, as CI makes it: what is cloned from it needs a branch
        branch = "main"
        git("update-ref", f"refs/heads/{branch}", base, folder=path)
        git("symbolic-ref", "HEAD", f"refs/heads/{branch}", folder=path)
    return Origin(name, path, branch, base)
