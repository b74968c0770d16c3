"""The options of `submit` about what becomes of a change: how it is published, and what its pull request says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from quarterdeck.cli.options import given, read_text
from services.contracts.words import OnExisting, Publish

PublishOption = Annotated[
    Publish | None,
    typer.Option("--publish", help="What becomes of a change; `branch`: pushed only, `none`: stored only."),
]
NoPublish = Annotated[bool, typer.Option("--no-publish", help="The same as --publish none.")]
OnExistingOption = Annotated[
    OnExisting | None,
    typer.Option("--on-existing", help="Where a change of an earlier job of the same name is open."),
]
Label = Annotated[list[str] | None, typer.Option(help="A label of the pull request; may be repeated.")]
Reviewer = Annotated[list[str] | None, typer.Option(help="Who is to review it; may be repeated.")]
Assignee = Annotated[list[str] | None, typer.Option(help="Who is in charge of it; may be repeated.")]
Title = Annotated[str | None, typer.Option(help="Of the pull request; may have {name}, {repository} and such in it.")]
BodyFile = Annotated[
    Path | None, typer.Option("--body-file", help="What the pull request says, in Markdown; may have {summary} in it.")
]
SignOff = Annotated[bool, typer.Option("--sign-off", help="Add the author's `Signed-off-by:` to the commit message.")]


def publish_of(publish: Publish | None, *, no_publish: bool) -> Publish | None:
    """The one that both options mean. Raises a usage error where they contradict each other."""
    if no_publish and publish not in (None, Publish.NONE):
        raise typer.BadParameter(f"--no-publish and --publish {publish} contradict each other")
    return Publish.NONE if no_publish else publish


def pull_request(
    *,
    title: str | None,
    body_file: Path | None,
    labels: list[str] | None,
    reviewers: list[str] | None,
    assignees: list[str] | None,
) -> dict[str, Any] | None:
    """By the API's names; None where nothing was given. Raises a usage error for a file that cannot be read."""
    people = {"reviewers": reviewers or None, "assignees": assignees or None}
    return given(title=title, body=read_text(body_file), labels=labels or None, **people) or None
