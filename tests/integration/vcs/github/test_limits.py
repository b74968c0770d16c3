"""GitHub's limits stop everybody at once, and failures are told apart. Scripted: the emulator limits nobody."""

import time
from collections.abc import Callable

import pytest

from services.vcs.errors import ForgeNotFoundError, ForgePausedError, ForgeRefusedError, ForgeUnavailableError
from services.vcs.forges import RepositoryQuery
from services.vcs.forges.github import GitHubConfig, GitHubForge, LocalPace
from services.vcs.git.repositories import parse_repository
from tests.integration.vcs.github.conftest import Work
from tests.integration.vcs.github.emulated import TOKEN
from tests.integration.vcs.github.faults import FaultProxy

SECONDARY = {"message": "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."}


@pytest.mark.parametrize(
    ("status", "body", "headers", "least", "most"),
    [
        (403, SECONDARY, {"retry-after": "7"}, 6.9, 7),
        (429, {"message": "Slow down"}, {"retry-after": "7"}, 6.9, 7),
        (403, SECONDARY, {}, 59.9, 60),
        (429, None, {}, 59.9, 60),
        (403, SECONDARY, {"retry-after": "soon"}, 0, 0),
        (403, {"message": "API rate limit exceeded for user ID 1."}, {"x-ratelimit-remaining": "0"}, 40, 52),
    ],
)
async def test_a_limit_pauses_every_call_until_it_is_over(
    make_forge: Callable[..., GitHubForge],
    work: Work,
    proxy: FaultProxy,
    status: int,
    body: object,
    headers: dict[str, str],
    least: float,
    most: float,
) -> None:
    pace = LocalPace()
    first, second = make_forge(token=TOKEN, pace=pace), make_forge(token=TOKEN, pace=pace)
    if "x-ratelimit-remaining" in headers:
        headers = headers | {"x-ratelimit-reset": str(int(time.time()) + 50)}
    proxy.answer("GET", "", status, body, headers=headers)
    if headers.get("retry-after") == "soon":
        with pytest.raises(ForgeUnavailableError, match="cannot be read"):
            await first.look_up(work.ref())
        return
    with pytest.raises(ForgePausedError, match="wants to be asked less") as caught:
        await first.look_up(work.ref())
    assert least <= caught.value.seconds <= most
    assert caught.value.retryable
    asked = len(proxy.requests)
    with pytest.raises(ForgePausedError, match="not asked for a while") as caught:
        await second.open(work.published())
    assert caught.value.seconds <= most
    assert len(proxy.requests) == asked


async def test_spent_searches_stop_nothing_but_searches(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    spent = {
        "x-ratelimit-remaining": "0",
        "x-ratelimit-resource": "search",
        "x-ratelimit-reset": str(int(time.time()) + 50),
    }
    proxy.answer("GET", "^/search/", 403, {"message": "API rate limit exceeded"}, headers=spent)

    for _ in range(2):
        with pytest.raises(ForgePausedError, match="asked less") as caught:
            [one async for one in forge.repositories(RepositoryQuery(search="tools"))]
        assert 40 < caught.value.seconds <= 52
    assert proxy.count("GET", "^/search/") == 1
    assert (await forge.open(work.published())).number


async def test_a_proxy_of_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch, work: Work, proxy: FaultProxy
) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", proxy.address)
    nobody = "http://127.0.0.1:1"
    forge = GitHubForge(GitHubConfig(token=TOKEN, api_url=nobody, server_url=nobody), LocalPace())
    repository = parse_repository(f"{nobody}/{work.full_name}", allow_local=False)
    assert (await forge.look_up(work.ref(repository=repository))).head_sha == work.sha
    await forge.aclose()


async def test_guesses_grow_until_something_succeeds(
    make_forge: Callable[..., GitHubForge], work: Work, proxy: FaultProxy
) -> None:
    class Hurry(LocalPace):
        """Notes the pauses and keeps none."""

        async def pause(self, seconds: float, reason: str) -> None:
            self.seconds = [*getattr(self, "seconds", []), seconds]

    pace = Hurry()
    forge = make_forge(token=TOKEN, pace=pace)
    for times in (3, 1):
        proxy.answer("GET", "", 403, SECONDARY, times=times)
        for _ in range(times):
            with pytest.raises(ForgePausedError):
                await forge.look_up(work.ref())
        await forge.look_up(work.ref())
    assert pace.seconds == [60, 120, 240, 60]


async def test_a_limit_at_the_creation_makes_nothing_twice(
    make_forge: Callable[..., GitHubForge], work: Work, proxy: FaultProxy
) -> None:
    proxy.answer("POST", "/pulls$", 403, SECONDARY, headers={"retry-after": "60"})
    with pytest.raises(ForgePausedError):
        await make_forge(token=TOKEN).open(work.published())
    opened = await make_forge(token=TOKEN).open(work.published())
    assert await work.numbers() == [opened.number]


async def test_so_many_pull_requests_a_minute(make_forge: Callable[..., GitHubForge], work: Work) -> None:
    forge = make_forge(token=TOKEN, pace=LocalPace(creates_per_minute=2))
    branches = ["a", "b", "c"]
    for branch in branches:
        await work.emulate.ada.push(work.full_name, branch)
    for branch in branches[:2]:
        await forge.open(work.published(branch=branch))
    with pytest.raises(ForgePausedError, match="2 pull requests were opened in this minute") as caught:
        await forge.open(work.published(branch="c"))
    assert 0 < caught.value.seconds <= 60
    assert (await forge.look_up(work.ref(branch="a"))).number, "what opens none goes on"


@pytest.mark.parametrize(
    ("status", "body", "headers", "kind", "words"),
    [
        (401, {"message": "Bad credentials"}, {}, ForgeRefusedError, "check GITHUB_TOKEN: Bad credentials"),
        (
            403,
            {"message": "Resource not accessible by integration"},
            {"x-accepted-github-permissions": "pull_requests=write"},
            ForgeRefusedError,
            "the permission pull_requests=write: Resource not accessible",
        ),
        (404, {"message": "Not Found"}, {}, ForgeNotFoundError, "check the name"),
        (410, {"message": "Gone"}, {}, ForgeNotFoundError, "no longer has"),
        (451, {"message": "Blocked"}, {}, ForgeNotFoundError, "no longer has"),
        (301, {"message": "Moved Permanently"}, {"location": "/elsewhere"}, ForgeRefusedError, "its new address"),
        (400, {"message": "Problems parsing JSON"}, {}, ForgeRefusedError, "Problems parsing JSON"),
        (500, None, {}, ForgeUnavailableError, "GitHub failed itself"),
        (502, "<html>", {}, ForgeUnavailableError, "GitHub failed itself"),
        (200, {"unlike": "a list"}, {}, ForgeUnavailableError, "is no list"),
        (200, [{"number": 1}], {}, ForgeUnavailableError, "not as GitHub's are: html_url"),
    ],
)
async def test_each_failure_has_its_words(
    forge: GitHubForge,
    work: Work,
    proxy: FaultProxy,
    status: int,
    body: object,
    headers: dict[str, str],
    kind: type[Exception],
    words: str,
) -> None:
    proxy.answer("GET", "/pulls$", status, body, headers=headers)
    with pytest.raises(kind, match=words) as caught:
        await forge.open(work.published())
    assert TOKEN not in str(caught.value)
    assert len(proxy.requests) == 1, "a redirect is not followed, and nothing is tried again"
