"""What a local stack is asked to be, and where its data folder keeps what."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from quarterdeck.stack.errors import StackError

MAX_AGENTS = 64
MAX_CAPACITY = 256
MAX_PORT = 65535


def default_data_dir() -> Path:
    """``$QUARTERDECK_DATA_DIR``, else ``quarterdeck`` where the XDG base directories put a user's data."""
    if told := os.environ.get("QUARTERDECK_DATA_DIR"):
        return Path(told)
    xdg = os.environ.get("XDG_DATA_HOME")
    # The XDG specification says that a relative path there is to be ignored.
    base = Path(xdg) if xdg and Path(xdg).is_absolute() else Path.home() / ".local" / "share"
    return base / "quarterdeck"


def _first_set(*names: str) -> str | None:
    return next((value for name in names if (value := os.environ.get(name))), None)


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """``port``: the gateway's, None for a free one. ``grpc_port``: of its gRPC, None for none.

    The URLs replace the embedded servers; without a key the offline model stands in. What is not given comes from the
    environment. Raises StackError for what cannot be.
    """

    data_dir: Path = field(default_factory=default_data_dir)
    agents: int = 1
    agent_capacity: int = 8
    host: str = "127.0.0.1"
    port: int | None = None
    grpc_port: int | None = None
    database_url: str | None = field(default_factory=lambda: _first_set("DATABASE_URL"), repr=False)
    nats_url: str | None = field(default_factory=lambda: _first_set("NATS_URL"), repr=False)
    allow_local_repositories: bool = True
    anthropic_api_key: str | None = field(
        default_factory=lambda: _first_set("ANTHROPIC_API_KEY", "CLAUDE_API_KEY"), repr=False
    )
    anthropic_base_url: str | None = field(default_factory=lambda: _first_set("ANTHROPIC_BASE_URL"))
    model_base_urls: str | None = field(default_factory=lambda: _first_set("MODEL_BASE_URLS"))
    claude_model: str | None = field(default_factory=lambda: _first_set("CLAUDE_MODEL"))
    secret_key: str | None = field(default_factory=lambda: _first_set("QUARTERDECK_SECRET_KEY"), repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "data_dir", self.data_dir.expanduser().absolute())
        _check_range("agents", self.agents, 1, MAX_AGENTS)
        _check_range("agent_capacity", self.agent_capacity, 1, MAX_CAPACITY)
        if self.port is not None:
            _check_range("port", self.port, 1, MAX_PORT)
        if self.grpc_port is not None:
            _check_range("grpc_port", self.grpc_port, 1, MAX_PORT)

    @property
    def offline(self) -> bool:
        """Whether the offline model stands in for a real one."""
        return self.anthropic_api_key is None

    def arguments(self) -> list[str]:
        """What ``python -m quarterdeck.stack`` takes to get these options; secrets travel by ``variables``."""
        words = ["--data-dir", str(self.data_dir), "--host", self.host]
        words += ["--agents", str(self.agents), "--agent-capacity", str(self.agent_capacity)]
        words += ["--port", str(self.port)] if self.port is not None else []
        words += ["--grpc-port", str(self.grpc_port)] if self.grpc_port is not None else []
        return words if self.allow_local_repositories else [*words, "--no-local-repositories"]

    def variables(self) -> dict[str, str | None]:
        """The environment that goes with ``arguments``; None: must not be set."""
        return {
            "DATABASE_URL": self.database_url,
            "NATS_URL": self.nats_url,
            "ANTHROPIC_API_KEY": self.anthropic_api_key,
            "CLAUDE_API_KEY": None,
            "ANTHROPIC_BASE_URL": self.anthropic_base_url,
            "MODEL_BASE_URLS": self.model_base_urls,
            "CLAUDE_MODEL": self.claude_model,
            "QUARTERDECK_SECRET_KEY": self.secret_key,
        }


@dataclass(frozen=True)
class DataFolder:
    """Where things are in a data folder."""

    path: Path

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def info(self) -> Path:
        return self.path / "stack.json"

    @property
    def processes(self) -> Path:
        return self.path / "processes.json"

    @property
    def vcs(self) -> Path:
        return self.path / "vcs"

    def secret(self, name: str) -> Path:
        return self.path / "secrets" / name

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise StackError(f"{name} is {value}; it must be from {low} to {high}")
