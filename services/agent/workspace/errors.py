"""What can go wrong with a file of the workspace; every message is written for the model that asked."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager


class WorkspaceError(Exception):
    """The workspace refused or could not do what was asked."""


class PathRefusedError(WorkspaceError):
    """The path leaves the workspace, goes through a link, or names what is closed."""


class MissingError(WorkspaceError):
    """There is no such file or directory."""


class NotTextError(WorkspaceError):
    """The file is not UTF-8 text, or is too large to be handled as such."""


class StaleReadError(WorkspaceError):
    """The file was not read, or changed since it was."""


_REFUSALS = {
    errno.ELOOP: "is a symbolic link, and links are never followed: name the file itself",
    errno.ENOTDIR: "does not lead through plain directories: a part of it is a file or a symbolic link, and "
    "links are never followed",
    errno.ENAMETOOLONG: "has a name that is too long: use names of at most 255 bytes",
}
_FAILURES = {
    errno.EACCES: "may not be opened: permission denied; leave it as it is",
    errno.EPERM: "may not be changed: permission denied; leave it as it is",
    errno.EISDIR: "is a directory: name a file",
    errno.ENOSPC: "cannot be written: no space is left; make it smaller or stop",
    errno.ENXIO: "is a socket or a device, not a regular file: leave it as it is",
}


@contextmanager
def in_words(path: str) -> Iterator[None]:
    """Turn an ``OSError`` about ``path`` into a ``WorkspaceError`` that names the path and what to do."""
    try:
        yield
    except FileNotFoundError as error:
        raise MissingError(f"{path!r} does not exist: list_files shows what there is") from error
    except OSError as error:
        code = error.errno or 0
        if code in _REFUSALS:
            raise PathRefusedError(f"{path!r} {_REFUSALS[code]}") from error
        # The kernel's own text carries no path of this machine; str(error) would.
        what = _FAILURES.get(code, f"failed: {error.strerror}; try again or leave it as it is")
        raise WorkspaceError(f"{path!r} {what}") from error
