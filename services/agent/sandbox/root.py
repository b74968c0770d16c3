"""What a confined command sees: the arguments of bubblewrap that build its namespaces and its files. Runs nothing."""

import os
import stat
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path

from services.agent.sandbox.command import SYSTEM_PATH, Command, variables

HOME = "/home/agent"
USER_ID = 1000
"""As whom a command sees itself; who it is outside, `bubblewrap.owner_of` says."""
PASSWD = f"agent:x:{USER_ID}:{USER_ID}::{HOME}:/bin/sh\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
GROUP = f"agent:x:{USER_ID}:\nnogroup:x:65534:\n"

_NAMESPACES = (
    *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--disable-userns", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
    *("--uid", str(USER_ID), "--gid", str(USER_ID), "--hostname", "sandbox"),
)
_ALWAYS_FROM_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "java-*", "mime.types")
# Not /etc/ssl and /etc/pki as a whole: private keys lie there too.
_WITH_NETWORK_FROM_ETC = (
    *("resolv.conf", "hosts", "nsswitch.conf", "services", "protocols", "gai.conf", "ca-certificates"),
    *("ssl/certs", "ssl/openssl.cnf", "ssl/cert.pem", "pki/tls/certs", "pki/tls/cert.pem", "pki/ca-trust/extracted"),
)


def arguments(fixed: Sequence[str], command: Command, *, passwd: int, group: int, paths: Sequence[Path]) -> list[str]:
    """All of them but the command itself. ``fixed``: of ``fixed_arguments``; ``passwd``, ``group``: descriptors."""
    size = str(command.limits.file_bytes)
    options = [*_NAMESPACES, *([] if command.network else ["--unshare-net"]), *fixed]
    options += ["--file", str(passwd), "/etc/passwd", "--file", str(group), "/etc/group"]
    options += _from_etc(_WITH_NETWORK_FROM_ETC) if command.network else []
    for folder in ("/tmp", HOME, "/dev/shm"):  # noqa: S108 - the sandbox's own
        options += ["--size", size, "--tmpfs", folder]
    # After what is mounted over: they may lie beneath it.
    options += [word for path in paths for word in ("--ro-bind", str(path), str(path))]
    where = HOME
    if command.worktree is not None:
        where = str(command.worktree)
        options += ["--bind" if command.writes else "--ro-bind", where, where]
    options += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", where, "--clearenv"]
    for name, value in variables(command, home=HOME, path=_search_path(paths)).items():
        options += ["--setenv", name, value]
    return options


def fixed_arguments() -> list[str]:
    """What is the same for every command on this machine."""
    return ["--ro-bind", "/usr", "/usr", *_links(), *_from_etc(_ALWAYS_FROM_ETC), "--dev", "/dev", *_proc()]


def _links() -> Iterator[str]:
    for path in (Path("/bin"), Path("/sbin"), *sorted(Path("/").glob("lib*"))):
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))


def _from_etc(patterns: Sequence[str]) -> list[str]:
    found = [path for pattern in patterns for path in sorted(glob(f"/etc/{pattern}")) if Path(path).exists()]  # noqa: PTH207
    return [word for path in found for word in ("--ro-bind", path, path)]


def _proc() -> Iterator[str]:
    """A /proc of its own, and over it what keeps the machine's settings from a command.

    Run by root, a command without any capability may still write much of /proc/sys (``core_pattern`` is a way out):
    the kernel looks at the user there, and bubblewrap covers it only where the folder itself looks writable.
    """
    yield from ("--proc", "/proc")
    for path in sorted(Path("/proc").iterdir()):
        if path.name.isdigit() or path.is_symlink():
            continue
        if path.is_dir():
            if path.name == "sys" or _may_be_written_beneath(path):
                yield from ("--ro-bind", str(path), str(path))
        elif _mode(path) & stat.S_IWUSR or not _mode(path) & stat.S_IROTH:
            yield from ("--ro-bind", "/dev/null", str(path))


def _may_be_written_beneath(folder: Path) -> bool:
    for path, _, files in os.walk(folder):
        if any(_mode(Path(path, name)) & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) for name in files):
            return True
    return False


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except OSError:
        return 0


def _search_path(paths: Sequence[Path]) -> str:
    own = [str(path / "bin") if (path / "bin").is_dir() else str(path) for path in paths]
    return ":".join([*own, SYSTEM_PATH])
