"""Whether GitHub is configured: by the App that was set up, by what a vcs lists, by what the environment says."""

from datetime import UTC, datetime
from typing import Any

import pytest

from services.gateway.dialects.worker import github_look
from services.gateway.dialects.worker.github_look import GitHub, GitHubLook
from services.gateway.dialects.worker.service_settings import ServiceSettings
from services.gateway.problems import ProblemError
from services.jobs.forge_apps import App, Installation

NOW = datetime(2026, 1, 6, tzinfo=UTC)
APP = App(7, "slug", "name", "owner", "https://github.example/apps/slug", NOW)
NOTHING = GitHub(is_configured=False, repositories=0)


class Fake:
    """A gateway with an App and installations, whose vcs lists so many repositories; None: it has no forge."""

    def __init__(
        self, app: App | None = None, places: tuple[Installation, ...] = (), listed: int | None = None
    ) -> None:
        self.apps, self.vcs = self, self
        self._app, self._places, self.listed = app, places, listed
        self.asked = 0

    async def current(self) -> App | None:
        return self._app

    async def installations(self) -> list[Installation]:
        return list(self._places)

    async def discover(self, _: Any) -> list[int]:
        self.asked += 1
        if self.listed is None:
            raise ProblemError(409, "no forge is configured")
        return [0] * self.listed


def place(
    number: int, *repositories: str, has_all: bool = False, app_id: int = 7, suspended: bool = False
) -> Installation:
    return Installation(
        number, app_id, "account", repositories, has_all, suspended_at=NOW if suspended else None, updated_at=NOW
    )


def look(**settings: Any) -> Any:
    return GitHubLook(ServiceSettings(**{"app_id": None, "installation_id": None} | settings))


async def test_nothing_is_configured_where_nobody_can_list() -> None:
    assert await look().find(Fake()) == NOTHING


async def test_an_app_that_was_set_up_counts_where_it_is_installed() -> None:
    places = (place(1, "a/x", "a/y"), place(2, "a/x"), place(3, "b/z", app_id=8), place(4, "c/z", suspended=True))
    gateway = Fake(APP, places)
    found = await look(app_id="told otherwise").find(gateway)
    assert found == GitHub(is_configured=True, repositories=2, app_id="7", installation_id="1", owner="owner")
    assert gateway.asked == 0
    assert (await look().find(Fake(APP))).installation_id is None


@pytest.mark.parametrize(("listed", "count"), [(9, 9), (None, 1), (0, 1)])
async def test_of_an_installation_for_all_the_forge_is_asked(listed: int | None, count: int) -> None:
    gateway = Fake(APP, (place(1, "a/x", has_all=True),), listed)
    assert (await look().find(gateway)).repositories == count


async def test_a_vcs_that_lists_or_an_app_in_the_environment_will_do() -> None:
    assert await look().find(Fake(listed=3)) == GitHub(is_configured=True, repositories=3)
    told = await look(app_id="5", installation_id="6").find(Fake())
    assert told == GitHub(is_configured=True, repositories=0, app_id="5", installation_id="6")


async def test_what_was_listed_is_remembered_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway, github = Fake(listed=3), look()
    for _ in range(3):
        assert (await github.find(gateway)).repositories == 3
    assert gateway.asked == 1
    monkeypatch.setattr(github_look, "KNOWN_SECONDS", -1.0)
    again = look()
    for number in (4, 5):
        gateway.listed = number
        assert (await again.find(gateway)).repositories == number
