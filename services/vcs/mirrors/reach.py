"""As whom remotes are asked: by the server's own credentials, or by those that a job brought."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.vcs.git.runner import Git
from services.vcs.mirrors.mirrors import Mirrors


@dataclass(frozen=True, slots=True)
class Reach:
    """``git`` shows the credentials, and ``mirrors`` gives out what they may see."""

    git: Git
    mirrors: Mirrors


# The run's id → as whom its remotes are asked; raises `VcsError`s, `StoreUnavailableError`.
ReachOfRun = Callable[[str], Awaitable[Reach]]
