"""The commands put together, and the one place where an error becomes a line on stderr and an exit code."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from quarterdeck.cli import (
    budgets,
    changesets,
    clients,
    control,
    export,
    jobs,
    limits,
    repositories,
    runs,
    serve,
    settings,
    stack,
    submitting,
    watching,
)
from quarterdeck.cli.console import print_error
from quarterdeck.errors import QuarterdeckError, UnavailableError
from quarterdeck.stack.errors import StackError


class ReportingGroup(TyperGroup):
    """Says in one line what went wrong; a traceback is for our own mistakes alone."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UnavailableError as error:
            print_error(f"{error}\n`quarterdeck status` tells how the local stack is, `quarterdeck up` starts it.")
        except (QuarterdeckError, StackError) as error:
            print_error(str(error))
        raise typer.Exit(1)


app = typer.Typer(
    cls=ReportingGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Run fleets of Claude coding agents over Git repositories.",
)
app.command()(stack.up)
app.command()(stack.status)
app.command()(stack.down)
app.command()(serve.serve)
app.command()(submitting.submit)
app.command("jobs")(jobs.list_jobs)
app.command()(jobs.show)
app.command()(watching.watch)
app.command()(jobs.cancel)
app.command()(control.retry)
app.command()(control.say)
app.command()(control.complete)
app.add_typer(changesets.app, name="changesets")
app.add_typer(repositories.app, name="repos")
app.add_typer(clients.app, name="clients")
app.add_typer(limits.app, name="limits")
app.add_typer(budgets.app, name="budgets")
app.command()(budgets.usage)
app.add_typer(settings.app, name="settings")
app.add_typer(export.app, name="export")
app.command()(runs.diff)
app.command()(runs.transcript)
app.command()(runs.logs)
