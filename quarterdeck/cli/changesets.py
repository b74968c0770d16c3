"""The commands `changesets …`: what runs delivered, published later and looked after on its forge."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer
from rich.console import RenderableType

from quarterdeck.cli.console import console, fields, local_time, print_json, print_text, table, text
from quarterdeck.cli.ids import changeset_id
from quarterdeck.cli.options import AsJson, DataDir, connected
from quarterdeck.cli.outcomes import STYLES
from quarterdeck.client import Client
from services.contracts.changesets import PostedComment
from services.contracts.rest import Changeset
from services.contracts.words import ChangesetState, MergeMethod, Publish

ChangesetArgument = Annotated[
    str, typer.Argument(metavar="CHANGESET", help="The changeset's id or a unique start of it.")
]
DeleteBranch = Annotated[bool, typer.Option("--delete-branch", help="Delete its branch too.")]
_STYLES = STYLES | {"open": "green", "merged": "magenta", "stored": "dim", "closed": "yellow", "pushing": "cyan"}

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="See, publish, merge and close what runs delivered."
)


@app.command("list")
def list_changesets(
    *,
    state: Annotated[ChangesetState | None, typer.Option(help="Only those in this state.")] = None,
    repository: Annotated[str | None, typer.Option(help="Only those of this repository.")] = None,
    job: Annotated[str | None, typer.Option(help="Only those of the job with this id.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List changesets, the newest first."""

    async def read() -> list[Changeset]:
        async with connected(data_dir) as client:
            found = client.changesets(state=state, repository=repository, job_id=job, limit=limit)
            return [each async for each in found]

    found = asyncio.run(read())
    if as_json:
        print_json(found)
        return
    made = table("changeset", "state", "checks", "review", "change", "repository", "where")
    for each in found:
        state_cell = text(each.state, _STYLES.get(each.state, ""))
        words = (each.checks, each.review, _change(each), each.repository, each.url or each.branch)
        made.add_row(text(each.id), state_cell, *(text(word) for word in words))
    console().print(made if found else "No changesets.")


@app.command()
def show(changeset: ChangesetArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show a changeset, as the forge had it when it was last asked."""
    _act(changeset, lambda client, found: client.changeset(found), as_json=as_json, data_dir=data_dir)


@app.command()
def refresh(changeset: ChangesetArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Ask the forge now how a changeset is, and show it."""
    _act(changeset, lambda client, found: client.refresh_changeset(found), as_json=as_json, data_dir=data_dir)


@app.command()
def publish(
    changeset: ChangesetArgument,
    *,
    publish: Annotated[
        Publish | None, typer.Option(help="As what; default: as its job asked, else as a pull request.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Publish what was only stored, or could not be published, without running the model again."""
    _act(changeset, lambda client, found: client.publish_changeset(found, publish), as_json=as_json, data_dir=data_dir)


@app.command()
def merge(
    changeset: ChangesetArgument,
    *,
    method: Annotated[MergeMethod, typer.Option(help="How.")] = MergeMethod.MERGE,
    delete_branch: DeleteBranch = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Merge a changeset."""

    async def ask(client: Client, found: UUID) -> Changeset:
        return await client.merge_changeset(found, method=method, delete_branch=delete_branch)

    _act(changeset, ask, as_json=as_json, data_dir=data_dir)


@app.command()
def close(
    changeset: ChangesetArgument,
    *,
    comment: Annotated[str | None, typer.Option(help="Say this there before.")] = None,
    delete_branch: DeleteBranch = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Close a changeset without merging it."""

    async def ask(client: Client, found: UUID) -> Changeset:
        return await client.close_changeset(found, comment=comment, delete_branch=delete_branch)

    _act(changeset, ask, as_json=as_json, data_dir=data_dir)


@app.command()
def reopen(changeset: ChangesetArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Open a closed changeset again."""
    _act(changeset, lambda client, found: client.reopen_changeset(found), as_json=as_json, data_dir=data_dir)


@app.command()
def comment(
    changeset: ChangesetArgument,
    words: Annotated[str, typer.Argument(metavar="TEXT", help="What to say, in Markdown.")],
    *,
    in_reply_to: Annotated[
        str | None, typer.Option(help="The forge's id of a review comment, to answer in its thread.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Comment on a changeset's pull request; prints where the comment is."""

    async def ask() -> PostedComment:
        async with connected(data_dir) as client:
            found = await changeset_id(client, changeset)
            return await client.comment_changeset(found, words, in_reply_to=in_reply_to)

    posted = asyncio.run(ask())
    if as_json:
        print_json(posted)
    else:
        print_text(posted.url or posted.id)


def _act(
    typed: str, ask: Callable[[Client, UUID], Awaitable[Changeset]], *, as_json: bool, data_dir: Path | None
) -> None:
    """Find the changeset meant, do what ``ask`` does, and show how the changeset is then."""

    async def run() -> Changeset:
        async with connected(data_dir) as client:
            return await ask(client, await changeset_id(client, typed))

    changeset = asyncio.run(run())
    if as_json:
        print_json(changeset)
    else:
        console().print(changeset_view(changeset))


def changeset_view(changeset: Changeset) -> RenderableType:
    """All there is to say about a changeset, but for its files."""
    asked = changeset.observed_at is not None
    return fields(
        {
            "changeset": changeset.id,
            "state": text(changeset.state, _STYLES.get(changeset.state, "")),
            "publish": changeset.publish,
            "job": changeset.job_id,
            "run": changeset.run_id,
            "repository": changeset.repository,
            "branch": changeset.branch,
            "commit": changeset.commit_sha,
            "change": _change(changeset),
            "where": changeset.url,
            "checks": changeset.checks if asked else None,
            "review": changeset.review if asked else None,
            "mergeable": changeset.mergeable if asked else None,
            "merged as": changeset.merge_sha,
            "replaced by": changeset.superseded_by,
            "asked": local_time(changeset.observed_at),
            "created": local_time(changeset.created_at),
            "published": local_time(changeset.published_at),
            "closed": local_time(changeset.closed_at),
            "error": text(changeset.error, "red") if changeset.error else None,
        }
    )


def _change(changeset: Changeset) -> str:
    count = len(changeset.files)
    return f"{count} file{'' if count == 1 else 's'}, +{changeset.insertions} -{changeset.deletions}"
