"""Puts one commit on one branch of a remote, only if the branch is where it is expected; never overwrites."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.vcs.errors import CloneFailedError, GitError, GitTimeoutError, PushRejectedError
from services.vcs.git import Git, Place
from services.vcs.remotes import is_transient, list_remote
from services.vcs.repositories import Repository, checked_ref, checked_sha

PUSH_TIMEOUT: Final = timedelta(minutes=5)
# Somebody else was writing the same references; who came first is known at the next try.
_CONTENDED: Final = re.compile(
    r"cannot lock ref|failed to (update ref|lock)|unable to create '.*\.lock'", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Pushed:
    """``moved``: False where the remote had the commit on the branch already."""

    sha: str
    moved: bool


async def push(
    git: Git, mirror: Place, repository: Repository, *, branch: str, commit_sha: str, expected_remote_sha: str
) -> Pushed:
    """Push ``commit_sha`` (in ``mirror``) to ``branch``, which must be at ``expected_remote_sha`` (empty: not exist).

    Finding it at ``commit_sha`` is success. Raises ``PushRejectedError`` (``retryable``: the network failed or the
    outcome is unknown; the same push may be tried again), ``RefRefusedError``.
    """
    name = f"refs/heads/{checked_ref(branch)}"
    checked_sha(commit_sha)
    lease = f"--force-with-lease={name}:{checked_sha(expected_remote_sha) if expected_remote_sha else ''}"
    options = ("--porcelain", "--atomic", "--no-verify", lease, "--end-of-options")
    try:
        output = await git.run(
            "push", *options, repository.url, f"{commit_sha}:{name}", place=mirror, timeout=PUSH_TIMEOUT
        )
    except GitTimeoutError as error:
        raise _rejected(repository, branch, error.message, retryable=True) from error
    except GitError as error:
        return await _look_again(git, repository, branch, commit_sha, error)
    return Pushed(commit_sha, moved=not output.startswith(b"=") and b"\n=\t" not in output)


async def _look_again(git: Git, repository: Repository, branch: str, commit_sha: str, error: GitError) -> Pushed:
    """A push that failed may still have arrived, from us or from another claim of the same publication."""
    rejections = _rejections(error.stdout)
    words = "\n".join(filter(None, (rejections, error.git_message)))
    try:
        listing = await list_remote(git, repository, f"refs/heads/{branch}")
    except CloneFailedError as unreachable:
        raise _rejected(repository, branch, words, retryable=unreachable.retryable) from error
    if listing.shas.get(f"refs/heads/{branch}") == commit_sha:
        return Pushed(commit_sha, moved=False)
    # Only where the remote gave no verdict do words of a cut connection mean one.
    retryable = _CONTENDED.search(words) is not None or (not rejections and is_transient(words))
    raise _rejected(repository, branch, words, retryable=retryable) from error


def _rejections(porcelain: bytes) -> str:
    lines = porcelain.decode("utf-8", "replace").splitlines()
    return "\n".join(line.removeprefix("!\t") for line in lines if line.startswith("!"))


def _rejected(repository: Repository, branch: str, words: str, *, retryable: bool) -> PushRejectedError:
    advice = "it will be tried again" if retryable else "nothing was overwritten; see what is on the branch"
    return PushRejectedError(
        f"{repository.url} did not take branch {branch}; {advice}", git_message=words, retryable=retryable
    )
