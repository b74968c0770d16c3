"""Repositories are found by owner, pattern, topic and search; archived ones and forks only where asked for."""

import pytest

from services.vcs.forges import RepositoryQuery
from services.vcs.forges.github import GitHubForge
from tests.integration.vcs.github.emulated import Emulate
from tests.integration.vcs.github.faults import FaultProxy


async def _names(forge: GitHubForge, **query: object) -> list[str]:
    return [one.full_name async for one in forge.repositories(RepositoryQuery(**query))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({}, {"ada/tools", "ada/site", "ada/secret"}),
        ({"owner": "Ada"}, {"ada/tools", "ada/site", "ada/secret"}),
        ({"owner": "ada", "patterns": ["ADA/t*", "*/secret"]}, {"ada/tools", "ada/secret"}),
        ({"owner": "ada", "topics": ["CLI", "python"]}, {"ada/tools"}),
        ({"owner": "ada", "topics": ["cli", "web"]}, set()),
        ({"search": "tools"}, {"ada/tools"}),
        ({"search": "language:python", "owner": "ada", "topics": ["cli"]}, {"ada/tools"}),
        ({"owner": "grace"}, set()),
    ],
)
async def test_a_query(forge: GitHubForge, query: dict[str, object], names: set[str]) -> None:
    assert set(await _names(forge, **query)) == names


async def test_what_is_told_of_one(forge: GitHubForge) -> None:
    (one,) = [one async for one in forge.repositories(RepositoryQuery(owner="ada", patterns=["*/tools"]))]
    assert (one.default_branch, one.language, list(one.topics)) == ("main", "Python", ["cli", "python"])
    assert one.clone_url.endswith("/ada/tools.git")
    assert (one.is_private, one.is_archived, one.is_fork) == (False, False, False)


async def test_archived_and_forks_are_left_out_unless_asked_for(forge: GitHubForge, emulate: Emulate) -> None:
    fork = (await emulate.grace.ask("POST", "/repos/ada/tools/forks", {}))["full_name"]
    old = (await emulate.grace.ask("POST", "/user/repos", {"name": "old"}))["full_name"]
    await emulate.grace.ask("PATCH", f"/repos/{old}", {"archived": True})
    assert await _names(forge, owner="grace") == []
    assert await _names(forge, owner="grace", include_forks=True) == [fork]
    assert await _names(forge, owner="grace", include_archived=True) == [old]


async def test_pages_are_followed_up_to_the_limit(forge: GitHubForge, emulate: Emulate, proxy: FaultProxy) -> None:
    for number in range(105):
        await emulate.grace.ask("POST", "/user/repos", {"name": f"many-{number:03}"})
    assert len(await _names(forge, owner="grace", patterns=["grace/many-*"], limit=103)) == 103
    assert proxy.count("GET", "/users/grace/repos$") == 2
    assert len(await _names(forge, owner="grace", patterns=["grace/many-*"], limit=7)) == 7
    assert proxy.count("GET", "/users/grace/repos$") == 3


async def test_scripted_an_organizations(forge: GitHubForge, proxy: FaultProxy) -> None:
    """The emulator does not list them."""
    listed = {"full_name": "acme/app", "clone_url": f"{proxy.address}/acme/app.git", "private": True, "size": 12}
    proxy.answer("GET", "/orgs/acme/repos$", 200, [listed])
    (one,) = [one async for one in forge.repositories(RepositoryQuery(owner="acme"))]
    assert (one.full_name, one.is_private, one.size_kb, one.default_branch) == ("acme/app", True, 12, "")
