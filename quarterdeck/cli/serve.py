"""`quarterdeck serve --dialect NAME` and `codebot serve`: the local stack with a published API on its own port."""

from __future__ import annotations

import asyncio
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, assert_never

import typer

from quarterdeck import stack as local_stack
from quarterdeck.cli.console import print_note
from quarterdeck.cli.options import DataDir
from quarterdeck.stack.errors import StackStartError
from quarterdeck.stack.info import StackInfo
from quarterdeck.stack.options import MAX_CAPACITY, MAX_PORT, StackOptions, default_data_dir
from quarterdeck.stack.ports import is_free

KEYS_VARIABLE = "CODEBOT_API_KEYS"
WORKERS_VARIABLE = "CODEBOT_MAX_WORKERS"
PORT_VARIABLE = "QUARTERDECK_CODEBOT_PORT"
LOG_LEVEL_VARIABLE = "QUARTERDECK_LOG_LEVEL"
_ENDPOINTS = ("/api/tasks/submit", "/api/tasks/{task_id}/status", "/api/tasks")
_LOCAL_HOSTS = ("127.0.0.1", "0.0.0.0", "::", "::1", "")  # noqa: S104 (compared, not bound)


class Dialect(StrEnum):
    CODEBOT = "codebot"


Port = Annotated[int, typer.Option(envvar="PORT", min=1, max=MAX_PORT, help="The API's port.")]
Workers = Annotated[
    int | None,
    typer.Option(envvar=WORKERS_VARIABLE, min=1, max=MAX_CAPACITY, help="Tasks at once; default: 1, or as limited."),
]
Host = Annotated[str, typer.Option(help="Where the API and the gateway listen.")]
Debug = Annotated[bool, typer.Option("--debug", help="Log more.")]
WorkDir = Annotated[
    Path | None,
    typer.Option("--work-dir", help="Base directory for workspaces: the local stack's data folder."),
]


def serve(
    *,
    dialect: Annotated[Dialect, typer.Option(help="Which published API.")],
    port: Port = 5000,
    workers: Workers = None,
    data_dir: DataDir = None,
    host: Host = StackOptions.host,
    debug: Debug = False,
) -> None:
    """Start the whole stack with a published API on a port of its own; Ctrl-C stops it."""
    match dialect:
        case Dialect.CODEBOT:
            serve_codebot(port=port, workers=workers, work_dir=data_dir, host=host, debug=debug)
        case _:
            assert_never(dialect)


def serve_codebot(
    *,
    port: Port = 5000,
    workers: Workers = None,
    work_dir: WorkDir = None,
    host: Host = StackOptions.host,
    debug: Debug = False,
) -> None:
    """Serve the Codebot HTTP API; Ctrl-C stops it."""
    keys = [key for key in os.environ.get(KEYS_VARIABLE, "").split(",") if key.strip()]
    if not keys:
        raise StackStartError(f"{KEYS_VARIABLE} is not set: give one or more API keys, separated by commas")
    if not is_free(host, port):
        raise StackStartError(f"cannot listen on {host}:{port}: another program does; choose another --port")
    os.environ.update(_told(port, workers, debug=debug))
    print(f"HTTP API enabled with {len(keys)} API key(s)\nStarting server on port {port}...", flush=True)
    asyncio.run(
        local_stack.run_foreground(
            _options(work_dir, host, workers),
            on_ready=lambda info: _print_endpoints(info, host, port),
            on_notice=lambda notice: print_note(str(notice)),
            on_progress=print_note,
        )
    )


def _told(port: int, workers: int | None, *, debug: bool) -> dict[str, str]:
    """What the stack's processes are to find in the environment."""
    told = {PORT_VARIABLE: str(port)}
    if workers is not None:
        told[WORKERS_VARIABLE] = str(workers)
    return told | ({LOG_LEVEL_VARIABLE: "debug"} if debug else {})


def _options(work_dir: Path | None, host: str, workers: int | None) -> StackOptions:
    capacity = max(StackOptions.agent_capacity, workers or 1)
    return StackOptions(data_dir=work_dir or default_data_dir(), host=host, agent_capacity=capacity)


def _print_endpoints(info: StackInfo, host: str, port: int) -> None:
    origin = f"http://{'localhost' if host in _LOCAL_HOSTS else host}:{port}"
    first, *others = (f"{origin}{path}" for path in _ENDPOINTS)
    lead = "API endpoints: "
    print("\n".join([f"{lead}{first}", *(" " * len(lead) + each for each in others)]), flush=True)
    print_note(f"The gateway is at {info.address}. Ctrl-C stops all of it; the next start goes on where it was.")


def codebot_main() -> None:
    """The command `codebot`, with `serve` alone."""
    from quarterdeck.cli.app import ReportingGroup  # noqa: PLC0415 (which has this module's command, too)

    app = typer.Typer(
        cls=ReportingGroup, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__
    )
    app.callback()(lambda: None)
    app.command("serve")(serve_codebot)
    app(prog_name="codebot")
