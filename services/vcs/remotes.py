"""Asks a remote what it has, and reads Git's words about what went wrong there."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.vcs.errors import CloneFailedError, GitError, GitTimeoutError, VcsError
from services.vcs.git import Git
from services.vcs.repositories import Repository, is_short_sha

ASK_TIMEOUT: Final = timedelta(seconds=60)
_HEADS: Final = "refs/heads/"

_TRANSIENT: Final = re.compile(
    r"could not resolve host|temporary failure|connection (refused|timed out|reset|closed)|failed to connect"
    r"|network is unreachable|no route to host|early eof|rpc failed|hung up unexpectedly|too slow|gnutls|ssl_"
    r"|returned error: (408|429|5\d\d)|unexpected disconnect|operation timed out",
    re.IGNORECASE,
)
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
    """Ask for HEAD and whatever ``ref`` may name. Raises ``CloneFailedError`` with Git's own words."""
    names = ("HEAD", *_candidates(ref))
    try:
        output = await git.run("ls-remote", "--symref", "--end-of-options", repository.url, *names, timeout=ASK_TIMEOUT)
    except (GitError, GitTimeoutError) as error:
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


def clone_failed(repository: Repository, error: VcsError) -> CloneFailedError:
    retryable = isinstance(error, GitTimeoutError) or is_transient(error.git_message)
    return CloneFailedError(
        f"{repository.url} could not be fetched", git_message=error.git_message or error.message, retryable=retryable
    )


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
