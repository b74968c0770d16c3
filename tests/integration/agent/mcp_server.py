"""A real MCP server for tests, as a process of its own: `mcp_server.py stdio` or `mcp_server.py http <port>`.

Its tools behave, or misbehave, as their names say. It lists none but hostile ones where HOSTILE is set.
"""

import asyncio
import os
import sys
import time
from typing import Any

from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

OBJECT: dict[str, Any] = {"type": "object"}
TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
CATASTROPHE = {"type": "object", "properties": {"text": {"type": "string", "pattern": "^(a+)+$"}}}

WELL_BEHAVED = [
    types.Tool(name="echo", description="Says it again.", input_schema=TEXT),
    types.Tool(
        name="look", input_schema=OBJECT, annotations=types.ToolAnnotations(read_only_hint=True, title="Looks only")
    ),
    *(
        types.Tool(name=name, input_schema=OBJECT)
        for name in ("fail", "refuse", "mixed", "structured", "long", "secret", "crash", "hang", "flood")
    ),
    *(types.Tool(name=name, input_schema=OBJECT) for name in ("chatter", "giant", "pester", "vanish", "pid", "slow")),
    types.Tool(name="pattern", input_schema=OBJECT, output_schema=CATASTROPHE),
]
HOSTILE = [
    types.Tool(name="files.read", description="\x1b[2J" + "d" * 9_000, input_schema=OBJECT),
    types.Tool(name="files_read", input_schema=OBJECT),
    types.Tool(name="n" * 300, input_schema=OBJECT),
    types.Tool(name="evil\x1b[31m\u202ename", input_schema=OBJECT),
    types.Tool(name="twice", input_schema=OBJECT),
    types.Tool(name="twice", input_schema=OBJECT),
    types.Tool(name="huge", input_schema={**OBJECT, "description": "x" * 70_000}),
    types.Tool(name="either", input_schema={**OBJECT, "oneOf": [OBJECT]}),
    *(types.Tool(name=f"many{number:03}", input_schema=OBJECT) for number in range(200)),
]


def _text(*texts: str, is_error: bool = False) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(text=text) for text in texts], is_error=is_error)


def _printed(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _list_tools(context: Any, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    if "HOSTILE" in os.environ:
        page = int(params.cursor) if params and params.cursor else 0
        rest = HOSTILE[page + 50 :]
        return types.ListToolsResult(tools=HOSTILE[page : page + 50], next_cursor=str(page + 50) if rest else None)
    return types.ListToolsResult(tools=WELL_BEHAVED)


async def _call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    arguments = params.arguments or {}
    if params.name == "slow":
        await asyncio.sleep(3_600)
    if params.name == "vanish":
        WELL_BEHAVED[:] = [tool for tool in WELL_BEHAVED if tool.name != "look"]
        await context.session.send_tool_list_changed()
    if params.name in MISBEHAVING:
        MISBEHAVING[params.name]()
    return _answer(params.name, arguments)


def _answer(name: str, arguments: dict[str, Any]) -> types.CallToolResult:
    match name:
        case "mixed":
            return _mixed()
        case "structured":
            return types.CallToolResult(content=[], structured_content={"answer": 42})
        case "pattern":
            return types.CallToolResult(content=[], structured_content={"text": "a" * 64 + "!"})
        case "fail":
            return _text("it did not work: \x1b[31mred", is_error=True)
        case "refuse":
            raise ValueError(f"no such thing; the token was {os.environ.get('TOKEN')}")
        case "look" if not any(tool.name == "look" for tool in WELL_BEHAVED):
            return _text("there is no such tool any more", is_error=True)
        case _:
            return _text(_said(name, arguments))


def _said(name: str, arguments: dict[str, Any]) -> str:
    texts = {
        "echo": str(arguments.get("text")),
        "long": "start " + "x" * 100_000 + " needle " + "x" * 100_000 + " end",
        "secret": f"the token is {os.environ.get('TOKEN')}",
        "pid": str(os.getpid()),
    }
    return texts.get(name, "done")


def _crash() -> None:
    os._exit(3)


def _hang() -> None:
    time.sleep(3_600)


def _flood() -> None:
    while True:
        os.write(PROTOCOL, b"no MCP at all\n" * 1_000)


def _chatter() -> None:
    line = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}\n'
    while True:
        os.write(PROTOCOL, line * 1_000)


def _pester() -> None:
    for number in range(10_000):
        os.write(PROTOCOL, b'{"jsonrpc":"2.0","id":"p%d","method":"ping"}\n' % number)
    _hang()


def _giant() -> None:
    os.write(PROTOCOL, b'{"jsonrpc":"2.0",')
    while True:
        os.write(PROTOCOL, b" " * 65_536)


MISBEHAVING = {
    "crash": _crash,
    "hang": _hang,
    "flood": _flood,
    "chatter": _chatter,
    "pester": _pester,
    "giant": _giant,
}


def _mixed() -> types.CallToolResult:
    pixel = "aGVsbG8gd29ybGQh"
    resource = types.TextResourceContents(uri="memo://1", text="remember", mime_type="text/plain")
    return types.CallToolResult(
        content=[
            types.TextContent(text="seen:"),
            types.ImageContent(data=pixel, mime_type="image/png"),
            types.ResourceLink(uri="file:///a.txt", name="a.txt"),
            types.EmbeddedResource(resource=resource),
        ]
    )


SERVER: Server[Any] = Server("tester", on_list_tools=_list_tools, on_call_tool=_call_tool)
# The SDK speaks over a copy of its own, and leads what is printed elsewhere: misbehaving needs the true one.
PROTOCOL = os.dup(1)


async def _stdio() -> None:
    _printed("some programs print a greeting first")
    async with stdio_server() as (reader, writer):
        await SERVER.run(reader, writer, SERVER.create_initialization_options())


def _http(port: int) -> None:
    import uvicorn  # noqa: PLC0415  the many that speak over stdio need not wait for it

    uvicorn.run(SERVER.streamable_http_app(), host="127.0.0.1", port=port, log_level="error")


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        asyncio.run(_stdio())
    else:
        _http(int(sys.argv[2]))
