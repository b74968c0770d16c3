"""Asks Claude for one reply, streaming; retries whole requests and throws partial replies away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anthropic
import httpx2

from services.agent.model.capabilities import capabilities
from services.agent.model.reply import Assembly, Fragment, Reply
from services.agent.model.retry import Patience, retrying

# No byte for so long: the stream is dead, whatever the connection says.
_SILENCE_SECONDS = 120.0
_CONNECT_SECONDS = 10.0
_EPHEMERAL = {"type": "ephemeral"}


class Claude:
    """One per process: its connections are shared by all runs."""

    def __init__(
        self, *, api_key: str, base_url: str | None, model: str, max_tokens: int, patience: Patience | None = None
    ) -> None:
        self.default_model = model
        self._max_tokens = max_tokens
        self._patience = patience or Patience()
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=httpx2.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
        )

    async def close(self) -> None:
        await self._client.close()

    async def reply(
        self,
        *,
        model: str,
        system: str,
        tools: Sequence[dict[str, Any]],
        messages: Sequence[dict[str, Any]],
        on_fragment: Callable[[Fragment], None],
        on_reset: Callable[[str], Awaitable[None]],
    ) -> Reply:
        """The model's next message after ``messages``.

        ``on_fragment`` gets the pieces as they come, ``on_reset`` the reason where those so far are void.
        Raises as ``retrying`` does; when cancelled the stream is closed at once.
        """
        request = self._request(model, system, tools, messages)

        async def once() -> Reply:
            assembly = Assembly(on_fragment)
            async with await self._client.messages.create(**request, stream=True) as stream:
                async for event in stream:
                    assembly.feed(event)
            return assembly.reply()

        return await retrying(once, patience=self._patience, on_retry=on_reset)

    def _request(
        self, model: str, system: str, tools: Sequence[dict[str, Any]], messages: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        able = capabilities(model)
        request: dict[str, Any] = {
            "model": model,
            "max_tokens": min(self._max_tokens, able.max_tokens),
            # One breakpoint behind what never changes, and the service's own moving one behind the newest message.
            "system": [{"type": "text", "text": system, "cache_control": _EPHEMERAL}],
            "cache_control": _EPHEMERAL,
            "tools": list(tools),
            "messages": list(messages),
        }
        if able.adaptive_thinking:
            request["thinking"] = {"type": "adaptive", "display": "summarized"}
        return request
