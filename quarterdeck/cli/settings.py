"""The commands `settings`, `settings set`, `settings key` and `settings clear`: what one's own runs are done with."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from quarterdeck.cli.console import console, fields, print_json, print_note, text
from quarterdeck.cli.options import (
    AllowCommand,
    AsJson,
    BaseUrl,
    BudgetUsd,
    DataDir,
    EffortOption,
    MaxTokens,
    MaxTurns,
    Mode,
    Model,
    Network,
    SystemPrompt,
    Temperature,
    budget,
    connected,
    given,
    is_alone,
    read_text,
)
from services.contracts.agents import AgentDefaults, ClientSettings

app = typer.Typer(
    invoke_without_command=True,
    rich_markup_mode=None,
    help="Show what your runs take where their job says nothing; `settings set` changes it.",
)


@app.callback()
def show(context: typer.Context, *, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Show what your runs take where their job says nothing; `settings set` changes it."""
    if is_alone(context, as_json=as_json, data_dir=data_dir):
        _print(asyncio.run(_read(data_dir)), as_json=as_json)


async def _read(data_dir: Path | None) -> ClientSettings:
    async with connected(data_dir) as client:
        return await client.settings()


@app.command("set")
def change(
    *,
    model: Model = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    effort: EffortOption = None,
    max_turns: MaxTurns = None,
    budget_usd: BudgetUsd = None,
    base_url: BaseUrl = None,
    system_prompt_file: SystemPrompt = None,
    permission_mode: Mode = None,
    allow_command: AllowCommand = None,
    network: Network = None,
    unset: Annotated[
        list[str] | None, typer.Option(help="A setting by the API's name, such as maxTurns; may be repeated.")
    ] = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Change the settings that are named, and no other; what is --unset comes from the server again.

    MCP servers are set over the API: see `PUT /v1/settings` in docs/configuration.md.
    """
    wanted: dict[str, Any] = dict.fromkeys(_known(unset or ())) | given(
        model=model,
        max_tokens=max_tokens,
        temperature=temperature,
        effort=effort,
        max_turns=max_turns,
        run_budget=budget(budget_usd),
        base_url=base_url,
        system_prompt=read_text(system_prompt_file),
        permission_mode=permission_mode,
        allowed_commands=allow_command,
        network=network,
    )
    if not wanted:
        raise typer.BadParameter("name at least one setting: see `quarterdeck settings set --help`")
    _print(asyncio.run(_change(wanted, data_dir)), as_json=as_json)


def _known(names: list[str] | tuple[()]) -> list[str]:
    known = [field.alias or name for name, field in AgentDefaults.model_fields.items()]
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"--unset {name}: there are the settings {', '.join(known)}")
    return list(names)


async def _change(wanted: Mapping[str, Any], data_dir: Path | None) -> ClientSettings:
    async with connected(data_dir) as client:
        now = await client.settings()
        return await client.set_settings(changed(now, wanted))


def changed(now: ClientSettings, wanted: Mapping[str, Any]) -> ClientSettings:
    """``now`` with ``wanted``, by the API's names, in its place. Raises a usage error for what cannot be."""
    try:
        return ClientSettings.model_validate(now.model_dump(mode="json", by_alias=True) | dict(wanted))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise typer.BadParameter(f"{where} {first['input']}: {first['msg']}") from error


@app.command("key")
def key(
    *,
    remove: Annotated[bool, typer.Option("--remove", help="Take the stored key away.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Store the Anthropic key that your runs are to use; it is asked for, or read from standard input.

    It is no argument: those are in the shell's history and the list of processes.
    """
    secret = None if remove else _read_key()

    async def store() -> ClientSettings:
        async with connected(data_dir) as client:
            return await client.set_anthropic_key(secret)

    _print(asyncio.run(store()), as_json=as_json)


def _read_key() -> str:
    typed = typer.prompt("Anthropic key", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.read()
    if not (secret := str(typed).strip()):
        raise typer.BadParameter("no key came on standard input; `--remove` takes the stored one away")
    return secret


@app.command("clear")
def clear(*, as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """Take all your settings away, with the key and every other secret."""

    async def remove() -> ClientSettings:
        async with connected(data_dir) as client:
            return await client.remove_settings()

    _print(asyncio.run(remove()), as_json=as_json)


def _print(found: ClientSettings, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    document = found.model_dump(mode="json", by_alias=True, exclude_none=True)
    servers = document.pop("mcpServers", {})
    rows = {name: text(_words(value)) for name, value in document.items()}
    rows |= {
        f"MCP server {name}": text(server.get("url") or " ".join(server["command"])) for name, server in servers.items()
    }
    if rows:
        console().print(fields(rows))
    else:
        print_note("Nothing is set: your runs take what the server does.")


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {number}" for name, number in value.items()) or "no limit"
    return ", ".join(value) if isinstance(value, list) else str(value)
