"""Asks a remote what it has, and reads Git's words about what went wrong there."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.vcs.errors import (
    CloneFailedError,
    ForgeError,
    GitError,
    GitFileTooLargeError,
    GitTimeoutError,
    VcsError,
)
from services.vcs.git.repositories import Repository, is_short_sha
from services.vcs.git.runner import Git

ASK_TIMEOUT: Final = timedelta(seconds=60)
_HEADS: Final = "refs/heads/"

_TRANSIENT: Final = re.compile(
    r"could not resolve host|temporary failure|connection (refused|timed out|reset|closed)|failed to connect"
    r"|network is unreachable|no route to host|early eof|rpc failed|hung up unexpectedly|too slow|gnutls|ssl_"
    r"|returned error: (408|429|5\d\d)|unexpected disconnect|operation timed out|empty reply from server"
    r"|couldn't connect to server|invalid (index-pack|unpack-objects) output|transfer closed with",
    re.IGNORECASE,
)
_NOT_KNOWN: Final = re.compile(
    r"authentication failed|could not read (username|password)|returned error: 401|permission denied \(", re.IGNORECASE
)
_NOT_ALLOWED: Final = re.compile(r"returned error: 403|permission to \S+ denied|access denied", re.IGNORECASE)
_NOT_THERE: Final = re.compile(
    r"returned error: (404|410)|repository '?\S+ not found|repository not found"
    r"|does not appear to be a git repository|no such file or directory|not valid: is this a git repository",
    re.IGNORECASE,
)
_ELSEWHERE: Final = re.compile(r"returned error: 3\d\d|from redirection", re.IGNORECASE)
_UNKNOWN_HOST_KEY: Final = re.compile(r"host key verification failed", re.IGNORECASE)
_UNFIT_OBJECT: Final = re.compile(r"fsck error|fsck warning as error|invalid index-pack object", re.IGNORECASE)
_CORRUPT: Final = re.compile(
    r"not a git repository: |is corrupt|bad object|unable to read (tree|sha1|object)|inflate: |data stream error"
    r"|missing (blob|tree|commit)|cannot be accessed|is far too short|does not match index|did not send all necessary"
    r"|object file .* is empty|could not parse (object|commit)|bad (ref|config)|not a valid object|index file .* is",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Listing:
    """What a remote answered: the branch its HEAD is on (empty: detached or none), and SHAs by full ref name."""

    default_branch: str
    shas: dict[str, str]


async def list_remote(git: Git, repository: Repository, ref: str) -> Listing:
    """Ask for HEAD and whatever ``ref`` may name.

    Raises ``CloneFailedError`` with Git's own words; ``RepositoryRefusedError`` where the remote may not be asked.
    """
    names = ("HEAD", *_candidates(ref))
    try:
        arguments = ("ls-remote", "--symref", "--end-of-options", repository.url, *names)
        output = await git.run_against(repository, *arguments, timeout=ASK_TIMEOUT)
    except (GitError, GitTimeoutError, ForgeError) as error:
        raise clone_failed(repository, error) from error
    default_branch, shas = "", {}
    for line in output.decode("utf-8", "surrogateescape").splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: "):
            default_branch = value.removeprefix("ref: ").removeprefix(_HEADS) if name == "HEAD" else default_branch
        else:
            shas[name] = value
    return Listing(default_branch, shas)


def pick(listing: Listing, repository: Repository, ref: str) -> tuple[str, str] | None:
    """The SHA and branch that ``ref`` is now, or None where it can only be a SHA. Raises ``CloneFailedError``."""
    if not ref:
        if "HEAD" not in listing.shas:
            raise CloneFailedError(
                f"{repository.url} is empty or its default branch does not exist; push a commit or name a base branch"
            )
        return listing.shas["HEAD"], listing.default_branch
    for name in _candidates(ref):
        if name in listing.shas:
            return listing.shas[name], name.removeprefix(_HEADS) if name.startswith(_HEADS) else ""
    if not is_short_sha(ref):
        raise CloneFailedError(f"{repository.url} has no branch, tag or commit {ref}; name one that exists")
    return None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of asking a remote: what to do about it, and whether asking the same again may help."""

    advice: str
    retryable: bool


def verdict(repository: Repository, error: VcsError) -> Verdict:
    """Read what is wrong out of Git's own words."""
    if isinstance(error, GitTimeoutError):
        return Verdict("it did not answer in time; it will be tried again", retryable=True)
    if isinstance(error, GitFileTooLargeError):
        return Verdict(f"{error.message}; raise the limit or name a smaller repository", retryable=False)
    words = error.git_message
    for pattern, advice in (
        (_UNKNOWN_HOST_KEY, "its host key is not the one known; put the right one into the known hosts file"),
        (_NOT_KNOWN, None),
        (_NOT_ALLOWED, None),
        (_NOT_THERE, "there is no such repository, or it is private and these credentials do not see it; check both"),
        (_ELSEWHERE, "it redirects elsewhere, which is not followed; write the address that it redirects to"),
    ):
        if pattern.search(words):
            return Verdict(advice or _who_we_are(repository, error), retryable=False)
    if _TRANSIENT.search(words) and not _UNFIT_OBJECT.search(words):
        return Verdict("it was not reached or failed on its own; it will be tried again", retryable=True)
    return Verdict("see Git's words" if words else error.message, retryable=error.retryable)


def _who_we_are(repository: Repository, error: VcsError) -> str:
    endpoint = repository.endpoint
    if endpoint is None:
        return "this process may not read it; correct its permissions"
    if endpoint.scheme == "ssh":
        return f"it takes none of our ssh keys; add one that {endpoint.authority} knows to the vcs service's ssh agent"
    if isinstance(error, GitError) and error.had_credentials:
        return (
            f"it refused the credentials that are set up for {endpoint.authority}, or that the job brought; renew them,"
            " or give them (or the GitHub App) access to this repository"
        )
    return (
        f"no credentials are set up for {endpoint.authority}; add them to QUARTERDECK_GIT_CREDENTIALS_FILE, or set up "
        "the forge's token or App"
    )


def clone_failed(repository: Repository, error: VcsError) -> CloneFailedError:
    """What a fetch that ended with ``error`` means for the run."""
    read = verdict(repository, error)
    words = f"{repository.url} could not be fetched: {read.advice}"
    return CloneFailedError(words, git_message=error.git_message or error.message, retryable=read.retryable)


def is_transient(words: str) -> bool:
    """Whether Git's words tell of the network or an overloaded server rather than of what was asked."""
    return _TRANSIENT.search(words) is not None


def is_corruption(words: str) -> bool:
    """Whether Git's words tell of a damaged repository on our side."""
    return _CORRUPT.search(words) is not None


def _candidates(ref: str) -> tuple[str, ...]:
    """Full names in the order of preference; a tag's commit before the tag itself."""
    if not ref:
        return ()
    if ref.startswith("refs/"):
        return (f"{ref}^{{}}", ref)
    return (f"{_HEADS}{ref}", f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}")
