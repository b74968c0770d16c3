"""What `submit` is given: the prompt from one of its three sources, repositories as the gateway takes them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import typer

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[^/\s:]+:\S")
"""A URL, or Git's short form `user@host:path`."""


def read_prompt(argument: str | None, file: Path | None) -> str:
    """The prompt from the argument, the file, or standard input (`-`, or a pipe). Raises a usage error."""
    if argument is not None and file is not None:
        raise typer.BadParameter("give the prompt as an argument or with --prompt-file, not both")
    if file is not None:
        return _read_file(file)
    if argument is None and sys.stdin.isatty():
        raise typer.BadParameter("there is no prompt: give it as an argument, with --prompt-file, or by a pipe")
    prompt = sys.stdin.read() if argument in {None, "-"} else argument
    if not prompt or not prompt.strip():
        raise typer.BadParameter("the prompt is empty")
    return prompt


def _read_file(file: Path) -> str:
    try:
        prompt = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"the prompt cannot be read from {file}: {error}") from error
    if not prompt.strip():
        raise typer.BadParameter(f"the prompt in {file} is empty")
    return prompt


def repository_url(typed: str) -> str:
    """A Git URL as it is, a local folder as its absolute path. Raises a usage error for neither."""
    if typed and (path := Path(typed).expanduser()).is_dir():
        return str(path.resolve())
    if _REMOTE.match(typed):
        return typed
    raise typer.BadParameter(f"{typed!r} is neither a folder here nor a Git URL")
