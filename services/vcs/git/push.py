"""Puts one commit on one branch of a remote, only if the branch is where it is expected; never overwrites."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.vcs.errors import CloneFailedError, GitError, GitTimeoutError, PushRejectedError, RepositoryRefusedError
from services.vcs.git.remotes import list_remote, verdict
from services.vcs.git.repositories import Repository, checked_ref, checked_sha
from services.vcs.git.runner import Git, Place

PUSH_TIMEOUT: Final = timedelta(minutes=5)
# Somebody else was writing the same references; who came first is known at the next try.
_CONTENDED: Final = re.compile(
    r"cannot lock ref|failed to (update ref|lock)|unable to create '.*\.lock'", re.IGNORECASE
)


_PROTECTED: Final = re.compile(r"protected branch|rule violations|not allowed to (force )?push", re.IGNORECASE)
_MOVED: Final = re.compile(r"stale info|fetch first|non-fast-forward", re.IGNORECASE)
_AGAIN: Final = "whether it arrived is not known; it will be tried again"
_REFUSED: Final = "the remote refused it; nothing was overwritten, see its words"
_PROTECTION: Final = (
    "its rules protect the branch; let the service's account push there, or choose another prefix for branches"
)


@dataclass(frozen=True, slots=True)
class Pushed:
    """``moved``: False where the remote had the commit on the branch already."""

    sha: str
    moved: bool


async def push(
    git: Git,
    mirror: Place,
    repository: Repository,
    *,
    branch: str,
    commit_sha: str,
    expected_remote_sha: str,
    also_ours: Collection[str] = (),
) -> Pushed:
    """Push ``commit_sha`` (in ``mirror``) to ``branch``, which must be at ``expected_remote_sha`` (empty: not exist).

    ``also_ours``: other commits that we may have put there; where any are given, the branch may also be at one of
    these, or be gone. Finding it at ``commit_sha`` is success. Raises ``PushRejectedError`` (``retryable``: the network
    failed or the outcome is unknown; the same push may be tried again), ``RefRefusedError``, and the ``ForgeError``s of
    the forge that gives the credentials.
    """
    name = f"refs/heads/{checked_ref(branch)}"
    checked_sha(commit_sha)
    if also_ours:
        ours = {commit_sha, expected_remote_sha, "", *also_ours}
        expected_remote_sha = await _seen(git, repository, branch, ours)
        if expected_remote_sha == commit_sha:
            return Pushed(commit_sha, moved=False)
    try:
        output = await _update(git, mirror, repository, f"{commit_sha}:{name}", name, expected_remote_sha)
    except GitError as error:
        ours = {expected_remote_sha, *also_ours}
        return await _look_again(git, repository, branch, commit_sha, error, ours=ours)
    return Pushed(commit_sha, moved=not output.startswith(b"=") and b"\n=\t" not in output)


async def delete_branch(git: Git, mirror: Place, repository: Repository, branch: str, expected_sha: str) -> None:
    """Delete ``branch`` if it is at ``expected_sha``; one that is gone already is success.

    Raises ``PushRejectedError``, ``RefRefusedError``.
    """
    name = f"refs/heads/{checked_ref(branch)}"
    try:
        await _update(git, mirror, repository, f":{name}", name, checked_sha(expected_sha))
    except GitError as error:
        await _look_again(git, repository, branch, "", error, ours={expected_sha})


async def _update(git: Git, mirror: Place, repository: Repository, refspec: str, name: str, expected: str) -> bytes:
    """One push under a lease on exactly ``expected``; what it says, or ``GitError`` whose outcome must be looked at."""
    lease = f"--force-with-lease={name}:{checked_sha(expected) if expected else ''}"
    options = ("--porcelain", "--atomic", "--no-verify", lease, "--end-of-options")
    try:
        arguments = ("push", *options, repository.url, refspec)
        return await git.run_against(repository, *arguments, place=mirror, timeout=PUSH_TIMEOUT)
    except GitTimeoutError as error:
        branch = name.removeprefix("refs/heads/")
        raise _rejected(repository, branch, error.message, _AGAIN, retryable=True) from error
    except RepositoryRefusedError as error:
        raise PushRejectedError(error.message) from error


async def _seen(git: Git, repository: Repository, branch: str, ours: Collection[str]) -> str:
    """Where ``branch`` is now, empty where it is not; raises ``PushRejectedError`` where that is not ``ours``."""
    try:
        seen = await _now_at(git, repository, branch)
    except (CloneFailedError, RepositoryRefusedError) as error:
        raise PushRejectedError(error.message, git_message=error.git_message, retryable=error.retryable) from error
    if seen not in ours:
        raise _rejected(repository, branch, "", _foreign(seen), retryable=False)
    return seen


async def _look_again(
    git: Git, repository: Repository, branch: str, wanted: str, error: GitError, *, ours: Collection[str]
) -> Pushed:
    """A push that failed may still have arrived, from us or from another claim of the same publication.

    ``wanted``: the SHA, empty for no branch. ``ours``: where the branch was known or expected to be.
    """
    rejections = _rejections(error.stdout)
    words = "\n".join(filter(None, (rejections, error.git_message)))
    read = verdict(repository, error)
    try:
        seen = await _now_at(git, repository, branch)
    except CloneFailedError as unreachable:
        advice = _AGAIN if unreachable.retryable else read.advice
        raise _rejected(repository, branch, words, advice, retryable=unreachable.retryable) from error
    if seen == wanted:
        return Pushed(wanted, moved=False)
    if _MOVED.search(rejections) and seen not in ours:
        raise _rejected(repository, branch, words, _foreign(seen), retryable=False) from error
    if _CONTENDED.search(words):
        raise _rejected(repository, branch, words, _AGAIN, retryable=True) from error
    if rejections:
        advice = _PROTECTION if _PROTECTED.search(words) else _REFUSED
        raise _rejected(repository, branch, words, advice, retryable=False) from error
    raise _rejected(repository, branch, words, read.advice, retryable=read.retryable) from error


async def _now_at(git: Git, repository: Repository, branch: str) -> str:
    name = f"refs/heads/{branch}"
    return (await list_remote(git, repository, name)).shas.get(name, "")


def _rejections(porcelain: bytes) -> str:
    lines = porcelain.decode("utf-8", "replace").splitlines()
    return "\n".join(line.removeprefix("!\t") for line in lines if line.startswith("!"))


def _foreign(sha: str) -> str:
    if not sha:
        return "the branch is gone, and was not made again; publish once more if it is still wanted"
    return (
        f"it is at {sha}, which is not ours; nothing was overwritten: take that commit over, or move it off the branch"
    )


def _rejected(repository: Repository, branch: str, words: str, advice: str, *, retryable: bool) -> PushRejectedError:
    return PushRejectedError(
        f"{repository.url} did not take branch {branch}: {advice}", git_message=words, retryable=retryable
    )
