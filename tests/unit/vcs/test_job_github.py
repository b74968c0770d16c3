"""Whose credentials go where, and how many of those that jobs brought are kept; nothing is asked of anybody."""

from contextlib import AsyncExitStack

import pytest

from services.vcs.errors import ForgeRefusedError
from services.vcs.forges.choosing import Forges
from services.vcs.forges.github import GitHubAddress, GitHubConfig, GitHubConfigError, GitHubForge, LocalPace
from services.vcs.forges.github.credentials import JobCredentials
from services.vcs.forges.job_github import JobGitHub
from services.vcs.forges.local import LocalForge
from services.vcs.git.credentials import Credential, StaticCredentials
from services.vcs.git.repositories import Repository, parse_repository

ADDRESS = GitHubAddress()
TOKEN = "ghp_of_the_job"
SERVERS = Credential("bot", "the server's")
OTHERS = StaticCredentials(dict.fromkeys(("github.com", "github.com:80", "other.example"), SERVERS))


class Closing(GitHubForge):
    """Tells when it was closed."""

    def __init__(self, config: GitHubConfig) -> None:
        super().__init__(config, LocalPace())
        self.is_closed = False

    async def aclose(self) -> None:
        assert not self.is_closed
        self.is_closed = True
        await super().aclose()


def repository(url: str) -> Repository:
    return parse_repository(url, allow_local=False)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://github.com/acme/app.git", Credential("x-access-token", TOKEN)),
        ("https://GitHub.com/acme/app", Credential("x-access-token", TOKEN)),
        ("http://github.com/acme/app", None),
        ("ssh://git@github.com/acme/app", None),
        ("https://github.com:8443/acme/app", None),
        ("https://github.com.other.example/acme/app", None),
        ("https://other.example/acme/app", SERVERS),
    ],
)
async def test_a_job_s_token_is_for_its_github_alone_and_over_https(url: str, shown: Credential | None):
    credentials = JobCredentials(ADDRESS.with_token(TOKEN), OTHERS)
    assert await credentials.of(repository(url)) == shown


def test_no_github_is_reached_over_http_but_on_this_machine():
    with pytest.raises(GitHubConfigError, match="would show the token to the network"):
        GitHubAddress("http://github.internal/api/v3")


def test_what_is_refused_names_where_the_credentials_are_from():
    assert JobGitHub(ADDRESS, Closing).config(TOKEN).credential_settings == "credentials.githubToken of the job"
    assert ADDRESS.with_token(TOKEN).credential_settings == "GITHUB_TOKEN"


def test_each_credential_has_a_pace_of_its_own_and_tells_nothing_by_it():
    scopes = {ADDRESS.with_token(token).scope for token in (TOKEN, TOKEN, "ghp_of_another")}
    assert len(scopes) == 2
    assert TOKEN not in "".join(scopes)
    assert TOKEN not in repr(ADDRESS.with_token(TOKEN))


async def test_few_are_kept_and_none_is_closed_that_is_in_use():
    made: list[Closing] = []

    def make(config: GitHubConfig) -> GitHubForge:
        made.append(Closing(config))
        return made[-1]

    jobs = JobGitHub(ADDRESS, make, most=2)
    async with AsyncExitStack() as using:
        for number in range(4):
            await using.enter_async_context(jobs.asked_with(f"token {number}"))
        async with jobs.asked_with("token 0") as again:
            assert again.current is made[0]
        assert [forge.is_closed for forge in made] == [False] * 4
        assert jobs.kept == 4
    assert jobs.kept == 2
    # Where there are too many, who is done goes: the last was done first.
    assert [forge.is_closed for forge in made] == [False, False, True, True]
    async with jobs.asked_with("token 4"):
        assert not made[0].is_closed
    # Then who was not used for longest.
    assert [forge.is_closed for forge in made] == [False, True, True, True, False]
    await jobs.aclose()
    assert jobs.kept == 0
    assert all(forge.is_closed for forge in made)


async def test_the_forge_of_a_job_is_github_also_where_the_server_has_no_credentials():
    class Nobody:
        current = None

    local = LocalForge(None, None, "")  # type: ignore[arg-type]  # asked nothing
    forges, app = Forges(local, Nobody()), repository("https://github.com/acme/app")
    assert forges.of(app) is local
    with pytest.raises(ForgeRefusedError, match="give the vcs service its credentials again"):
        forges.named("github")
    async with JobGitHub(ADDRESS, Closing).asked_with(TOKEN) as asked:
        through = forges.through(asked)
        assert through.of(app) is through.named("github") is through.listing() is asked.current
        assert through.of(repository("https://other.example/acme/app")) is through.named("local") is local
        await asked.current.aclose()
