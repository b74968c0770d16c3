"""Every way in which work on Git can fail, as types. Texts are redacted on the way in; nothing here does I/O."""

import re
from typing import ClassVar

_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/]*@")


def redact(text: str) -> str:
    """``text`` without the user names, passwords and tokens of the URLs in it."""
    return _USERINFO.sub(r"\g<scheme>***@", text)


class VcsError(Exception):
    """What a caller sees: a message that says what to do, and Git's own words where there are any."""

    exit_reason: ClassVar[str] = "internal"

    def __init__(self, message: str, *, git_message: str = "", retryable: bool = False) -> None:
        self.message = redact(message)
        self.git_message = redact(git_message)
        self.retryable = retryable
        words = f": {self.git_message}" if self.git_message else ""
        super().__init__(f"{self.message}{words}")


class RepositoryRefusedError(VcsError):
    """The address is not one that Quarterdeck fetches from."""

    exit_reason = "clone_failed"


class RefRefusedError(VcsError):
    """The name of a branch, tag or commit is not on the allow list of shapes."""

    exit_reason = "clone_failed"


class MetadataRefusedError(VcsError):
    """Author, date or message cannot stand in a commit."""


class WorktreeRefusedError(VcsError):
    """A run id or attempt that cannot name a folder."""


class CredentialsError(VcsError):
    """Credentials that were set up cannot be used; the message never repeats them."""


class CloneFailedError(VcsError):
    """Mirror or worktree could not be made."""

    exit_reason = "clone_failed"


class LeaseLostError(VcsError):
    """A newer attempt owns the run; this one must stop."""

    exit_reason = "lease_lost"


class UnknownWorktreeError(VcsError):
    """No finished worktree of this attempt is on this node."""


class PatchRefusedError(VcsError):
    """The patch does not apply to its base."""


class PatchTooLargeError(VcsError):
    """The worktree's changes are too large to be carried as a patch."""

    exit_reason = "patch_too_large"


class PatchInexactError(VcsError):
    """Applied to its base, the patch did not give the worktree's tree: a bug, and nothing was delivered."""


class PushRejectedError(VcsError):
    """The remote did not take the branch. ``retryable``: nothing speaks against trying the same push again."""

    exit_reason = "push_rejected"


class ForgeError(VcsError):
    """The forge did not do what was asked. ``retryable``: it may do so later, asked the same again."""

    exit_reason = "forge_rejected"


class ForgeUnavailableError(ForgeError):
    """The forge was not reached, did not answer in time or failed itself; whether it acted is not known."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)


class ForgePausedError(ForgeError):
    """The forge, or our own rate for it, wants us to wait. ``seconds``: before it may be asked again."""

    def __init__(self, message: str, *, seconds: float) -> None:
        super().__init__(message, retryable=True)
        self.seconds = seconds


class ForgeRefusedError(ForgeError):
    """Asked the same again it would refuse again: no permission, no such repository, not mergeable."""


class ForgeNotFoundError(ForgeRefusedError):
    """The forge has no such repository, pull request or comment, or does not show it to these credentials."""


class AppSetUpUnclearError(ForgeError):
    """The code may have been spent, and what it was good for is lost."""


class AppLostError(ForgeError):
    """The forge handed out an App's secrets, once, and they could not be kept."""


class BusyError(VcsError):
    """Another process held a mirror's lock for too long."""


class GitError(VcsError):
    """A Git command ended with a failure. ``git_message``: its stderr; ``stdout``: what it had written.

    ``had_credentials``: the command was given some for its remote.
    """

    def __init__(self, message: str, *, git_message: str = "", exit_code: int = 0, stdout: bytes = b"") -> None:
        super().__init__(message, git_message=git_message)
        self.exit_code = exit_code
        self.stdout = stdout
        self.had_credentials = False


class GitFileTooLargeError(GitError):
    """A Git command wanted to write a larger file than it may; asked again it would again."""


class GitTimeoutError(VcsError):
    """A Git command was ended at its deadline."""


class GitOutputTooLargeError(VcsError):
    """A Git command wrote more than its caller takes."""


class GitUnfitError(VcsError):
    """There is no Git on this machine that the service can work with."""
