"""The plain tool loop that the SDK is made for: stream, append, answer. Nothing is stored. A process: it takes lists of
prompts on its standard input and leads their conversations, all of a list at once.

It answers with results that it is given; in a folder of files it also uses the tool first, as plainly as can be.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import orjson
from anthropic import AsyncAnthropic
from anthropic.types import MessageParam, ParsedMessage, ToolUseBlock

_KNOWN = ("model", "max_tokens", "system", "tools")
_GIVEN_BY_STREAM = ("stream", "messages")


class Sdk:
    def __init__(self, url: str, request: dict[str, Any], results: dict[str, Any], files: Path | None) -> None:
        """``request``: what every request holds beside its messages. ``results``: of tools, by their calls' ids.

        ``files``: where reading tools are used; None: they are not.
        """
        self._client = AsyncAnthropic(api_key="bench", base_url=url, max_retries=0)
        self._own = {name: request[name] for name in _KNOWN if name in request}
        self._extra = {name: value for name, value in request.items() if name not in (*_KNOWN, *_GIVEN_BY_STREAM)}
        self._results = results
        self._files = files

    async def converse(self, prompt: str) -> list[float]:
        """Lead the conversation until it asks for a result that is not known.

        Epoch seconds when the first delta of each reply was there.
        """
        messages: list[MessageParam] = [{"role": "user", "content": prompt}]
        began = []
        while True:
            reply, first_delta = await self._ask(messages)
            began.append(first_delta)
            calls = [block for block in reply.content if block.type == "tool_use"]
            if not calls or calls[0].id not in self._results:
                return began
            if self._files is not None:
                for call in calls:
                    await _used(call, self._files)
            messages.append({"role": "assistant", "content": reply.content})
            messages.append({"role": "user", "content": [self._results[call.id] for call in calls]})

    async def _ask(
        self, messages: list[MessageParam], began: asyncio.Event | None = None
    ) -> tuple[ParsedMessage[None], float]:
        first_delta = 0.0
        async with self._client.messages.stream(messages=messages, extra_body=self._extra, **self._own) as stream:
            async for event in stream:
                if not first_delta and event.type == "content_block_delta":
                    first_delta = time.time()
                    if began is not None:
                        began.set()
            return await stream.get_final_message(), first_delta

    async def cancel(self, prompt: str) -> float:
        """Begin the conversation and break it off in the midst of its first reply; epoch seconds when."""
        began = asyncio.Event()
        asking = asyncio.create_task(self._ask([{"role": "user", "content": prompt}], began))
        await began.wait()
        asking.cancel()
        at = time.time()
        await asyncio.wait([asking])
        return at

    async def resume(self, prompt: str, history: list[MessageParam]) -> float:
        """Ask once more behind ``history``, with ``prompt`` in the place of its first message; epoch seconds before."""
        began = time.time()
        await self._ask([{"role": "user", "content": prompt}, *history[1:]])
        return began


async def _used(call: ToolUseBlock, files: Path) -> str:
    """What a reading tool comes to, without bounds, checks or care."""
    given: dict[str, Any] = call.input
    match call.name:
        case "read_file":
            return "".join((files / given["path"]).read_text().splitlines(keepends=True)[given["start_line"] - 1 :])
        case "list_files":
            return "\n".join(sorted(each.name for each in (files / given["directory"]).iterdir())[: given["limit"]])
        case "search_code":
            searching = await asyncio.create_subprocess_exec(
                *(Path(sys.executable).with_name("rg"), "--line-number", given["pattern"], "."),
                cwd=files,
                stdout=asyncio.subprocess.PIPE,
            )
            found, _ = await searching.communicate()
            return found.decode()
        case name:
            raise ValueError(f"{name} is no reading tool")


async def serve(sdk: Sdk, history: list[MessageParam]) -> None:
    """A line in: `{"do": …, "prompts": […]}`; a line out: what each came to. `begin`: nothing comes out."""
    begun = []
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        asked = orjson.loads(line)
        prompts, came = asked["prompts"], list[Any]()
        match asked["do"]:
            case "begin":
                begun += [asyncio.create_task(sdk.converse(prompt)) for prompt in prompts]
                continue
            case "converse":
                came = await asyncio.gather(*(sdk.converse(prompt) for prompt in prompts))
            case "cancel":
                came = [await sdk.cancel(prompt) for prompt in prompts]
            case "resume":
                came = [await sdk.resume(prompt, history) for prompt in prompts]
        sys.stdout.buffer.write(orjson.dumps(came) + b"\n")
        sys.stdout.buffer.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="of the model")
    parser.add_argument("--conversation", type=Path, required=True, help="JSON: request, results, history")
    parser.add_argument("--files", type=Path, help="a folder where reading tools are used")
    asked = parser.parse_args()
    given = orjson.loads(asked.conversation.read_bytes())
    asyncio.run(serve(Sdk(asked.url, given["request"], given["results"], asked.files), given["history"]))


if __name__ == "__main__":
    main()
