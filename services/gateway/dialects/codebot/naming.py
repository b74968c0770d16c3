"""How Codebot names the branch and the pull request of a task. Pure."""

from __future__ import annotations

import re
import secrets

MAX_TITLE_CHARACTERS = 100
_MAX_PART_CHARACTERS = 60
_MARK_CHARACTERS = 7


def new_mark() -> str:
    """Seven hex digits of a new task's branch."""
    return secrets.token_hex(4)[:_MARK_CHARACTERS]


def branch_name(ticket_id: str | None, ticket_summary: str | None, mark: str) -> str:
    """`u/codebot/[<ticket_id>/]<mark>[/<ticket_summary>]`; a part of which no letter is left is left out."""
    parts = ("u", "codebot", _part(ticket_id), mark, _part(ticket_summary))
    return "/".join(part for part in parts if part)


def _part(text: str | None) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", text or "").strip("-")[:_MAX_PART_CHARACTERS].rstrip("-")


def pull_request_title(ticket_summary: str | None, description: str) -> str:
    """The summary, else the first line of what is to be done, cut to 100 characters. One of them must not be blank."""
    if ticket_summary:
        return " ".join(ticket_summary.split())
    return description.strip().splitlines()[0][:MAX_TITLE_CHARACTERS].strip()
