"""`python -m tests.integration.faults.devouring_agent`: an answering agent that answers nothing. A run with the prompt
`devour` takes memory until there is none left, every other one waits for ever.
"""

from __future__ import annotations

import asyncio
from unittest.mock import patch

from services.runtime import lifecycle
from tests.integration.faults import answering_agent

DEVOUR = "devour"
MOUTHFUL_BYTES = 4 * 1024**2


class Devourer(answering_agent.Answer):
    async def work(self) -> None:
        if self.run.prompt != DEVOUR:
            await asyncio.Event().wait()
        eaten: list[bytes] = []
        while True:
            eaten.append(b"\x01" * MOUTHFUL_BYTES)  # pages of zeroes alone would take no memory
            await asyncio.sleep(0)


if __name__ == "__main__":
    with patch.object(answering_agent, "Answer", Devourer):
        lifecycle.run(answering_agent.serve)
