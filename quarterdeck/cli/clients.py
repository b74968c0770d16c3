"""The commands `clients …`: who may use the server, for operators. A key goes to stdout, all else to the reader."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from quarterdeck.cli.console import console, fields, local_time, print_json, print_note, print_text, table, text
from quarterdeck.cli.ids import client_id
from quarterdeck.cli.options import AsJson, DataDir, connected
from services.contracts.clients import Client, ClientWithKey

ClientArgument = Annotated[str, typer.Argument(metavar="CLIENT", help="The client's name or id.")]

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="See and change who may use the server; for operators."
)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What the client is to be called.")],
    *,
    operator: Annotated[bool, typer.Option("--operator", help="It may change what concerns everybody.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Make a client and print its API key, which is shown this once."""

    async def make() -> ClientWithKey:
        async with connected(data_dir) as client:
            return await client.add_client(name, is_operator=operator)

    _print_key(asyncio.run(make()), as_json=as_json)


@app.command("list")
def list_clients(
    *,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """List the clients by name."""

    async def read() -> list[Client]:
        async with connected(data_dir) as client:
            return [each async for each in client.clients(limit=limit)]

    found = asyncio.run(read())
    if as_json:
        print_json(found)
        return
    made = table("client", "name", "operator", "created", "disabled")
    for each in found:
        times = (text(local_time(each.created_at)), text(local_time(each.disabled_at)))
        made.add_row(text(each.id), text(each.name), text("yes" if each.is_operator else None), *times)
    console().print(made)


@app.command()
def show(
    client: Annotated[
        str | None, typer.Argument(metavar="CLIENT", help="Its name or id; default: the one whose key is used.")
    ] = None,
    *,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show a client."""

    async def read() -> Client:
        async with connected(data_dir) as connection:
            if client is None:
                return await connection.me()
            return await connection.client(await client_id(connection, client))

    _print(asyncio.run(read()), as_json=as_json)


@app.command()
def key(client: ClientArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Give a client a new API key and print it, this once; the old one stops."""

    async def replace() -> ClientWithKey:
        async with connected(data_dir) as connection:
            return await connection.replace_client_key(await client_id(connection, client))

    _print_key(asyncio.run(replace()), as_json=as_json)


@app.command()
def disable(client: ClientArgument, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Disable a client: its key opens nothing any more, its jobs stay and go on."""

    async def ask() -> Client:
        async with connected(data_dir) as connection:
            return await connection.disable_client(await client_id(connection, client))

    _print(asyncio.run(ask()), as_json=as_json)


def _print_key(made: ClientWithKey, *, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    print_text(made.api_key)
    print_note(f"This is the API key of {made.name}, shown this once: keep it where secrets are kept.")


def _print(found: Client, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    about = {
        "client": found.id,
        "name": found.name,
        "operator": "yes" if found.is_operator else "no",
        "created": local_time(found.created_at),
        "disabled": local_time(found.disabled_at),
    }
    console().print(fields(about))
