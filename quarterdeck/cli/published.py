"""The published APIs that `quarterdeck serve` starts: ports, variables, what must be set and what is printed."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from quarterdeck.stack.errors import StackStartError

KEYS_VARIABLE = "CODEBOT_API_KEYS"
WORKERS_VARIABLE = "CODEBOT_MAX_WORKERS"
SECRET_VARIABLE = "AGENT_API_SECRET"  # noqa: S105 (the name of the variable)
VCS_ROOT_VARIABLE = "QUARTERDECK_VCS_ROOT"


class Dialect(StrEnum):
    CODEBOT = "codebot"
    CODY_BATCH = "cody-batch"
    WORKER = "worker"
    ORCHESTRATOR = "orchestrator"


@dataclass(frozen=True, kw_only=True)
class PublishedApi:
    port: int
    """Where it is served unless it is told another one."""
    port_variable: str
    """What tells the gateway the port."""
    lead: Callable[[str], str]
    """The first line that is printed, for the host that it listens on. Raises ``StackStartError``: what must be set."""
    endpoints: tuple[str, ...]
    """Paths that are printed once it is up."""
    workers_variable: str | None = None
    """What tells the gateway how much is worked on at once."""
    unused: tuple[str, ...] = ()
    """Variables of its document that mean nothing here: names, or with `*` at the end their beginnings."""
    folders: Callable[[Path], Mapping[str, str]] | None = None
    """What the stack is to be told of folders, from the one that vcs has unless it is told another."""

    def unused_variables(self) -> list[str]:
        """Those that are set; their values are not looked at."""
        return sorted(name for name in os.environ if any(_fits(name, each) for each in self.unused))


def admission_lead(title: str, *, key_variable: str, open_variable: str) -> Callable[[str], str]:
    """For an API that knows no keys: elsewhere than on this machine's own addresses one of the two must be set."""

    def lead(host: str) -> str:
        if os.environ.get(key_variable):
            return f"{title}, with an API key"
        if os.environ.get(open_variable, "").strip().lower() in ("true", "1", "yes", "on"):
            return f"{title}, without authentication: {open_variable} is set"
        if _is_loopback(host):
            return f"{title}, for this machine alone"
        raise StackStartError(
            f"{title} has no authentication of its own, and {host or 'the host'} is reached from elsewhere: "
            f"set {key_variable} to a key, or {open_variable}=true where everyone may use it"
        )

    return lead


def _codebot_lead(_: str) -> str:
    keys = [key for key in os.environ.get(KEYS_VARIABLE, "").split(",") if key.strip()]
    if not keys:
        raise StackStartError(f"{KEYS_VARIABLE} is not set: give one or more API keys, separated by commas")
    return f"HTTP API enabled with {len(keys)} API key(s)"


def _orchestrator_lead(_: str) -> str:
    if not os.environ.get(SECRET_VARIABLE):
        raise StackStartError(f"{SECRET_VARIABLE} is not set: give the secret that requests are to bear")
    return "Orchestrator API, with its secret"


def _orchestrator_folders(vcs: Path) -> Mapping[str, str]:
    """Its document names a folder of its own for repositories: it is made where it is missing, for its owner alone."""
    if not (told := os.environ.get("REPOS_DIR")):
        return {VCS_ROOT_VARIABLE: str(vcs)}
    root = Path(told).expanduser().absolute()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StackStartError(f"REPOS_DIR cannot be made: {error}") from error
    return {VCS_ROOT_VARIABLE: str(root), "CODEBOT_WORK_DIR": str(root / "worktrees")}


APIS: Mapping[Dialect, PublishedApi] = MappingProxyType(
    {
        Dialect.CODEBOT: PublishedApi(
            port=5000,
            port_variable="QUARTERDECK_CODEBOT_PORT",
            workers_variable=WORKERS_VARIABLE,
            lead=_codebot_lead,
            endpoints=("/api/tasks/submit", "/api/tasks/{task_id}/status", "/api/tasks"),
        ),
        Dialect.CODY_BATCH: PublishedApi(
            port=3000,
            port_variable="QUARTERDECK_CODY_PORT",
            workers_variable="CODY_MAX_WORKERS",
            lead=admission_lead(
                "Cody Batch API", key_variable="QUARTERDECK_CODY_API_KEY", open_variable="QUARTERDECK_CODY_NO_AUTH"
            ),
            endpoints=("/jobs", "/repositories", "/health"),
            unused=("AWS_*", "DYNAMODB_*", "NODE_ENV"),
        ),
        Dialect.WORKER: PublishedApi(
            port=8787,
            port_variable="QUARTERDECK_WORKER_PORT",
            workers_variable="QUARTERDECK_WORKER_MAX_SESSIONS",
            lead=admission_lead(
                "Worker API", key_variable="QUARTERDECK_WORKER_API_KEY", open_variable="QUARTERDECK_WORKER_NO_AUTH"
            ),
            endpoints=("/interactive/start", "/interactive/status", "/webhooks/github", "/health"),
            folders=lambda vcs: {VCS_ROOT_VARIABLE: str(vcs)},
        ),
        Dialect.ORCHESTRATOR: PublishedApi(
            port=3456,
            port_variable="QUARTERDECK_ORCHESTRATOR_PORT",
            workers_variable="MAX_CONCURRENT_JOBS",
            lead=_orchestrator_lead,
            endpoints=("/jobs", "/clients", "/queue", "/health"),
            unused=("SUPABASE_*",),
            folders=_orchestrator_folders,
        ),
    }
)


def printed_endpoints(api: PublishedApi, origin: str) -> Iterator[str]:
    """The lines that name the paths of ``api``. ``origin``: `http://HOST:PORT`."""
    margin = "API endpoints: "
    for path in api.endpoints:
        yield f"{margin}{origin}{path}"
        margin = " " * len(margin)


def _fits(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
