"""`quarterdeck serve --dialect NAME` and `codebot serve`: the local stack with a published API on its own port."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from quarterdeck import stack as local_stack
from quarterdeck.cli.console import print_note
from quarterdeck.cli.env_file import ENV_FILE, take_env_file
from quarterdeck.cli.options import DataDir
from quarterdeck.cli.published import APIS, WORKERS_VARIABLE, Dialect, PublishedApi, printed_endpoints
from quarterdeck.stack.errors import StackStartError
from quarterdeck.stack.info import StackInfo
from quarterdeck.stack.options import MAX_CAPACITY, MAX_PORT, DataFolder, StackOptions, default_data_dir
from quarterdeck.stack.ports import is_free

LOG_LEVEL_VARIABLE = "QUARTERDECK_LOG_LEVEL"
_LOCAL_HOSTS = ("127.0.0.1", "0.0.0.0", "::", "::1", "")  # noqa: S104 (compared, not bound)

Port = Annotated[int | None, typer.Option(envvar="PORT", min=1, max=MAX_PORT, help="The API's port; default: its own.")]
_WORKERS_HELP = "How much is worked on at once; default: as the API's own variable says, or as limited."
Workers = Annotated[int | None, typer.Option(min=1, max=MAX_CAPACITY, help=_WORKERS_HELP)]
CodebotPort = Annotated[int, typer.Option(envvar="PORT", min=1, max=MAX_PORT, help="The API's port.")]
CodebotWorkers = Annotated[
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
    port: Port = None,
    workers: Workers = None,
    data_dir: DataDir = None,
    host: Host = StackOptions.host,
    debug: Debug = False,
) -> None:
    """Start the whole stack with a published API on a port of its own; Ctrl-C stops it."""
    api = APIS[dialect]
    workers = _told_workers(api) if workers is None else workers
    _serve(api, port=api.port if port is None else port, workers=workers, data_dir=data_dir, host=host, debug=debug)


def serve_codebot(
    *,
    port: CodebotPort = APIS[Dialect.CODEBOT].port,
    workers: CodebotWorkers = None,
    work_dir: WorkDir = None,
    host: Host = StackOptions.host,
    debug: Debug = False,
) -> None:
    """Serve the Codebot HTTP API; Ctrl-C stops it."""
    _serve(APIS[Dialect.CODEBOT], port=port, workers=workers, data_dir=work_dir, host=host, debug=debug)


def _serve(api: PublishedApi, *, port: int, workers: int | None, data_dir: Path | None, host: str, debug: bool) -> None:
    lead = api.lead(host)
    if not is_free(host, port):
        raise StackStartError(f"cannot listen on {host}:{port}: another program does; choose another --port")
    if unused := api.unused_variables():
        print_note(f"Set, but not used here: {', '.join(unused)}")
    options = _options(data_dir, host, workers)
    os.environ.update(_told(api, port, workers, options, debug=debug))
    print(f"{lead}\nStarting server on port {port}...", flush=True)
    asyncio.run(
        local_stack.run_foreground(
            options,
            on_ready=lambda info: _print_endpoints(api, info, host, port),
            on_notice=lambda notice: print_note(str(notice)),
            on_progress=print_note,
        )
    )


def _told_workers(api: PublishedApi) -> int | None:
    """What the API's own variable says, which the gateway reads too: the agents must have room for as many."""
    told = os.environ.get(api.workers_variable or "", "").strip()
    if not told:
        return None
    if not told.isdecimal() or not 1 <= int(told[:9]) <= MAX_CAPACITY:
        raise StackStartError(f"{api.workers_variable} must be a number from 1 to {MAX_CAPACITY}")
    return int(told)


def _told(api: PublishedApi, port: int, workers: int | None, options: StackOptions, *, debug: bool) -> dict[str, str]:
    """What the stack's processes are to find in the environment."""
    told = {api.port_variable: str(port)}
    if api.folders is not None:
        told |= api.folders(DataFolder(options.data_dir).vcs)
    if workers is not None and api.workers_variable is not None:
        told[api.workers_variable] = str(workers)
    return told | ({LOG_LEVEL_VARIABLE: "debug"} if debug else {})


def _options(data_dir: Path | None, host: str, workers: int | None) -> StackOptions:
    capacity = max(StackOptions.agent_capacity, workers or 1)
    return StackOptions(data_dir=data_dir or default_data_dir(), host=host, agent_capacity=capacity)


def _print_endpoints(api: PublishedApi, info: StackInfo, host: str, port: int) -> None:
    origin = f"http://{'localhost' if host in _LOCAL_HOSTS else host}:{port}"
    print("\n".join(printed_endpoints(api, origin)), flush=True)
    print_note(f"The gateway is at {info.address}. Ctrl-C stops all of it; the next start goes on where it was.")


def _take_env_file() -> None:
    if taken := take_env_file(Path.cwd()):
        print_note(f"Taken from {ENV_FILE}: {', '.join(taken)}")


def codebot_main() -> None:
    """The command `codebot`, with `serve` alone."""
    from quarterdeck.cli.app import ReportingGroup  # noqa: PLC0415 (which has this module's command, too)

    app = typer.Typer(
        cls=ReportingGroup, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, help=__doc__
    )
    app.callback()(_take_env_file)  # before the options of the command are read: some are variables, too
    app.command("serve")(serve_codebot)
    app(prog_name="codebot")
