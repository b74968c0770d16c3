"""The options and arguments that several commands share, and the client that they make."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from quarterdeck.address import resolve
from quarterdeck.client import Client

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


def connected(data_dir: Path | None) -> Client:
    """A client of the gateway that the options and the environment mean. Raises NotConfiguredError."""
    endpoint = resolve(None, None, data_dir=data_dir)
    return Client(endpoint.address, endpoint.api_key, patience=PATIENCE)
