"""What happens on GitHub, end to end: an issue becomes a pull request, a remark on it a commit, and nobody else's word
does anything. All is real but GitHub's own servers and the model.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import httpx
import pytest

from quarterdeck import Client
from quarterdeck.stack.detached import read_status
from quarterdeck.stack.info import StackInfo
from services.contracts.rest import Job
from services.runtime.postgres import Database
from tests.acceptance.hub import BOT, Hub, running_hub
from tests.acceptance.places import ASKED, FILE, Place
from tests.acceptance.stacks import Stack, running_stack, until
from tests.integration.vcs.github.emulated import Json

pytestmark = pytest.mark.timeout(240)
WORKER: Final = "worker/webhooks/github"
CODEBOT: Final = "codebot/webhook"
FILES: Final = {FILE: "the colour\n"}
REMARK: Final = "Replace all occurrences of 'color' with 'hue'."
WATCHED: Final = ("number", "html_url", "title", "body", "draft", "state")
CODEBOT_KEY: Final = "secret-key-1"
SETTINGS: Final = {
    "QUARTERDECK_WORKER_REVIEWS": "true",
    "QUARTERDECK_WORKER_CHECK_FIXES": "1",
    "CODEBOT_API_KEYS": CODEBOT_KEY,
}


PlaceOf = Callable[..., Awaitable[Place]]


@pytest.fixture(scope="module")
async def hub(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hub]:
    async with running_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="module")
async def stack(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("stack"), variables=hub.variables | SETTINGS) as running:
        hub.gateway = (await info_of(running)).address
        yield running


async def info_of(stack: Stack) -> StackInfo:
    info = (await read_status(stack.options.data_dir)).info
    assert info is not None
    return info


@pytest.fixture(scope="module")
async def place_of(hub: Hub, stack: Stack) -> AsyncIterator[PlaceOf]:
    """Makes a repository that tells a path of the gateway what happens there."""
    info = await info_of(stack)
    database = Database(info.database_url, size=2, name="test")
    clients: dict[str, Client] = {}
    async with AsyncExitStack() as stack_of_clients:
        stack_of_clients.push_async_callback(database.close)
        for name in ("worker", "codebot"):
            (found,) = [client async for client in stack.client.clients(name=name)]
            key = (await stack.client.replace_client_key(found.id)).api_key
            clients[name] = await stack_of_clients.enter_async_context(Client(info.address, key))

        async def make(hook: str = WORKER, *, is_told: bool = True) -> Place:
            name = await hub.make_repository(FILES, hook=hook if is_told else None)
            return Place(hub, clients[hook.partition("/")[0]], database, name)

        yield make


@pytest.fixture
async def place(place_of: PlaceOf) -> Place:
    return await place_of()


async def payload_of_an_issue(place: Place) -> Json:
    """That grace has opened where no hook told of it, as GitHub would tell it."""
    described = {"title": "Spell it as others do", "body": ASKED}
    issue = await place.grace.ask("POST", f"/repos/{place.name}/issues", described)
    repository = {"full_name": place.name, "clone_url": f"{place.hub.address}/{place.name}.git"}
    return {"action": "opened", "issue": issue, "repository": repository}


async def pull_of(place: Place) -> tuple[Json, Job]:
    """That an issue has become, with the job that made it."""
    number = await place.issue()
    job = await place.ended(1)
    await place.answered(number, 2)
    return await place.pull(), job


async def test_an_issue_becomes_a_pull_request(place: Place) -> None:
    number = await place.issue()
    acknowledged, *_ = await place.answered(number, 1)
    job = await place.ended(1)
    run, pull = await place.run(job), await place.pull()
    assert (run.state, run.outcome) == ("completed", "delivered"), run.error
    assert str(job.id) in acknowledged
    branch = run.branch or ""
    assert re.fullmatch(rf"claude-code/issue-{number}-\d{{13}}", branch)
    assert (pull["head"]["ref"], pull["base"]["ref"], pull["state"]) == (branch, "main", "open")
    assert pull["body"].startswith(f"Fixes #{number}\n")
    assert (len(place.commits(branch)), place.text(branch)) == (1, "the color\n")
    said = await place.answered(number, 2)
    assert pull["html_url"] in said[-1]
    # Delivered again, and edited afterwards.
    opened = await place.delivery("issues", "opened")
    assert await place.hub.deliver_again(opened) == "seen before"
    await place.grace.ask("PATCH", f"/repos/{place.name}/issues/{number}", {"body": "Or leave it."})
    await place.delivery("issues", "edited")
    await place.settled()
    assert [each.id for each in await place.jobs()] == [job.id]
    assert await place.said_on(number) == said


async def test_remarks_on_the_pull_request(place: Place) -> None:
    pull, _ = await pull_of(place)
    number, branch = pull["number"], pull["head"]["ref"]
    before = await place.reword(pull)

    root = await place.remark(number, REMARK)
    job = await place.ended(2)
    run = await place.run(job)
    assert (run.state, run.outcome) == ("completed", "delivered"), run.error
    shas = place.commits(branch)
    assert (len(shas), place.text(branch)) == (2, "the hue\n")
    reply = await place.replied(number, root)
    assert f"It is in commit {shas[0][:10]}" in reply
    after = await place.pull()
    assert {word: after[word] for word in WATCHED} == {word: before[word] for word in WATCHED}

    # Said in the same thread, and no change.
    thanks = await place.remark(number, "Thank you!", in_reply_to_id=root)
    job = await place.ended(3)
    assert (await place.run(job)).outcome == "no_changes"
    await until(lambda: place.has(2, place.replies, number, root))
    assert place.commits(branch) == shas
    assert await place.replies(number, thanks) == []
    assert await place.said_on(number) == []

    # The bot itself, which does not say there that it is one.
    await place.remark(number, REMARK, by=place.hub.emulate.ada)
    await place.settled()
    assert len(await place.jobs()) == 3, "what the bot said there was taken for a remark"


@pytest.mark.slow
async def test_two_remarks_at_once_are_followed_one_after_the_other(place: Place) -> None:
    pull, _ = await pull_of(place)
    number, branch = pull["number"], pull["head"]["ref"]
    await place.reword(pull)
    roots = [await place.remark(number, body) for body in (REMARK, REMARK.replace("hue", "tint"))]
    await place.ended(3)
    replies = [await place.replied(number, root) for root in roots]
    text, commits = place.text(branch), place.commits(branch)
    assert (text, len(commits)) in (("the hue\n", 2), ("the tint\n", 2)), "the other one found nothing left to replace"
    assert sum("It is in commit" in reply for reply in replies) == 1
    await place.grace.ask("POST", f"/repos/{place.name}/issues/{number}/comments", {"body": "Thank you both!"})
    await place.ended(4)
    await place.answered(number, 1)
    await place.settled()
    assert {job.state for job in await place.jobs()} == {"completed"}
    assert (len(await place.jobs()), place.commits(branch)) == (4, commits)


@pytest.mark.slow
async def test_a_pull_request_that_cannot_be_opened_is_posted_as_a_patch(place: Place) -> None:
    place.hub.answer("POST", r"/pulls$", 403, {"message": "Resource not accessible by integration"})
    number = await place.issue()
    job = await place.ended(1)
    _, last = await place.answered(number, 2)
    assert job.state == "failed"
    for words in ("Resource not accessible by integration", "```diff", "-the colour", "+the color"):
        assert words in last
    assert await place.hub.emulate.ada.pulls(place.name) == []


async def test_failed_checks_are_repaired_once(place: Place) -> None:
    pull, _ = await pull_of(place)
    branch, sha = pull["head"]["ref"], place.commits(pull["head"]["ref"])[0]
    output = {"title": "Spelling", "summary": REMARK}
    failed = {"name": "spell", "head_sha": sha, "status": "completed", "conclusion": "failure", "output": output}
    await place.hub.emulate.ada.ask("POST", f"/repos/{place.name}/check-runs", failed)
    assert await place.check_suite(sha, hook=WORKER) == "taken"
    job = await place.ended(2)
    assert (await place.run(job)).outcome == "delivered"
    newest, *older = place.commits(branch)
    assert (older, place.text(branch)) == ([sha], "the hue\n")
    (said,) = await place.answered(pull["number"], 1)
    assert f"It is in commit {newest[:10]}" in said
    # No more than one is to be tried.
    await place.hub.emulate.ada.ask("POST", f"/repos/{place.name}/check-runs", failed | {"head_sha": newest})
    assert await place.check_suite(newest, hook=WORKER) == "taken"
    await place.settled()
    assert len(await place.jobs()) == 2


async def test_nobody_else_starts_anything(place_of: PlaceOf) -> None:
    place = await place_of(is_told=False)
    opened = await payload_of_an_issue(place)
    for who, result in (("linus", "taken"), ("nobody-at-all", "taken"), (BOT, "nothing to do")):
        payload = opened | {"sender": {"login": who, "type": "User"}}
        assert await place.hub.deliver(WORKER, "issues", payload) == result
    await place.settled()
    assert await place.jobs() == []
    assert await place.said_on(opened["issue"]["number"]) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("killed", "method", "path"),
    [
        ("gateway", "GET", r"/issues/\d+$"),
        ("vcs", "POST", r"/issues/\d+/comments$"),
        ("vcs", "POST", r"/pulls$"),
    ],
)
async def test_killed_in_the_middle_it_is_done_once(
    place: Place, stack: Stack, killed: str, method: str, path: str
) -> None:
    """Killed when what it asked for is done, and its answer has not come."""
    asked = place.hub.count(method, path)
    place.hub.hang(method, path, when="after")
    number = await place.issue()

    async def is_asked() -> bool:
        return place.hub.count(method, path) > asked

    await until(is_asked)
    await stack.signal(killed, signal.SIGKILL)
    await stack.until_healthy()
    await place.pass_delays()
    job = await place.ended(1)
    await place.pass_delays()
    _, last = await place.answered(number, 2)
    run, pull = await place.run(job), await place.pull()
    assert (run.outcome, len(place.commits(pull["head"]["ref"]))) == ("delivered", 1)
    assert pull["html_url"] in last
    await place.settled()
    assert (len(await place.said_on(number)), len(await place.jobs())) == (2, 1)


@pytest.mark.slow
async def test_a_codebot_task_is_reviewed_and_merged(stack: Stack, place_of: PlaceOf) -> None:
    place = await place_of(CODEBOT)
    address = f"{place.hub.gateway}/codebot/api/tasks"
    submission = {"repository_url": f"{place.hub.address}/{place.name}.git", "description": ASKED}
    async with httpx.AsyncClient(headers={"X-API-Key": CODEBOT_KEY}, trust_env=False) as codebot:
        task_id = (await codebot.post(f"{address}/submit", json=submission)).json()["task_id"]

        async def result() -> Json:
            found: Json = (await codebot.get(f"{address}/{task_id}/status")).json().get("result", {})
            return found

        async def is_shown() -> bool:
            return bool((await result()).get("pr_url"))

        await until(is_shown)
        folder, pull = Path((await result())["work_dir"]), await place.pull()
        assert (folder / FILE).read_text() == "the color\n"
        await place.reword(pull)
        root = await place.remark(pull["number"], REMARK)
        reply = await place.replied(pull["number"], root)
        assert place.commits(pull["head"]["ref"])[0][:10] in reply
        review = await place.ended(1)
        reviewed = folder.parents[1] / str((await place.run(review)).id) / "1"
        assert (reviewed / FILE).read_text() == "the hue\n"
        assert (await result())["work_dir"] is None, "the review's has taken its place"
        assert len((await codebot.get(address)).json()["tasks"]) == 1
        path = f"/repos/{place.name}/pulls/{pull['number']}"
        for state in ("closed", "open"):
            await place.grace.ask("PATCH", path, {"state": state})
            await place.seen(review, state)
        await place.grace.ask("PUT", f"{path}/merge", {})
        await place.seen(review, "merged")

        async def is_gone() -> bool:
            return not any(map(os.path.exists, (folder, reviewed)))

        await until(is_gone)
