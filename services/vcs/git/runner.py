"""The one runner of Git commands: hardened, bounded, and with a remote's address and credentials where it has one."""

import asyncio
import re
import shutil
import signal
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from services.vcs.errors import (
    GitError,
    GitFileTooLargeError,
    GitOutputTooLargeError,
    GitTimeoutError,
    GitUnfitError,
    RepositoryRefusedError,
)
from services.vcs.git.addresses import Approach, RemoteAccess
from services.vcs.git.credentials import Credential, Credentials, NoCredentials, handed_over, helper_configuration, hide
from services.vcs.git.hardening import CONFIGURATION, environment
from services.vcs.git.processes import Ended, OutputLimitError, run_process
from services.vcs.git.repositories import Repository

# Git's own word for the phase, and percent.
Progress = Callable[[str, int], None]

MAX_OUTPUT_BYTES: Final = 64 * 1024 * 1024
_TELL_EVERY: Final = timedelta(milliseconds=100)
_DONE: Final = 100

# Larger than the pack of any repository but the very largest.
MAX_FILE_BYTES: Final = 16 * 1024**3
CREDENTIALS_TIMEOUT: Final = timedelta(seconds=30)
# The first in which a name can be bound to an address, and what enters a repository is checked as strictly as here.
OLDEST_VERSION: Final = (2, 39)
_VERSION: Final = re.compile(rb"git version (\d+)\.(\d+)")
_VERSION_TIMEOUT: Final = timedelta(seconds=30)

# Of our side, that is: a remote may say so of its own files.
_OVER_FILE_LIMIT: Final = re.compile(r"^(?!remote:).*: File too large", re.MULTILINE)
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
    def __init__(
        self,
        home: Path,
        *,
        allow_local: bool = False,
        remotes: RemoteAccess | None = None,
        credentials: Credentials | None = None,
        max_file_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        """``home``: an empty folder of ours, made if absent. ``allow_local``: repositories may be local paths.

        ``remotes``: none: those of the internet over https and ssh. ``credentials``: none: nothing is shown to them.
        ``max_file_bytes``: the largest file that a command may write, a pack or a checked-out file.
        """
        home.mkdir(parents=True, exist_ok=True)
        self.allow_local = allow_local
        self._home = home
        self._remotes = remotes or RemoteAccess()
        self._credentials = credentials or NoCredentials()
        self._max_file_bytes = max_file_bytes
        self._executable = shutil.which("git") or "git"
        self._environment = environment(home, (*self._remotes.schemes, *(("file",) if allow_local else ())))

    def showing(self, credentials: Credentials) -> "Git":
        """The same Git, which shows these to remotes and no others."""
        return Git(
            self._home,
            allow_local=self.allow_local,
            remotes=self._remotes,
            credentials=credentials,
            max_file_bytes=self._max_file_bytes,
        )

    async def require_fit(self) -> None:
        """For the start of the service. Raises ``GitUnfitError`` where Git is missing or too old."""
        oldest = ".".join(map(str, OLDEST_VERSION))
        try:
            output = await self.run("--version", timeout=_VERSION_TIMEOUT)
        except GitError as error:
            raise GitUnfitError(f"git cannot be run ({error}); install Git {oldest} or newer") from error
        found = _VERSION.match(output)
        if found is None or (int(found[1]), int(found[2])) < OLDEST_VERSION:
            version = output.decode("utf-8", "replace").strip()
            raise GitUnfitError(f"{version} is too old; install Git {oldest} or newer")

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
        approach: Approach | None = None,
        writes: bool = True,
    ) -> bytes:
        """Run one Git command and return its stdout.

        ``place``: none for commands without a repository (ls-remote). ``variables``: added to the environment.
        ``accept``: exit codes that are no failure. ``approach``: for ``run_against``. ``writes``: False for one that
        writes no file, which spares it the limit of a file's size, a program that starts before it.

        Raises ``GitError``, ``GitFileTooLargeError``, ``GitTimeoutError``, ``GitOutputTooLargeError``; once it has
        raised, cancellation included, no process is left.
        """
        name, reached = _command(arguments), approach or Approach()
        try:
            ended = await run_process(
                (self._executable, *arguments),
                environment=self._variables(place, reached) | dict(variables or {}),
                folder=(place.work_tree if place else None) or self._home,
                timeout=timeout,
                stdin=stdin,
                max_output_bytes=max_output_bytes,
                max_file_bytes=self._max_file_bytes if writes else None,
                # What a remote sends is written by a program behind Git's own, whose end Git would not tell of.
                ends_at_file_limit=approach is None,
                descriptors=reached.descriptors,
                on_line=None if progress is None else _ProgressLines(progress),
            )
        except TimeoutError as error:
            seconds = timeout.total_seconds()
            raise GitTimeoutError(f"git {name} was ended after {seconds:g} s", retryable=True) from error
        except OutputLimitError as error:
            raise GitOutputTooLargeError(f"git {name} wrote more than {max_output_bytes} bytes") from error
        except OSError as error:
            raise GitError(f"git {name} could not be started: {error}; is Git installed?") from error
        if ended.exit_code in accept:
            return ended.stdout
        raise self._failure(name, ended, reached)

    async def run_against(self, repository: Repository, *arguments: str, **options: Any) -> bytes:
        """``run`` for a command that talks to the remote ``repository``: with its credentials, to a checked address.

        Raises what ``run`` does, ``RepositoryRefusedError`` for a remote that may not be asked, and what the
        credentials' provider raises.
        """
        endpoint = repository.endpoint
        if endpoint is None:
            if not self.allow_local:
                raise RepositoryRefusedError(f"{repository.url} is a local path, and none is allowed here; write a URL")
            return await self.run(*arguments, approach=Approach(), **options)
        approach = await self._remotes.approach(repository, endpoint)
        credential = None if endpoint.scheme == "ssh" else await self._credential(repository)
        if credential is None:
            return await self.run(*arguments, approach=approach, **options)
        with handed_over(credential) as descriptor:
            helper = helper_configuration(endpoint, descriptor)
            configuration = (*approach.configuration, helper)
            shown = replace(
                approach, configuration=configuration, descriptors=(descriptor,), secrets=credential.forms()
            )
            return await self.run(*arguments, approach=shown, **options)

    async def _credential(self, repository: Repository) -> Credential | None:
        try:
            async with asyncio.timeout(CREDENTIALS_TIMEOUT.total_seconds()):
                return await self._credentials.of(repository)
        except TimeoutError as error:
            words = f"the credentials for {repository.url} did not come in {CREDENTIALS_TIMEOUT.total_seconds():g} s"
            raise GitTimeoutError(words, retryable=True) from error

    def _variables(self, place: Place | None, approach: Approach) -> dict[str, str]:
        # Owned by another user id of the same service or not: these folders are ours, and no other is trusted.
        trusted = (place.git_dir, place.work_tree) if place else ()
        safe = (("safe.directory", str(folder)) for folder in trusted if folder is not None)
        configuration = (*CONFIGURATION.items(), *safe, *approach.configuration)
        numbered = {
            f"GIT_CONFIG_{part}_{number}": text
            for number, pair in enumerate(configuration)
            for part, text in zip(("KEY", "VALUE"), pair, strict=True)
        }
        count = {"GIT_CONFIG_COUNT": str(len(configuration))}
        return self._environment | numbered | count | (place.variables() if place else {}) | dict(approach.variables)

    def _failure(self, name: str, ended: Ended, approach: Approach) -> GitError:
        words = hide(ended.stderr.decode("utf-8", "replace"), approach.secrets)
        stdout = hide(ended.stdout.decode("utf-8", "surrogateescape"), approach.secrets)
        kind, message = GitError, f"git {name} failed (exit code {ended.exit_code})"
        if ended.exit_code == -signal.SIGXFSZ or _OVER_FILE_LIMIT.search(words):
            limit = f"more than {self._max_file_bytes} bytes (QUARTERDECK_GIT_MAX_FILE_BYTES)"
            kind, message = GitFileTooLargeError, f"git {name} would write a file of {limit}"
        error = kind(
            hide(message, approach.secrets),
            git_message=words,
            exit_code=ended.exit_code,
            stdout=stdout.encode("utf-8", "surrogateescape"),
        )
        error.had_credentials = bool(approach.secrets)
        return error


def _command(arguments: tuple[str, ...]) -> str:
    """The command's name, behind whatever configuration stands before it."""
    words = iter(arguments)
    for word in words:
        if word == "-c":
            next(words, None)
        elif not word.startswith("--config-env="):
            return word
    return ""


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
