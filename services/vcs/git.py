"""The one runner of Git commands: a hardened environment made from scratch, argument lists, deadlines.

Nothing that a repository, a worktree or the machine configures may start a program or ask a question.
"""

import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from services.vcs.errors import GitError, GitOutputTooLargeError, GitTimeoutError
from services.vcs.processes import Ended, OutputLimitError, run_process

# Git's own word for the phase, and percent.
Progress = Callable[[str, int], None]

MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024
_TELL_EVERY: Final = timedelta(milliseconds=100)
_DONE: Final = 100

# The deployment's proxies and certificates; everything else of our own environment stays out.
_PASSED_ON: Final = (
    *("HTTPS_PROXY", "https_proxy", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO"),
)

# As command-line configuration, which wins over a repository's own.
_CONFIGURATION: Final[Mapping[str, str]] = {
    # Nothing of a repository is executed.
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "credential.helper": "",
    "protocol.ext.allow": "never",
    "safe.bareRepository": "explicit",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "push.recurseSubmodules": "no",
    # A link is checked out as a file that holds its target: no path leads out of a worktree.
    "core.symlinks": "false",
    # Mirrors may belong to another user id of the same service.
    "safe.directory": "*",
    # The same bytes on every machine.
    "core.attributesFile": os.devnull,
    "core.excludesFile": os.devnull,
    "core.autocrlf": "false",
    "core.quotePath": "false",
    # Packs appear whole or not at all; loose objects of a killed fetch would look like a complete commit.
    "fetch.unpackLimit": "1",
    # Mirrors are consolidated under their lock, never by a command that happens to run.
    "gc.auto": "0",
    "maintenance.auto": "false",
    # Many runs pin and unpin side by side in one mirror.
    "core.packedRefsTimeout": "5000",
    "core.filesRefLockTimeout": "2000",
    # The address that was checked is the address that is asked; a stalled transfer ends.
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
}

_PROGRESS: Final = re.compile(rb"(?:remote: )?([A-Z][A-Za-z ]{2,40}): +(\d{1,3})% \(")


@dataclass(frozen=True, slots=True)
class Place:
    """Where Git finds repository, worktree and index: said by us, never looked up from a folder."""

    git_dir: Path
    work_tree: Path | None = None
    index: Path | None = None

    def variables(self) -> dict[str, str]:
        variables = {"GIT_DIR": str(self.git_dir)}
        if self.work_tree is not None:
            variables["GIT_WORK_TREE"] = str(self.work_tree)
        if self.index is not None:
            variables["GIT_INDEX_FILE"] = str(self.index)
        return variables


class Git:
    def __init__(self, home: Path, *, allow_local: bool = False) -> None:
        """``home``: an empty folder of ours, made if absent. ``allow_local``: repositories may be local paths."""
        home.mkdir(parents=True, exist_ok=True)
        self.allow_local = allow_local
        self._home = home
        self._executable = shutil.which("git") or "git"
        self._environment = _environment(home, allow_local=allow_local)

    async def run(
        self,
        *arguments: str,
        timeout: timedelta,
        place: Place | None = None,
        stdin: bytes = b"",
        variables: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        accept: Collection[int] = (0,),
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> bytes:
        """Run one Git command and return its stdout.

        ``place``: none for commands without a repository (ls-remote). ``variables``: added to the environment.
        ``accept``: exit codes that are no failure. Raises ``GitError``, ``GitTimeoutError``,
        ``GitOutputTooLargeError``; once it has raised, cancellation included, no process is left.
        """
        name = next((word for word in arguments if not word.startswith("-")), "")
        try:
            ended = await run_process(
                (self._executable, *arguments),
                environment=self._environment | (place.variables() if place else {}) | dict(variables or {}),
                folder=(place.work_tree if place else None) or self._home,
                timeout=timeout,
                stdin=stdin,
                max_output_bytes=max_output_bytes,
                on_line=None if progress is None else _ProgressLines(progress),
            )
        except TimeoutError as error:
            seconds = timeout.total_seconds()
            raise GitTimeoutError(f"git {name} was ended after {seconds:g} s", retryable=True) from error
        except OutputLimitError as error:
            raise GitOutputTooLargeError(f"git {name} wrote more than {max_output_bytes} bytes") from error
        except OSError as error:
            raise GitError(f"git {name} could not be started: {error}; is Git installed?") from error
        return _checked(name, ended, accept)


def _checked(name: str, ended: Ended, accept: Collection[int]) -> bytes:
    if ended.exit_code in accept:
        return ended.stdout
    raise GitError(
        f"git {name} failed (exit code {ended.exit_code})",
        git_message=ended.stderr.decode("utf-8", "replace"),
        exit_code=ended.exit_code,
        stdout=ended.stdout,
    )


def _environment(home: Path, *, allow_local: bool) -> dict[str, str]:
    configuration: dict[str, str] = {"GIT_CONFIG_COUNT": str(len(_CONFIGURATION))}
    for number, (key, value) in enumerate(_CONFIGURATION.items()):
        configuration |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {
        **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
        **configuration,
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        # Without a GIT_DIR no repository around our own folders is found.
        "GIT_CEILING_DIRECTORIES": str(home.parent),
        "GIT_ALLOW_PROTOCOL": "https:http:ssh:git" + (":file" if allow_local else ""),
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_LFS_SKIP_SMUDGE": "1",
        # Nobody is there to answer a question: what is asked is empty, so that the command fails instead of waiting.
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "true",
        "SSH_ASKPASS": "true",
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oStrictHostKeyChecking=accept-new -oConnectTimeout=15",
    }


class _ProgressLines:
    """Takes `Receiving objects:  42% (…)` out of stderr; tells of each phase, its end, and ten times a second."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._phase = ""
        self._told = 0.0

    def __call__(self, line: bytes) -> bool:
        found = _PROGRESS.match(line)
        if found is None:
            return False
        phase, percent, now = found[1].decode("ascii"), min(int(found[2]), _DONE), time.monotonic()
        if phase != self._phase or percent == _DONE or now - self._told > _TELL_EVERY.total_seconds():
            self._phase, self._told = phase, now
            self._progress(phase, percent)
        return True
