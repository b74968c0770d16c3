"""The agent's settings; those of the model keep the names that its own tools use."""

from __future__ import annotations

from typing import Annotated

from pydantic import AliasChoices, Field, SecretStr

from services.runtime.settings import Address, ServiceSettings

DEFAULT_MODEL = "claude-sonnet-5-5"


class AgentSettings(ServiceSettings):
    agent_name: str = "agent"
    agent_capacity: Annotated[int, Field(ge=1, le=1_000)] = 8
    """Runs at once in this process."""
    vcs_address: Address = "127.0.0.1:8091"
    vcs_token: SecretStr
    author_name: Annotated[str, Field(min_length=1)] = "Quarterdeck"
    author_email: Annotated[str, Field(min_length=1)] = "quarterdeck@users.noreply.invalid"
    anthropic_api_key: Annotated[
        SecretStr, Field(validation_alias=AliasChoices("ANTHROPIC_API_KEY", "CLAUDE_API_KEY"), min_length=1)
    ]
    anthropic_base_url: Annotated[str | None, Field(validation_alias="ANTHROPIC_BASE_URL")] = None
    model: Annotated[str, Field(validation_alias="CLAUDE_MODEL", min_length=1)] = DEFAULT_MODEL
    max_tokens: Annotated[int, Field(validation_alias="CLAUDE_MAX_TOKENS", ge=256, le=128_000)] = 64_000
    """Most tokens of one reply."""
