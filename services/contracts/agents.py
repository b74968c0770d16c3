"""How agents are told to work: settings of a job or a client, their secrets and their MCP servers."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from services.contracts.model import Both, CommandPattern, Name, Request, Text
from services.contracts.words import Effort, PermissionMode

MAX_KEY_CHARACTERS = 4_000
SET = "(set)"
"""Stands for a secret that is stored, wherever it would be shown."""
MaxTurns = Annotated[int, Field(ge=1, le=1_000)]


class Budget(Both):
    """What may be used at most; what is null is not limited."""

    usd: Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)] | None = None
    tokens: Annotated[int, Field(ge=0, le=10**12)] | None = Field(
        None, description="input and output together, cached input included"
    )


class AgentDefaults(Both):
    """How runs are worked on. What is null is taken from the next wider level: job, client, server."""

    model: Name | None = Field(None, description="the model to use")
    max_tokens: Annotated[int, Field(ge=256, le=128_000)] | None = Field(None, description="most tokens of one reply")
    temperature: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        None, description="left out, with a line in the run's log, where the model does not take it"
    )
    effort: Annotated[Effort, Field(strict=False)] | None = Field(
        None, description="how much the model is to think; left out where the model does not take it"
    )
    max_turns: MaxTurns | None = Field(None, description="most model requests a run; 100 where nobody says otherwise")
    system_prompt: Annotated[Text, Field(min_length=1, max_length=50_000)] | None = Field(
        None, description="instructions added to the agent's own"
    )
    base_url: Annotated[Text, Field(min_length=1, max_length=2_000)] | None = Field(
        None, description="address of the model service; one of those that the server allows"
    )
    permission_mode: Annotated[PermissionMode, Field(strict=False)] | None = Field(
        None,
        description="`acceptEdits` (default): files may be changed, and the allowed commands run; `plan`: nothing is "
        "changed, the run ends in a plan; `bypassPermissions`: any command may be run",
    )
    allowed_commands: Annotated[list[CommandPattern], Field(max_length=100)] | None = Field(
        None, description="what `acceptEdits` lets the agent run: a command, or its beginning followed by ` *`"
    )
    network: bool | None = Field(None, description="whether commands may use the network; default: no")
    run_budget: Budget | None = Field(None, description="of each run; 5 USD where nobody says otherwise")
    allow_unpriced: bool | None = Field(
        None, description="whether a model without a known price may be used under a budget in USD; default: no"
    )


def _refuse_odd_key(key: SecretStr) -> SecretStr:
    if not all("!" <= character <= "~" for character in key.get_secret_value()):
        raise ValueError("must be visible ASCII characters, without spaces or line ends")
    return key


ApiKey = Annotated[
    SecretStr, Field(min_length=1, max_length=MAX_KEY_CHARACTERS, strict=False), AfterValidator(_refuse_odd_key)
]


class Credentials(Request):
    """Secrets of a job: never shown, and kept encrypted."""

    anthropic_api_key: ApiKey | None = None
    github_token: ApiKey | None = Field(
        None, description="with which this job's repositories are read, pushed to and asked for pull requests"
    )


class KeyRequest(Request):
    anthropic_api_key: ApiKey


def _refuse_odd_address(address: str) -> str:
    try:
        parts = urlsplit(address)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or "@" in parts.netloc or parts.fragment or any(not "!" <= each <= "~" for each in address):
        raise ValueError("must be an http or https address without user, password and fragment")
    return address


SecretName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]
SecretText = Annotated[Text, Field(max_length=8_000)]
SecretHeader = Annotated[str, Field(max_length=8_000, pattern=r"^[!-~]([ -~]*[!-~])?$")]
_SECRET_VALUES = f"secret values: kept encrypted and shown as `{SET}`, which, sent back, keeps what is stored"


class StdioServer(Both):
    """An MCP server that is started in the sandbox of each run."""

    type: Literal["stdio"]
    command: Annotated[list[CommandPattern], Field(min_length=1, max_length=100)]
    env: Annotated[dict[SecretName, SecretText], Field(max_length=100)] = Field(
        default_factory=dict, description=_SECRET_VALUES
    )
    network: bool = False


class HttpServer(Both):
    """An MCP server that speaks streamable HTTP."""

    type: Literal["http"]
    url: Annotated[Text, Field(min_length=1, max_length=2_000), AfterValidator(_refuse_odd_address)]
    headers: Annotated[dict[HeaderName, SecretHeader], Field(max_length=100)] = Field(
        default_factory=dict, description=_SECRET_VALUES
    )


McpServer = Annotated[StdioServer | HttpServer, Field(discriminator="type")]
ServerName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,29}$")]


class ClientSettings(AgentDefaults):
    """What a client's runs take where their job says nothing."""

    mcp_servers: Annotated[dict[ServerName, McpServer], Field(max_length=20)] = Field(default_factory=dict)
    anthropic_api_key: Literal["(set)"] | None = Field(
        None, description=f"`{SET}` where a key is stored; to be read only: what a request says here changes nothing"
    )
