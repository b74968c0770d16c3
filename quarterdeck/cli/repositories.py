"""The commands `repos …`: the repositories one keeps, where they are mirrored, and what the forge has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.filesize import decimal

from quarterdeck.cli.console import console, fields, local_time, print_json, print_note, print_text, table, text
from quarterdeck.cli.ids import repository_id
from quarterdeck.cli.options import AsJson, DataDir, connected
from quarterdeck.cli.prompts import repository_url
from services.contracts.repositories import (
    DEFAULT_FOUND,
    MAX_FOUND,
    ForgeRepository,
    Imported,
    Mirror,
    Repository,
    RepositoryStatus,
    Sync,
    SyncState,
)

RepositoryArgument = Annotated[str, typer.Argument(metavar="REPOSITORY", help="The repository's name or id.")]
Owner = Annotated[str | None, typer.Option(help="Of this user or organisation.")]
Match = Annotated[list[str] | None, typer.Option(help="A shell pattern over owner/name; may be repeated.")]
Topic = Annotated[list[str] | None, typer.Option(help="With this topic; may be repeated.")]
Search = Annotated[str | None, typer.Option("--search", "-q", help="In the forge's own search language.")]
Archived = Annotated[bool, typer.Option("--archived", help="Archived ones too.")]
Forks = Annotated[bool, typer.Option("--forks", help="Forks too.")]
FoundLimit = Annotated[int, typer.Option("--limit", min=1, max=MAX_FOUND, help="How many at most.")]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Keep, find and mirror repositories.")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What it is to be called.")],
    url: Annotated[str, typer.Argument(help="A Git URL without credentials, or a local folder.")],
    *,
    base: Annotated[str | None, typer.Option(help="Branch, tag or commit where work starts.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is.")] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Keep a repository under a name."""
    address = repository_url(url)

    async def keep() -> Repository:
        async with connected(data_dir) as client:
            return await client.add_repository(name, address, base_ref=base, description=description)

    made = asyncio.run(keep())
    if as_json:
        print_json(made)
    else:
        print_text(str(made.id))
        print_note(f"Mirror it on every node with: quarterdeck repos clone {made.name}")


@app.command("list")
def list_repositories(
    *,
    name: Annotated[str | None, typer.Option(help="Only this one; `*` stands for anything.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List the repositories that you keep, by name."""

    async def read() -> list[Repository]:
        async with connected(data_dir) as client:
            return [each async for each in client.repositories(name=name, limit=limit)]

    found = asyncio.run(read())
    if as_json:
        print_json(found)
    else:
        _print_repositories(found)


@app.command()
def show(repository: RepositoryArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show a repository, and what each vcs node says of its mirror."""

    async def read() -> RepositoryStatus:
        async with connected(data_dir) as client:
            return await client.repository(await repository_id(client, repository))

    found = asyncio.run(read())
    if as_json:
        print_json(found)
        return
    console().print(fields(_about(found)))
    if found.mirrors:
        _print_mirrors(found.mirrors)
    elif found.mirrors_error:
        print_note(f"Nothing is known of its mirrors: {found.mirrors_error}")


@app.command()
def remove(repository: RepositoryArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Forget a repository; its jobs, changesets and mirrors stay."""

    async def forget() -> Repository:
        async with connected(data_dir) as client:
            return await client.remove_repository(await repository_id(client, repository))

    was = asyncio.run(forget())
    if as_json:
        print_json(was)
    else:
        print_text(f"{was.name} is not kept any more.")


@app.command()
def sync(repository: RepositoryArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Bring the mirrors of a repository up to date. Exits with 1 where a node failed."""

    async def ask() -> Sync:
        async with connected(data_dir) as client:
            return await client.sync_repository(await repository_id(client, repository))

    _print_sync(asyncio.run(ask()), as_json=as_json)


@app.command()
def clone(repository: RepositoryArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Mirror a repository on every vcs node. Exits with 1 where a node failed."""

    async def ask() -> Sync:
        async with connected(data_dir) as client:
            return await client.clone_repository(await repository_id(client, repository))

    _print_sync(asyncio.run(ask()), as_json=as_json)


@app.command()
def discover(
    *,
    owner: Owner = None,
    match: Match = None,
    topic: Topic = None,
    search: Search = None,
    archived: Archived = False,
    forks: Forks = False,
    limit: FoundLimit = DEFAULT_FOUND,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Look for repositories on the forge, among those that the server may see."""

    async def look() -> list[ForgeRepository]:
        async with connected(data_dir) as client:
            return await client.discover_repositories(
                owner=owner,
                match=match or (),
                topic=topic or (),
                search=search,
                archived=archived,
                forks=forks,
                limit=limit,
            )

    found = asyncio.run(look())
    if as_json:
        print_json(found)
        return
    made = table("repository", "branch", "language", "size", "description")
    for each in found:
        cells = (each.full_name, each.default_branch, each.language, decimal(each.size_kb * 1_000), each.description)
        made.add_row(*(text(cell) for cell in cells))
    console().print(made if found else "No repositories.")


@app.command("import")
def take_over(
    names: Annotated[list[str] | None, typer.Argument(metavar="[OWNER/NAME]...", help="Which ones.")] = None,
    *,
    owner: Owner = None,
    match: Match = None,
    topic: Topic = None,
    search: Search = None,
    archived: Archived = False,
    forks: Forks = False,
    limit: FoundLimit = DEFAULT_FOUND,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Keep repositories of the forge under their own names: those named, or what `repos discover` would find.

    Exits with 1 where one that was named is not there.
    """

    async def ask() -> Imported:
        async with connected(data_dir) as client:
            return await client.import_repositories(
                names or (),
                owner=owner,
                match=match or (),
                topic=topic or (),
                search=search,
                archived=archived,
                forks=forks,
                limit=limit,
            )

    _print_imported(asyncio.run(ask()), as_json=as_json)


def _print_repositories(found: Sequence[Repository]) -> None:
    made = table("repository", "name", "url", "base", "description")
    for each in found:
        made.add_row(*(text(cell) for cell in (each.id, each.name, each.url, each.base_ref, each.description)))
    console().print(made if found else "No repositories.")


def _about(repository: Repository) -> dict[str, object]:
    return {
        "repository": repository.id,
        "name": repository.name,
        "url": repository.url,
        "base": repository.base_ref,
        "description": repository.description,
        "created": local_time(repository.created_at),
        "changed": local_time(repository.updated_at),
    }


def _print_mirrors(mirrors: Sequence[Mirror]) -> None:
    made = table("node", "mirror", "size", "used", "fetched", "worktrees", "rescued", "error")
    for each in mirrors:
        times = (local_time(each.used_at), local_time(each.fetched_at))
        cells = (each.node, each.state, decimal(each.bytes), *times, each.worktrees, len(each.rescued), each.error)
        made.add_row(*(text(cell) for cell in cells))
    console().print(made)


def _print_sync(found: Sync, *, as_json: bool) -> None:
    states = [each.state for each in found.nodes]
    if as_json:
        print_json(found)
    else:
        made = table("node", "state", "branch", "at", "size", "error")
        for each in found.nodes:
            state = f"{each.state} {each.phase or ''} {each.percent or 0} %" if each.state == "running" else each.state
            size = decimal(each.bytes) if each.bytes is not None else None
            cells = (each.node, state, each.default_branch, each.head_sha, size, each.error)
            made.add_row(*(text(cell) for cell in cells))
        console().print(made)
    if SyncState.RUNNING in states:
        print_note("What is running goes on; the same command again waits for it.")
    if SyncState.FAILED in states:
        raise typer.Exit(1)


def _print_imported(found: Imported, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        _print_repositories(found.imported)
        if found.skipped:
            print_note(f"Kept already: {', '.join(found.skipped)}")
        if found.missing:
            print_note(f"Not on the forge: {', '.join(found.missing)}")
    if found.missing:
        raise typer.Exit(1)
