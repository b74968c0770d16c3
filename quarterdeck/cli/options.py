"""The options and arguments that several commands share, and the client that they make."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.alias_generators import to_camel

from quarterdeck.address import resolve
from quarterdeck.client import Client
from services.contracts.words import Effort, PermissionMode

PATIENCE = timedelta(seconds=4)
"""A person waits at the terminal: a restart of the gateway is outwaited, a stack that is down is soon said."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir", help="The local stack's data folder; default: $QUARTERDECK_DATA_DIR, else the user's own."
    ),
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id or a unique start of it.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id or a unique start of it.")]


Model = Annotated[str | None, typer.Option(help="The model to use.")]
MaxTokens = Annotated[int | None, typer.Option(help="Most tokens of one reply.")]
Temperature = Annotated[float | None, typer.Option(help="0 to 1, for models that take one.")]
EffortOption = Annotated[Effort | None, typer.Option("--effort", help="How much the model is to think.")]
MaxTurns = Annotated[int | None, typer.Option(help="Most model requests a run.")]
BudgetUsd = Annotated[float | None, typer.Option(help="Most US dollars that a run may cost.")]
BaseUrl = Annotated[str | None, typer.Option(help="Address of the model service, of those that the server allows.")]
SystemPrompt = Annotated[
    Path | None, typer.Option("--system-prompt-file", help="Instructions added to the agent's own are read from here.")
]
Mode = Annotated[
    PermissionMode | None, typer.Option("--permission-mode", help="Whether files may be changed, and commands run.")
]
AllowCommand = Annotated[
    list[str] | None,
    typer.Option(help="A command that the agent may run, or its beginning followed by ` *`; may be repeated."),
]
Network = Annotated[
    bool | None, typer.Option("--network/--no-network", help="Whether commands may use the network; default: no.")
]


def given(**options: object) -> dict[str, Any]:
    """Those of the options that were given, by the API's names and as JSON has them."""
    return {to_camel(name): value for name, value in options.items() if value is not None}


def budget(usd: float | None) -> dict[str, float] | None:
    return {"usd": usd} if usd is not None else None


def read_text(path: Path | None) -> str | None:
    """Raises a usage error where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8") if path is not None else None
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from error


def is_alone(context: typer.Context, *, as_json: bool, data_dir: Path | None) -> bool:
    """Whether a group of commands was called by its own name, which shows; the options are the subcommand's else."""
    if context.invoked_subcommand is None:
        return True
    if as_json or data_dir is not None:
        raise typer.BadParameter(f"--json and --data-dir belong behind `{context.invoked_subcommand}`")
    return False


def connected(data_dir: Path | None) -> Client:
    """A client of the gateway that the options and the environment mean. Raises NotConfiguredError."""
    endpoint = resolve(None, None, data_dir=data_dir)
    return Client(endpoint.address, endpoint.api_key, patience=PATIENCE)
