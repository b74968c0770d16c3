"""Shows a pushed branch as a pull request: the one that is open from it, brought up to date, before one is made."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from services.contracts.words import Publish
from services.vcs.errors import ForgeError, ForgeUnavailableError
from services.vcs.forges import MOST_BODY, Opened, PublishedChange
from services.vcs.forges.github.answers import Pull
from services.vcs.forges.github.errors import ForgeInvalidError
from services.vcs.forges.github.pulls import Pulls
from services.vcs.forges.github.wishes import Wishes

MOST_TITLE: Final = 256
_CUT: Final = "\n\n*(cut: GitHub takes no more)*"
_ALREADY: Final = "already exists"
_MARKER: Final = re.compile(r"<!--\s*quarterdeck:changeset=.*?-->", re.DOTALL)


async def opened(pulls: Pulls, change: PublishedChange) -> Opened:
    """Safe to repeat: each try begins with the pull request that an earlier one may have made."""
    notes: list[str] = []
    if not change.base_branch:  # it began at a tag or commit
        change = replace(change, base_branch=await pulls.default_branch())
    pull = await pulls.open_from(change.branch, change.base_branch)
    if pull is None:
        pull = await _created(pulls, change)
    pull = await _updated(pulls, pull, change, notes)
    notes += await Wishes(pulls.calls, pull).meet(change)
    return Opened(pull.html_url, pull.number, notes)


async def found_open(pulls: Pulls, change: PublishedChange) -> Opened | None:
    """The pull request that is open from the branch, left as it is."""
    pull = await pulls.open_from(change.branch, change.base_branch)
    return Opened(pull.html_url, pull.number) if pull is not None else None


async def _created(pulls: Pulls, change: PublishedChange) -> Pull:
    """Where it is not known whether one was made, or GitHub says so, it is looked for; never made again at once."""
    try:
        return await pulls.create(
            branch=change.branch,
            base=change.base_branch,
            title=title_of(change),
            body=body_of(change),
            draft=_wants_draft(change),
        )
    except ForgeInvalidError as error:
        if _ALREADY not in error.git_message:
            raise
        doubt: ForgeError = ForgeUnavailableError(
            f"GitHub says that a pull request from {change.branch} exists but does not show it; try again later"
        )
    except ForgeUnavailableError as error:
        doubt = error
    found = await pulls.open_from(change.branch, change.base_branch)
    if found is None:
        raise doubt
    return found


async def _updated(pulls: Pulls, pull: Pull, change: PublishedChange, notes: list[str]) -> Pull:
    wanted = {"title": title_of(change), "body": body_of(change), "base": change.base_branch}
    shown = {"title": pull.title, "body": _unix(pull.body or ""), "base": pull.base.ref}
    differing = {name: text for name, text in wanted.items() if text != shown[name]}
    if differing:
        pull = await pulls.change(pull.number, **differing)
    if pull.draft != _wants_draft(change):
        notes += await _set_draft(pulls, pull, draft=not pull.draft)
    return pull


async def _set_draft(pulls: Pulls, pull: Pull, *, draft: bool) -> Sequence[str]:
    try:
        await pulls.set_draft(pull, draft=draft)
    except ForgeError as error:
        return [f"the pull request could not be marked as {'a draft' if draft else 'ready'}: {error}"]
    return []


def title_of(change: PublishedChange) -> str:
    title = " ".join(change.title.split()) or change.branch
    return title if len(title) <= MOST_TITLE else f"{title[: MOST_TITLE - 1]}…"


def body_of(change: PublishedChange) -> str:
    """With the hidden marker of its changeset at its end, and no other."""
    marker = f"\n\n<!-- quarterdeck:changeset={change.changeset_id} -->"
    text = _unix(_MARKER.sub("", change.body)).strip()
    room = MOST_BODY - len(marker)
    if len(text) > room:
        text = text[: room - len(_CUT)] + _CUT
    return f"{text}{marker}".lstrip()


def _wants_draft(change: PublishedChange) -> bool:
    return change.publish is Publish.DRAFT


def _unix(text: str) -> str:
    return text.replace("\r\n", "\n")
