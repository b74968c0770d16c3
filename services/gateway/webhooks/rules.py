"""What each address of the webhook starts work for, and for whom. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from services.gateway.webhooks.happenings import FailedSuite, IssueEvent, Remark, failed_suite, issue_event, remark
from services.gateway.webhooks.installations import Keep, installation_change
from services.gateway.webhooks.payloads import Actor, Payload
from services.gateway.webhooks.subjects import Concerned, concerned_by

OUR_MARK: Final = "<!-- quarterdeck:"
"""Whatever holds it was said by us."""
_LOGIN: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,99})(?:\[bot\])?")


class IssueTrigger(StrEnum):
    ALL = "all"
    LABEL = "label"
    MENTION = "mention"
    OFF = "off"


@dataclass(frozen=True)
class IssueRule:
    """Which issues become jobs. ``name``: of the label, or of the login that is mentioned."""

    trigger: IssueTrigger
    name: str = ""

    @classmethod
    def parse(cls, told: str) -> IssueRule:
        """`all`, `off`, `label:NAME` or `mention:@NAME`. Raises ``ValueError``."""
        word, _, name = (part.strip() for part in told.strip().partition(":"))
        name = name.removeprefix("@") if word == IssueTrigger.MENTION else name
        if word not in list(IssueTrigger) or bool(name) != (word in (IssueTrigger.LABEL, IssueTrigger.MENTION)):
            raise ValueError("must be one of: all, off, label:NAME, mention:@NAME")
        return cls(IssueTrigger(word), name)

    def starts(self, event: IssueEvent) -> bool:
        match self.trigger:
            case IssueTrigger.OFF:
                return False
            case IssueTrigger.ALL:
                return event.action in ("opened", "edited")
            case IssueTrigger.LABEL:
                if event.action == "labeled":
                    return self._is_label(event.label)
                return event.action in ("opened", "edited") and any(map(self._is_label, event.labels))
            case IssueTrigger.MENTION:
                return event.action != "labeled" and self._is_mentioned(event.said)

    def amends(self, event: IssueEvent) -> bool:
        """Whether it may change a job that there is already, and start none."""
        return self.trigger is not IssueTrigger.OFF and event.action == "edited"

    def _is_label(self, label: str) -> bool:
        return label.lower() == self.name.lower()

    def _is_mentioned(self, said: str) -> bool:
        return re.search(rf"(?<![\w@/])@{re.escape(self.name)}(?![\w-])", said, re.IGNORECASE) is not None


class Permission(StrEnum):
    """What whoever starts work must be allowed to do in the repository."""

    WRITE = "write"
    READ = "read"
    ANYONE = "anyone"


@dataclass(frozen=True)
class ActorRule:
    """``logins``: these alone, where there are any; no bot but these may. ``ours``: never, since that is us."""

    permission: Permission = Permission.WRITE
    logins: frozenset[str] = frozenset()
    ours: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, told: str, *, bot_login: str = "") -> ActorRule:
        """`write`, `read`, `anyone`, or logins with commas. Raises ``ValueError``."""
        ours = frozenset({bot_login.lower()} - {""})
        if told.strip() in list(Permission):
            return cls(Permission(told.strip()), ours=ours)
        logins = [login.strip().removeprefix("@") for login in told.split(",") if login.strip()]
        if not logins or not all(map(_LOGIN.fullmatch, logins)):
            raise ValueError("must be one of: write, read, anyone; or logins separated by commas")
        return cls(logins=frozenset(login.lower() for login in logins), ours=ours)

    def ignores(self, actor: Actor, said: str) -> bool:
        """Whether it is nobody, one of us, or a bot that nobody named."""
        login = actor.login.lower()
        is_us = login in self.ours or OUR_MARK in said
        return not login or is_us or (actor.is_bot and login not in self.logins)

    def admits(self, permission: str) -> bool:
        """``permission``: what the actor may do: `admin`, `write`, `read` or `none`."""
        wanted = {Permission.WRITE: ("admin", "write"), Permission.READ: ("admin", "write", "read")}
        return self.permission is Permission.ANYONE or permission in wanted[self.permission]


@dataclass(frozen=True)
class Surface:
    """One address of the webhook. ``name``: of its deliveries. ``client``: whose jobs its issues become, by name."""

    name: str
    client: str
    issues: IssueRule
    reviews: bool
    check_fixes: int
    """Most runs for failed checks of one pull request; 0: none."""
    asks_for_headers: bool = False
    """Whether a delivery must say its id and event, as GitHub's do; else the body stands for an id."""


@dataclass(frozen=True)
class Wanted:
    """What a delivery asks for. ``wake``: changesets to look at anew. ``issue_may_start``: else it only amends."""

    wake: Concerned
    installation: Keep | None = None
    issue: IssueEvent | None = None
    issue_may_start: bool = False
    remark: Remark | None = None
    suite: FailedSuite | None = None

    @property
    def is_nothing(self) -> bool:
        return self.wake.is_nothing and not any((self.installation, self.issue, self.remark, self.suite))


@dataclass(frozen=True)
class Rules:
    """``repositories``: patterns of the names that work may start in; none: all that the credentials reach."""

    surfaces: tuple[Surface, ...]
    actors: ActorRule
    repositories: tuple[str, ...] = ()

    def surface(self, name: str) -> Surface:
        """Without one of that name nothing is started."""
        found = (surface for surface in self.surfaces if surface.name == name)
        return next(found, Surface(name, name, IssueRule(IssueTrigger.OFF), reviews=False, check_fixes=0))

    def wanted_by(self, surface: Surface, event: str, payload: Payload) -> Wanted:
        """What a delivery to ``surface`` asks for, as far as the rules have it."""
        wake, installation = concerned_by(event, payload), installation_change(event, payload)
        issue, said, suite = issue_event(event, payload), remark(event, payload), failed_suite(event, payload)
        may_start = issue is not None and surface.issues.starts(issue)
        return Wanted(
            wake,
            installation,
            issue=issue if issue is not None and self._takes_issue(surface, issue) else None,
            issue_may_start=may_start,
            remark=said if said is not None and self._takes_remark(surface, said) else None,
            suite=suite
            if suite is not None and surface.check_fixes and self.allows(suite.repository.full_name)
            else None,
        )

    def allows(self, full_name: str) -> bool:
        """Whether work may start in this repository, `owner/name`."""
        patterns = self.repositories
        return not patterns or any(fnmatchcase(full_name.lower(), pattern.lower()) for pattern in patterns)

    def _takes_issue(self, surface: Surface, event: IssueEvent) -> bool:
        # An issue's own text may quote us, and is its author's still.
        said = event.said if event.action == "commented" else ""
        is_called_for = surface.issues.starts(event) or surface.issues.amends(event)
        is_placed = bool(event.repository.url) and self.allows(event.repository.full_name)
        return is_called_for and is_placed and not self.actors.ignores(event.actor, said)

    def _takes_remark(self, surface: Surface, said: Remark) -> bool:
        is_called_for = surface.reviews and self.allows(said.repository.full_name)
        return is_called_for and not self.actors.ignores(said.author, said.said)
