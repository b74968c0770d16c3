"""Labels, reviewers and assignees of an open pull request. What cannot be met is a note, never a failure: the pull
request is there.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from services.vcs.errors import ForgeError, ForgeNotFoundError, ForgeRefusedError
from services.vcs.forges import PublishedChange
from services.vcs.forges.github.answers import Assigned, Label, Pull
from services.vcs.forges.github.calls import RepositoryCalls
from services.vcs.forges.github.errors import ForgeInvalidError

_COLOR: Final = "ededed"


class Wishes:
    def __init__(self, calls: RepositoryCalls, pull: Pull) -> None:
        self._calls = calls
        self._pull = pull
        self._notes: list[str] = []

    async def meet(self, change: PublishedChange) -> Sequence[str]:
        """Add what is missing; nothing that others have added is taken away. What could not be met, in words."""
        asked_users = {account.login.casefold() for account in self._pull.requested_reviewers}
        asked_teams = {team.slug.casefold() for team in self._pull.requested_teams}
        # A team may be written as a CODEOWNERS file does: owner/team.
        teams = [team.rpartition("/")[2] for team in change.team_reviewers]
        await self._add_labels(change.labels)
        await self._each(_missing(change.reviewers, asked_users), self._ask_reviewers, "be asked for a review")
        await self._each(_missing(teams, asked_teams), self._ask_teams, "be asked for a review")
        await self._each(change.assignees, self._assign, "be assigned")
        return self._notes

    async def _each(self, names: Sequence[str], add: Callable[[Sequence[str]], Awaitable[None]], wish: str) -> None:
        """All at once; where GitHub refuses the lot for the sake of one, one by one, to tell which."""
        if not names:
            return
        try:
            await add(names)
        except ForgeRefusedError as error:
            if len(names) > 1:
                for name in names:
                    await self._each([name], add, wish)
            else:
                self._notes.append(f"{names[0]} could not {wish}: {error}")
        except ForgeError as error:
            self._notes.append(f"{', '.join(names)} could not {wish}: {error}")

    async def _add_labels(self, names: Sequence[str]) -> None:
        shown = {label.name.casefold() for label in self._pull.labels}
        missing = _missing(names, shown)
        for name in missing:
            try:
                await self._make_label(name)
            except ForgeError as error:
                self._notes.append(f"the label {name} could not be made: {error}")
        await self._each(missing, self._label, "be put on the pull request as a label")

    async def _make_label(self, name: str) -> None:
        try:
            await self._calls.get(Label, "labels", name)
        except ForgeNotFoundError:
            pass
        else:
            return
        try:
            await self._calls.do("POST", "labels", body={"name": name, "color": _COLOR})
        except ForgeInvalidError:
            # Made by another meanwhile, or no name for a label: the next request tells which.
            return

    async def _label(self, names: Sequence[str]) -> None:
        await self._calls.do("POST", "issues", self._pull.number, "labels", body={"labels": list(names)})

    async def _ask_reviewers(self, names: Sequence[str]) -> None:
        path = ("pulls", self._pull.number, "requested_reviewers")
        await self._calls.do("POST", *path, body={"reviewers": list(names)})

    async def _ask_teams(self, names: Sequence[str]) -> None:
        path = ("pulls", self._pull.number, "requested_reviewers")
        await self._calls.do("POST", *path, body={"team_reviewers": list(names)})

    async def _assign(self, names: Sequence[str]) -> None:
        """GitHub passes over in silence whom it does not assign."""
        path = ("issues", self._pull.number, "assignees")
        issue = await self._calls.send(Assigned, "POST", *path, body={"assignees": list(names)})
        assigned = {account.login.casefold() for account in issue.assignees}
        self._notes += [f"{name} could not be assigned: not in the repository" for name in _missing(names, assigned)]


def _missing(names: Sequence[str], present: set[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.casefold() not in present]
