"""A pushed branch becomes one pull request, whatever is repeated and whatever of the answer is lost."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from services.contracts.words import Publish
from services.vcs.errors import ForgeRefusedError, ForgeUnavailableError
from services.vcs.forges.github import GitHubForge
from tests.integration.vcs.github.conftest import BRANCH, Work
from tests.integration.vcs.github.emulated import ORG, TOKEN
from tests.integration.vcs.github.faults import FaultProxy

PULLS = r"/pulls$"
ALREADY = {
    "message": "Validation Failed",
    "errors": [
        {"resource": "PullRequest", "code": "custom", "message": f"A pull request already exists for {ORG}:{BRANCH}."}
    ],
}


async def test_a_pull_request_shows_the_change(forge: GitHubForge, work: Work) -> None:
    opened = await forge.open(work.published(publish=Publish.DRAFT))
    assert opened.number is not None
    pull = await work.emulate.ada.pull(work.full_name, opened.number)
    assert (pull["title"], pull["head"]["ref"], pull["head"]["sha"]) == ("Fix it", BRANCH, work.sha)
    assert (pull["base"]["ref"], pull["draft"], pull["html_url"]) == ("main", True, opened.url)
    assert pull["body"] == "It was broken.\n\n<!-- quarterdeck:changeset=cs-1 -->"
    assert not opened.notes


async def test_a_branch_alone_asks_nothing_of_github(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    opened = await forge.open(work.published(publish=Publish.BRANCH))
    assert opened.url == f"{proxy.address}/{work.full_name}/tree/{BRANCH}"
    assert opened.number is None
    assert not proxy.requests


async def test_what_was_based_on_a_tag_is_for_the_default_branch(forge: GitHubForge, work: Work) -> None:
    opened = [await forge.open(work.published(base_branch="")) for _ in range(2)]
    (number,) = await work.numbers()
    pull = await work.emulate.ada.pull(work.full_name, number)
    assert (pull["base"]["ref"], [each.number for each in opened]) == ("main", [number, number])


async def test_opened_again_it_is_changed_in_place(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    first = await forge.open(work.published())
    again = await forge.open(work.published(changeset_id="cs-2", title="Fix it better", body="It was.\r\nReally."))
    assert (again.number, again.url) == (first.number, first.url)
    assert await work.numbers() == [first.number]
    pull = await work.emulate.ada.pull(work.full_name, first.number or 0)
    assert pull["title"] == "Fix it better"
    assert pull["body"] == "It was.\nReally.\n\n<!-- quarterdeck:changeset=cs-2 -->"
    assert proxy.count("PATCH", r"/pulls/\d+$") == 1


async def test_what_is_as_it_should_be_is_left_alone(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    for _ in range(2):
        await forge.open(work.published())
    assert [one.method for one in proxy.requests if one.method != "GET"] == ["POST"]


async def test_one_pointed_at_another_base_is_pointed_back(forge: GitHubForge, work: Work) -> None:
    await work.emulate.ada.push(work.full_name, "release")
    opened = await forge.open(work.published())
    await work.emulate.ada.ask("PATCH", f"/repos/{work.full_name}/pulls/{opened.number}", {"base": "release"})
    again = await forge.open(work.published())
    pull = await work.emulate.ada.pull(work.full_name, again.number or 0)
    assert (again.number, pull["base"]["ref"]) == (opened.number, "main")


async def _another(work: Work, base: str, body: str) -> int:
    """A pull request from our branch that somebody made by hand; its number."""
    await work.emulate.ada.push(work.full_name, base)
    described = {"title": "By hand", "head": BRANCH, "base": base, "body": body}
    number: int = (await work.emulate.ada.ask("POST", f"/repos/{work.full_name}/pulls", described))["number"]
    return number


async def test_of_two_from_the_branch_the_one_into_the_base_is_ours(forge: GitHubForge, work: Work) -> None:
    opened = await forge.open(work.published())
    await _another(work, "release", "<!-- quarterdeck:changeset=cs-0 -->")
    assert (await forge.open(work.published())).number == opened.number


async def test_of_two_into_other_bases_the_marked_one_is_ours(forge: GitHubForge, work: Work) -> None:
    ours = await _another(work, "release", "<!-- quarterdeck:changeset=cs-0 -->")
    theirs = await _another(work, "develop", "")
    assert (await forge.open(work.published())).number == ours
    assert await work.numbers() == [ours, theirs]


async def test_a_closed_one_is_not_taken_up_again(forge: GitHubForge, work: Work) -> None:
    first = await forge.open(work.published())
    await work.emulate.ada.ask("PATCH", f"/repos/{work.full_name}/pulls/{first.number}", {"state": "closed"})
    assert (await forge.open(work.published())).number != first.number


async def test_the_branch_of_another_owner_is_not_ours(forge: GitHubForge, work: Work) -> None:
    fork = (await work.emulate.grace.ask("POST", f"/repos/{work.full_name}/forks", {}))["full_name"]
    await work.emulate.grace.push(fork, BRANCH)
    theirs = {"title": "Mine", "head": f"grace:{BRANCH}", "base": "main"}
    number = (await work.emulate.grace.ask("POST", f"/repos/{work.full_name}/pulls", theirs))["number"]
    assert (await forge.open(work.published())).number != number


async def test_scripted_a_fork_of_the_same_owner_is_not_ours(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    """The emulator lets an owner have one repository of a network alone."""
    number = await _another(work, "main", "")
    theirs = await work.emulate.ada.pull(work.full_name, number)
    theirs["head"]["repo"]["full_name"] += "-fork"
    proxy.answer("GET", PULLS, 200, [theirs])
    assert (await forge.open(work.published())).number != number


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_an_answer_lost_to_a_gateway_after_acting(
    forge: GitHubForge, work: Work, proxy: FaultProxy, status: int
) -> None:
    proxy.answer("POST", PULLS, status, {"message": "Server Error"}, when="after")
    opened = await forge.open(work.published())
    assert await work.numbers() == [opened.number]
    assert proxy.count("POST", PULLS) == 1


async def test_an_answer_dropped_after_acting(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    proxy.drop("POST", PULLS, when="after")
    opened = await forge.open(work.published())
    assert await work.numbers() == [opened.number]


async def test_no_answer_in_time_after_acting(
    make_forge: Callable[..., GitHubForge], work: Work, proxy: FaultProxy
) -> None:
    forge = make_forge(token=TOKEN, total_timeout=timedelta(seconds=3))
    proxy.hang("POST", PULLS, when="after")
    opened = await forge.open(work.published())
    assert await work.numbers() == [opened.number]


async def test_dropped_before_acting_it_is_not_made_again_by_itself(
    forge: GitHubForge, work: Work, proxy: FaultProxy
) -> None:
    proxy.drop("POST", PULLS, when="instead")
    with pytest.raises(ForgeUnavailableError, match="could not be reached for POST"):
        await forge.open(work.published())
    assert proxy.count("POST", PULLS) == 1
    opened = await forge.open(work.published())
    assert await work.numbers() == [opened.number]


async def test_the_look_after_a_lost_answer_is_lost_too(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    proxy.drop("POST", PULLS, when="after")
    proxy.answer("GET", PULLS, 200, [])
    proxy.drop("GET", PULLS, when="instead")
    with pytest.raises(ForgeUnavailableError):
        await forge.open(work.published())
    opened = await forge.open(work.published())
    assert await work.numbers() == [opened.number]


async def test_scripted_already_exists_is_success(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    """The emulator takes a second one: that GitHub does not is scripted."""
    first = await forge.open(work.published())
    proxy.answer("GET", PULLS, 200, [])
    proxy.answer("POST", PULLS, 422, ALREADY)
    assert (await forge.open(work.published())).number == first.number
    assert not proxy.unused


async def test_scripted_already_exists_but_is_not_shown_yet(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    proxy.answer("POST", PULLS, 422, ALREADY)
    with pytest.raises(ForgeUnavailableError, match="exists but does not show it"):
        await forge.open(work.published())


async def test_scripted_invalid_says_what_is(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    errors = [{"resource": "PullRequest", "field": "base", "code": "invalid"}, "No commits between main and fix-1"]
    proxy.answer("POST", PULLS, 422, {"message": "Validation Failed", "errors": errors})
    with pytest.raises(
        ForgeRefusedError, match="Validation Failed: PullRequest base invalid; No commits between"
    ) as caught:
        await forge.open(work.published())
    assert not caught.value.retryable
    assert await work.numbers() == []


@pytest.mark.parametrize(
    ("publish", "before", "mutation"),
    [
        (Publish.PULL_REQUEST, Publish.DRAFT, "markPullRequestReadyForReview"),
        (Publish.DRAFT, Publish.PULL_REQUEST, "convertPullRequestToDraft"),
    ],
)
async def test_scripted_a_draft_becomes_ready_and_back_over_graphql(
    forge: GitHubForge, work: Work, proxy: FaultProxy, publish: Publish, before: Publish, mutation: str
) -> None:
    """The emulator speaks no GraphQL."""
    opened = await forge.open(work.published(publish=before))
    pull = await work.emulate.ada.pull(work.full_name, opened.number or 0)
    proxy.answer("POST", "/graphql$", 200, {"data": {mutation: {"clientMutationId": None}}})
    assert not (await forge.open(work.published(publish=publish))).notes
    (asked,) = proxy.asked("POST", "/graphql$")
    assert mutation in asked.body["query"]
    assert asked.body["variables"] == {"id": pull["node_id"]}


async def test_a_draft_that_cannot_be_made_ready_is_a_note(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    opened = await forge.open(work.published(publish=Publish.DRAFT))
    again = await forge.open(work.published())
    assert again.number == opened.number
    (note,) = again.notes
    assert "could not be marked as ready" in note
    errors = [{"type": "FORBIDDEN", "message": "Resource not accessible by integration"}]
    proxy.answer("POST", "/graphql$", 200, {"data": None, "errors": errors})
    (note,) = (await forge.open(work.published())).notes
    assert "Resource not accessible by integration" in note
