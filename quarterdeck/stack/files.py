"""Private files of the data folder: written whole or not at all, readable by their owner alone."""

import os
import secrets
import tempfile
from collections.abc import Callable
from pathlib import Path

SECRET_BYTES = 32


def write_private(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replace ``path`` in one step; a reader sees the old text or the new."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def private_folder(path: Path) -> Path:
    """Make the folder, open to its owner alone, where it is missing."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def kept_secret(path: Path, *, prefix: str = "", form: Callable[[bytes], str] = bytes.hex) -> str:
    """The secret kept in ``path``; made, 256 bits in ``form`` behind ``prefix``, the first time."""
    if path.exists() and (kept := path.read_text().strip()):
        return kept
    secret = prefix + form(secrets.token_bytes(SECRET_BYTES))
    private_folder(path.parent)
    write_private(path, secret + "\n")
    return secret
