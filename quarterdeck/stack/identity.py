"""Who a child process is: PostgreSQL refuses to run as root, so as root it is given another identity."""

import asyncio
import functools
import os
import pwd
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quarterdeck.stack.errors import StackStartError
from quarterdeck.stack.launch import EXIT_REFUSED

LAUNCHER = Path(__file__).with_name("launch.py")
PROBE_SECONDS = 10


@dataclass(frozen=True)
class Identity:
    """``keep``: ours. ``namespace``: ``uid`` inside a user namespace, files stay ours. ``user``: really ``uid``."""

    kind: Literal["keep", "namespace", "user"] = "keep"
    uid: int = 0
    gid: int = 0

    def __str__(self) -> str:
        return self.kind if self.kind == "keep" else f"{self.kind}:{self.uid}:{self.gid}"

    @property
    def owner(self) -> tuple[int, int]:
        """Uid and gid, as the file system sees them, of the files that this identity owns."""
        return (self.uid, self.gid) if self.kind == "user" else (os.geteuid(), os.getegid())


KEEP = Identity()


def launch_command(command: tuple[str, ...], *, identity: Identity, death_signal: int) -> list[str]:
    """The argument vector that becomes ``command``, with that identity and tied to this process's life."""
    launcher = [sys.executable, "-I", "-S", str(LAUNCHER)]
    return [*launcher, str(os.getpid()), str(int(death_signal)), str(identity), *command]


async def unprivileged_identity() -> Identity:
    """Ours if that is an ordinary account, else a user namespace, else the account ``postgres`` or ``nobody``.

    An account without a name (containers with made-up ids) counts as not ordinary: initdb looks its name up.
    """
    if os.geteuid() != 0 and _has_name(os.geteuid()):
        return KEEP
    account = _ordinary_account()
    namespace = Identity("namespace", account.pw_uid, account.pw_gid)
    if await _is_granted(namespace):
        return namespace
    if os.geteuid() != 0:
        raise StackStartError(
            f"user {os.geteuid()} has no name on this machine and PostgreSQL needs one; "
            "add it to /etc/passwd, or set DATABASE_URL to a server of your own"
        )
    return Identity("user", account.pw_uid, account.pw_gid)


def hand_over(folder: Path, identity: Identity) -> None:
    """Make ``folder`` and all in it belong to ``identity``; nothing is touched where it already does."""
    uid, gid = identity.owner
    if not folder.exists() or folder.stat().st_uid == uid or os.geteuid() != 0:
        return
    for path in [*folder.rglob("*"), folder]:
        os.chown(path, uid, gid, follow_symlinks=False)


def check_reach(path: Path, identity: Identity) -> None:
    """Raises StackStartError, naming the folder that is closed, where ``identity`` cannot get to ``path``."""
    if identity.kind != "user":
        return
    for folder in reversed(path.absolute().parents):
        if not _may_enter(folder, identity):
            raise StackStartError(
                f"PostgreSQL may not run as root, and user {identity.uid}, which it would run as, cannot enter "
                f"{folder} on the way to {path}; run as an ordinary user, choose another --data-dir, "
                "or set DATABASE_URL to a server of your own"
            )


def _may_enter(folder: Path, identity: Identity) -> bool:
    status = folder.stat()
    if status.st_uid == identity.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == identity.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _has_name(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


@functools.cache
def _ordinary_account() -> pwd.struct_passwd:
    accounts = {account.pw_name: account for account in pwd.getpwall() if account.pw_uid != 0}
    for name in ("postgres", "nobody", *accounts):
        if name in accounts:
            return accounts[name]
    raise StackStartError(
        "PostgreSQL may not run as root and this machine has no other account; add one (useradd postgres), "
        "or set DATABASE_URL to a server of your own"
    )


async def _is_granted(identity: Identity) -> bool:
    """Whether a process can really take it: sandboxes refuse user namespaces in several ways."""
    if sys.platform != "linux":
        return False
    command = launch_command((sys.executable, "-I", "-S", "-c", ""), identity=identity, death_signal=9)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(PROBE_SECONDS):
        return await process.wait() != EXIT_REFUSED
