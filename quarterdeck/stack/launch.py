"""Becomes another program: gives up root where asked, ties its life to the parent's, then execs.

Run by path under ``python -I -S``, which starts in 15 ms: standard library only, nothing of ours may be imported.
Arguments: the parent's pid, the signal wanted at its death, an identity (``identity.py``), then the command.
"""

import ctypes
import os
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
EXIT_REFUSED = 125
EXIT_NOT_STARTED = 127


def enter_namespace(uid: int, gid: int) -> None:
    """Be ``uid``:``gid`` to ourselves and who we were to everyone else; files keep their owner. Raises OSError."""
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWUSER)")
    process = Path("/proc/self")
    # An unprivileged group map is taken only from a process that gave up setgroups(2) first.
    (process / "setgroups").write_text("deny")
    (process / "uid_map").write_text(f"{uid} {outer_uid} 1")
    (process / "gid_map").write_text(f"{gid} {outer_gid} 1")


def become_user(uid: int, gid: int) -> None:
    """Drop root for good."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def take_identity(identity: str) -> None:
    """``keep``, ``namespace:UID:GID`` or ``user:UID:GID``."""
    kind, *ids = identity.split(":")
    if kind == "keep":
        return
    change = {"namespace": enter_namespace, "user": become_user}[kind]
    try:
        change(int(ids[0]), int(ids[1]))
    except OSError as error:
        print(f"cannot take the identity {identity}: {error}", file=sys.stderr)
        raise SystemExit(EXIT_REFUSED) from error


def die_with_parent(parent: int, signal_number: int) -> None:
    """Have the kernel send us ``signal_number`` when ``parent`` dies; Linux only, elsewhere nothing happens.

    It comes after the change of identity, which would clear it, and then looks whether the parent is still there.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(EXIT_NOT_STARTED)


def main(arguments: list[str]) -> None:
    parent, death_signal, identity, *command = arguments
    take_identity(identity)
    die_with_parent(int(parent), int(death_signal))
    try:
        os.execvp(command[0], command)  # noqa: S606 (no shell is wanted)
    except OSError as error:
        print(f"cannot start {command[0]}: {error.strerror}", file=sys.stderr)
        raise SystemExit(EXIT_NOT_STARTED) from error


if __name__ == "__main__":
    main(sys.argv[1:])
