"""As whom remotes are asked: by the server's own credentials, or by those that a job brought."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from services.vcs.git.runner import Git
from services.vcs.mirrors.mirrors import Mirrors


@dataclass(frozen=True, slots=True)
class Reach:
    """``git`` shows the credentials, and ``mirrors`` gives out what they may see.

    ``owner``: whose run it is, of those who are let in by the server's own; empty: no other run is to do with it.
    """

    git: Git
    mirrors: Mirrors
    owner: str = ""


# The run's id → as whom its remotes are asked; raises `VcsError`s, `StoreUnavailableError`.
ReachOfRun = Callable[[str], Awaitable[Reach]]
