"""The commands about the stack on this machine: up, status, down.

What starts and stops it is loaded when it is needed: database drivers would slow every other command down.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quarterdeck import stack as local_stack
from quarterdeck.cli.console import console, fields, print_json, print_note, table, text
from quarterdeck.cli.options import AsJson, DataDir
from quarterdeck.stack.info import StackInfo
from quarterdeck.stack.options import StackOptions, default_data_dir

if TYPE_CHECKING:
    from quarterdeck.stack import StackStatus

OFFLINE_NOTE = "offline model: it carries out search-and-replace prompts only; set ANTHROPIC_API_KEY for a real one"


def up(
    *,
    data_dir: DataDir = None,
    port: Annotated[int | None, typer.Option(help="The gateway's port; default: a free one.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="Serve gRPC on this port, too; default: not.")] = None,
    host: Annotated[str, typer.Option(help="Where the gateway listens.")] = StackOptions.host,
    agents: Annotated[int, typer.Option(help="How many agent processes.")] = StackOptions.agents,
    capacity: Annotated[int, typer.Option(help="How many runs each agent takes at once.")] = (
        StackOptions.agent_capacity
    ),
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once it is up; it goes on.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start the whole stack on this machine; Ctrl-C stops it."""
    options = StackOptions(
        data_dir=_folder(data_dir),
        port=port,
        grpc_port=grpc_port,
        host=host,
        agents=agents,
        agent_capacity=capacity,
    )
    if detach:
        print_info(asyncio.run(local_stack.start_detached(options)), as_json=as_json)
        print_note("It runs in the background; stop it with `quarterdeck down`.")
        return
    asyncio.run(
        local_stack.run_foreground(
            options,
            on_ready=lambda info: _print_ready(info, as_json=as_json),
            on_notice=lambda notice: print_note(str(notice)),
            on_progress=print_note,
        )
    )


def _print_ready(info: StackInfo, *, as_json: bool) -> None:
    print_info(info, as_json=as_json)
    print_note("Ctrl-C stops it; the next `quarterdeck up` goes on where it was.")


def print_info(info: StackInfo, *, as_json: bool = False) -> None:
    """Where everything of a running stack is."""
    if as_json:
        print_json(asdict(info))
    else:
        console().print(fields(_about(info)))


def _about(info: StackInfo) -> dict[str, object]:
    return {
        "gateway": text(info.address, "bold"),
        "gRPC": info.grpc_address,
        "API key": info.api_key,
        "model": text(f"{info.model} ({OFFLINE_NOTE})", "yellow")
        if info.offline_model
        else info.model or "the default",
        "database": _without_password(info.database_url),
        "NATS": _without_password(info.nats_url),
        **({"NATS, read-only": info.subscriber_nats_url} if info.subscriber_nats_url else {}),
        "vcs": info.vcs_address,
        "data folder": info.data_dir,
        "processes": ", ".join(f"{name} ({pid})" for name, pid in info.processes.items()),
        "version": info.version,
    }


def status(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Tell whether the stack runs and how its processes are; the exit code is 0 where all are well."""
    folder = _folder(data_dir)
    found = asyncio.run(local_stack.read_status(folder))
    if as_json:
        print_json({**asdict(found), "healthy": found.healthy})
    elif not found.running:
        print_note(f"No stack runs on {folder}; start one with `quarterdeck up`.")
    else:
        _print_status(found)
    if not found.healthy:
        raise typer.Exit(1)


def _print_status(found: StackStatus) -> None:
    out = console()
    if found.info:
        out.print(fields(_about(found.info)))
    else:
        out.print("The stack is starting or stopping.")
    made = table("process", "pid", "state", "restarts", "problem")
    for process in found.processes:
        style = "green" if process.problem is None else "red"
        made.add_row(
            text(process.name),
            text(process.pid),
            text(process.state, style),
            text(process.restarts),
            text(process.problem),
        )
    out.print(made)


def down(*, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Stop the stack that runs on the data folder."""
    folder = _folder(data_dir)
    asyncio.run(local_stack.stop_detached(folder))
    if as_json:
        print_json({"stopped": True, "dataDir": str(folder)})
    else:
        print_note(f"The stack on {folder} is stopped.")


def _folder(data_dir: Path | None) -> Path:
    return (data_dir or default_data_dir()).expanduser().absolute()


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    _, at, host = rest.rpartition("@")
    return f"{scheme}://{'…@' if at else ''}{host or rest}"
