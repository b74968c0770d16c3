"""What a mirror lacks of a commit's content: found without fetching, then fetched in one batch. Moves no reference."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from services.vcs.git.repositories import Repository
from services.vcs.git.runner import Git, Place, Progress
from services.vcs.mirrors.options import PROMISED, address, promised_by

FIND_TIMEOUT: Final = timedelta(minutes=5)
# More than this on a command line: looking everything over is quicker, too.
MAX_PATHS: Final = 1_000
_LITERAL: Final = {"GIT_LITERAL_PATHSPECS": "1"}


async def missing_blobs(git: Git, mirror: Place, sha: str, paths: Sequence[str]) -> list[str]:
    """The ids of what ``mirror`` lacks of the commit ``sha``: of all its files, or of those that ``paths`` need.

    ``paths``: files or folders, which need what is beneath them and the files beside them, on the way down from the
    root: what a sparse checkout holds, and what Git wants to see before it writes a folder anew. Raises ``GitError``.
    """
    if not paths or len(paths) > MAX_PATHS:
        walk = ("rev-list", "--objects", "--missing=print", "--no-object-names", f"{sha}^{{tree}}")
        listed = await git.run(*walk, place=mirror, timeout=FIND_TIMEOUT)
        return [line[1:] for line in listed.decode("ascii").splitlines() if line.startswith("?")]
    wanted = await _blobs_of(git, mirror, sha, paths)
    arguments = ("cat-file", "--batch-check=%(objectname)", "--buffer")
    stdin = "".join(f"{blob}\n" for blob in sorted(wanted)).encode("ascii")
    checked = await git.run(*arguments, place=mirror, stdin=stdin, timeout=FIND_TIMEOUT) if wanted else b""
    lines = checked.decode("ascii").splitlines()
    return [line.removesuffix(" missing") for line in lines if line.endswith(" missing")]


async def fetch_blobs(
    git: Git, mirror: Place, repository: Repository, ids: Sequence[str], *, timeout: timedelta, tell: Progress
) -> None:
    """Ask the remote for exactly these, as Git itself does where it fetches what a partial clone left there.

    Raises ``GitError``, ``GitTimeoutError``.
    """
    await git.run_against(
        repository,
        *promised_by(address(repository.url)),
        # What is here already says nothing about what is missing.
        "--config-env=fetch.negotiationAlgorithm=QUARTERDECK_NEGOTIATION",
        "fetch",
        "--progress",
        "--no-tags",
        "--no-write-fetch-head",
        "--recurse-submodules=no",
        "--filter=blob:none",
        "--stdin",
        "--end-of-options",
        address(repository.url),
        place=mirror,
        stdin="".join(f"{blob}\n" for blob in ids).encode("ascii"),
        variables=PROMISED,
        timeout=timeout,
        progress=tell,
    )


async def paths_of_patch(git: Git, patch: bytes) -> list[str]:
    """The files that a patch (`git diff --binary --no-renames`) changes. Raises ``GitError``."""
    listed = await git.run("apply", "--numstat", "-z", "-", stdin=patch, timeout=FIND_TIMEOUT)
    names = (entry.split(b"\t", 2)[2] for entry in listed.split(b"\0") if entry)
    return sorted({_text(name) for name in names})


async def _blobs_of(git: Git, mirror: Place, sha: str, paths: Sequence[str]) -> set[str]:
    beneath = await _list(git, mirror, "-r", sha, "--", *paths)
    beside = await _list(git, mirror, sha)
    above = _folders_above(paths)
    on_the_way = await _list(git, mirror, sha, "--", *above) if above else set()
    return beneath | beside | on_the_way


async def _list(git: Git, mirror: Place, *arguments: str) -> set[str]:
    listed = await git.run(
        "ls-tree", "-z", "--full-tree", *arguments, place=mirror, variables=_LITERAL, timeout=FIND_TIMEOUT
    )
    kinds = (entry.partition(b"\t")[0].split() for entry in listed.split(b"\0") if entry)
    return {blob.decode("ascii") for _mode, kind, blob in kinds if kind == b"blob"}


def _folders_above(paths: Iterable[str]) -> list[str]:
    """Of ``a/b/c``: ``a/`` and ``a/b/``."""
    folders: set[str] = set()
    for path in paths:
        pieces = path.strip("/").split("/")
        folders |= {"/".join(pieces[:depth]) + "/" for depth in range(1, len(pieces))}
    return sorted(folders)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
