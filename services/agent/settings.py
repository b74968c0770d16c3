"""The agent's settings; those of the model keep the names that its own tools use."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from services.contracts.agents import Budget
from services.contracts.words import Effort, PermissionMode
from services.runtime.grpc import GrpcAddress
from services.runtime.model_service import ModelServiceSettings
from services.runtime.settings import GrpcSettings

DEFAULT_MODEL = "claude-sonnet-5-5"


def _commands(given: object) -> object:
    """Split by commas; a JSON array where a command has one itself."""
    if not isinstance(given, str):
        return given
    if not given.lstrip().startswith("["):
        return [each.strip() for each in given.split(",") if each.strip()]
    try:
        return json.loads(given)
    except json.JSONDecodeError as error:
        raise ValueError(f"must be commands split by commas, or a JSON array: {error}") from error


def _paths(given: object) -> object:
    return [each for each in given.split(os.pathsep) if each] if isinstance(given, str) else given


def _unlimited(given: object) -> object:
    return None if given == "none" else given


def _refuse_relative(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"{path}: must be an absolute path")
    return path


Commands = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=500)], ...], NoDecode, BeforeValidator(_commands)
]
Paths = Annotated[tuple[Annotated[Path, AfterValidator(_refuse_relative)], ...], NoDecode, BeforeValidator(_paths)]

Temperature = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Usd = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=0, le=10**12)]


class AgentSettings(GrpcSettings, ModelServiceSettings):
    agent_name: str = "agent"
    agent_capacity: Annotated[int, Field(ge=1, le=1_000)] = 8
    """Runs at once in this process."""
    vcs_address: GrpcAddress = "127.0.0.1:8091"
    vcs_token: SecretStr
    author_name: Annotated[str, Field(min_length=1)] = "Quarterdeck"
    author_email: Annotated[str, Field(min_length=1)] = "quarterdeck@users.noreply.invalid"
    anthropic_api_key: Annotated[
        SecretStr, Field(validation_alias=AliasChoices("ANTHROPIC_API_KEY", "CLAUDE_API_KEY"), min_length=1)
    ]

    # What runs take where neither their job nor their client says anything.
    model: Annotated[str, Field(validation_alias="CLAUDE_MODEL", min_length=1)] = DEFAULT_MODEL
    max_tokens: Annotated[int, Field(validation_alias="CLAUDE_MAX_TOKENS", ge=256, le=128_000)] = 64_000
    """Most tokens of one reply."""
    temperature: Annotated[Temperature | None, Field(validation_alias="CLAUDE_TEMPERATURE")] = None
    effort: Effort | None = None
    max_turns: Annotated[int, Field(ge=1, le=1_000)] = 100
    system_prompt: Annotated[str, Field(max_length=50_000)] | None = None
    permission_mode: PermissionMode = PermissionMode.ACCEPT_EDITS
    allowed_commands: Commands | None = None
    network: bool = False
    """Whether commands may use the network."""
    run_budget_usd: Annotated[Usd | None, BeforeValidator(_unlimited)] = 5.0
    """`none`: no limit of its own; so for tokens."""
    run_budget_tokens: Annotated[Tokens | None, BeforeValidator(_unlimited)] = None
    allow_unpriced: bool = False

    sandbox: Annotated[Literal["auto", "none"], Field(validation_alias="SANDBOX")] = "auto"
    """`none`: commands run unconfined; `auto`: in bubblewrap, and are refused where that cannot be had."""
    sandbox_paths: Annotated[Paths, Field(validation_alias="SANDBOX_PATHS")] = ()
    """Folders that commands may read besides the system's, split as in PATH."""

    allow_private_addresses: bool = False
    """Whether MCP servers may be reached at addresses that are not public: this machine's and its network's."""

    @property
    def run_budget(self) -> Budget:
        return Budget(usd=self.run_budget_usd, tokens=self.run_budget_tokens)
