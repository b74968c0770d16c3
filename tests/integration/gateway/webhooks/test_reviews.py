"""Remarks on pull requests of ours become runs on their branch, and are answered where they stand."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from cryptography.fernet import Fernet

from services.contracts.delivery import PullRequestOptions
from services.contracts.v1 import vcs_pb2
from services.contracts.words import Outcome, Publish, Queue
from services.gateway.dialects.codebot.looking import Looking
from services.jobs.models import ClaimedRun
from services.jobs.sealed import job_owner
from services.runtime.postgres import Database
from services.runtime.sealing import Sealer
from tests.integration.gateway.vcs_nodes import Plan
from tests.integration.gateway.webhooks.hooking import (
    Hooked,
    failed_checks,
    hooked_gateway,
    issue_there,
    review_comment,
    reviewed,
    said_on_pull,
    surface,
)
from tests.integration.jobs.changes import claimed, on_github, open_change, sha, show
from tests.integration.jobs.domain import COMMIT, REPOSITORY

PULL = 7
BODY = "As asked.\n\n<!-- quarterdeck:changeset=1 -->"


async def opened(hooked: Hooked, **fields: Any) -> UUID:
    """A pull request of ours, whose title and text somebody changed since."""
    changeset = await hooked.beside(open_change(hooked.domain, PULL, **fields))
    hooked.there(issue_there(PULL, title="Renamed it", body=BODY, is_pull_request=True))
    return changeset


async def answer(hooked: Hooked, run: ClaimedRun, summary: str) -> None:
    """Let the run end with ``summary`` and no change, and that be told."""
    await hooked.domain.running.complete(run.hold, Outcome.NO_CHANGES, summary=summary)
    await hooked.items.answer_ended(most=10)


async def push(hooked: Hooked, run: ClaimedRun, summary: str, commit_sha: str) -> UUID:
    """Let the run end with a commit on the pull request, and that be told; the changeset's id."""
    commit = replace(COMMIT, sha=commit_sha)
    changeset = await hooked.domain.running.deliver(run.hold, commit, publish=Publish.PULL_REQUEST, summary=summary)
    await show(hooked.domain, await claimed(hooked.domain, changeset), on_github(PULL))
    await hooked.items.answer_ended(most=10)
    return changeset


async def comments(hooked: Hooked) -> list[tuple[int, str | None, str]]:
    rows = await hooked.domain.rows("SELECT * FROM forge_comments ORDER BY created_at, id")
    return [(row["number"], row["in_reply_to"], row["body"]) for row in rows]


async def test_a_review_comment_is_a_run_on_the_branch_and_is_answered_in_its_thread(hooked: Hooked) -> None:
    changeset = await opened(hooked, publish="draft", maxAttempts=5, name="nightly")
    await hooked.domain.execute("UPDATE changesets SET is_draft = false")
    await hooked.deliver("pull_request_review_comment", review_comment())
    shown = await hooked.domain.row("changesets", changeset)
    job = await hooked.job()
    run = await hooked.run_of(job["id"])
    # Whose pull request it is, whichever address the delivery came to.
    assert (job["client"], job["name"], job["queue"], run["queue"]) == ("tester", "nightly", "review", "review")
    assert (run["repository"], run["branch"], run["base_ref"]) == (REPOSITORY, shown["branch"], shown["branch"])
    assert run["base_branch"] == shown["base_branch"] == "main"
    for words in ("Change one thing", "Renamed it", "As asked.", "by ada on x.py, line 3", "@@ -1 +1 @@", "Rename it."):
        assert words in job["prompt"]
    options = job["options"]
    assert (options["publish"], options["maxAttempts"]) == ("pull_request", 5)
    # The pull request's words stay as they are, and asking for a review anew is for people.
    assert PullRequestOptions.model_validate(options["pullRequest"]) == PullRequestOptions()
    (item,) = await hooked.domain.rows("SELECT * FROM work_items")
    assert (item["kind"], item["subject"], item["changeset_id"]) == ("review", "review-comment:501", changeset)
    assert await comments(hooked) == []

    await push(hooked, await hooked.start(), "change_request\n\nI renamed it.", sha("d"))
    (row,) = await hooked.domain.rows("SELECT state, superseded_by FROM changesets WHERE id = $1", changeset)
    assert row["state"] == "closed"
    assert await comments(hooked) == [(PULL, "501", "I renamed it.\n\nIt is in commit dddddddddd.")]


async def test_an_answer_in_a_thread_is_answered_at_its_beginning(hooked: Hooked) -> None:
    await opened(hooked)
    await hooked.deliver("pull_request_review_comment", review_comment(502, in_reply_to_id=501, body="Why?"))
    await answer(hooked, await hooked.start(), "**query**: It was so before.")
    assert await comments(hooked) == [(PULL, "501", "It was so before.")]


@pytest.mark.parametrize(
    ("event", "payload"), [("issue_comment", said_on_pull()), ("pull_request_review", reviewed())], ids=str
)
async def test_what_is_said_on_the_pull_request_is_answered_on_it(
    hooked: Hooked, event: str, payload: dict[str, Any]
) -> None:
    await opened(hooked)
    for _ in range(2):
        await hooked.deliver(event, payload)
    await answer(hooked, await hooked.start(), "appreciation\nThank you.")
    assert await comments(hooked) == [(PULL, None, "Thank you.")]


NOTHING = {
    "edited": ("pull_request_review_comment", review_comment() | {"action": "edited"}),
    "another pull request": ("pull_request_review_comment", review_comment(number=8)),
    "another repository": ("issue_comment", said_on_pull() | {"repository": {"full_name": "b/one"}}),
    "ours, marked": ("issue_comment", said_on_pull(body="Done. <!-- quarterdeck:comment=1 -->")),
    "ours, by login": ("issue_comment", said_on_pull(user={"login": "Deck", "type": "User"})),
    "a bot": ("issue_comment", said_on_pull(user={"login": "ci[bot]", "type": "Bot"})),
    "nobody": ("issue_comment", said_on_pull(user=None)),
    "a review without a word": ("pull_request_review", reviewed(body=None)),
    "a review of blanks": ("pull_request_review", reviewed(body=" \n")),
    "a dismissed review": ("pull_request_review", reviewed() | {"action": "dismissed"}),
}


@pytest.mark.parametrize("case", NOTHING)
async def test_what_is_no_remark_of_somebody_else_on_one_of_ours_starts_nothing(
    database: Database, plan: Plan, case: str
) -> None:
    async with hooked_gateway(database, plan, bot_login="deck") as hooked:
        await opened(hooked)
        await hooked.deliver(*NOTHING[case])
        assert await hooked.jobs() == []
        assert [(due, error) for due, _, error in await hooked.left()] == [(False, "")]


async def test_without_write_access_or_where_reviews_are_off_nothing_starts(database: Database, plan: Plan) -> None:
    async with hooked_gateway(database, plan, surface(), surface("off", reviews=False)) as hooked:
        await opened(hooked)
        await hooked.deliver("issue_comment", said_on_pull(), to="off")
        hooked.there(issue_there(PULL), permission="read")
        await hooked.deliver("issue_comment", said_on_pull())
        assert await hooked.jobs() == []
        hooked.there(issue_there(PULL))
        await hooked.deliver("issue_comment", said_on_pull(602))
        assert len(await hooked.jobs()) == 1


async def test_five_comments_at_once_are_five_runs_one_after_the_other(hooked: Hooked) -> None:
    await opened(hooked)
    for number in range(5):
        await hooked.keep("pull_request_review_comment", review_comment(510 + number))
    await asyncio.gather(*(hooked.work() for _ in range(3)))
    jobs = await hooked.jobs()
    assert (len(jobs), {job["queue"] for job in jobs}) == (5, {"review"})
    changeset, seen = None, []
    for number in range(5):
        run = await hooked.start()  # the only one that is let go
        seen.append(run.hold.job_id)
        changeset = await push(hooked, run, f"change_request\nDone {number}", f"{number}" * 40)
    assert sorted(seen) == sorted(job["id"] for job in jobs)
    rows = await hooked.domain.rows("SELECT id FROM changesets WHERE state = 'open'")
    assert [row["id"] for row in rows] == [changeset]
    assert len({body for *_, body in await comments(hooked)}) == 5


async def test_failed_checks_are_repaired_no_more_often_than_is_allowed(hooked: Hooked) -> None:
    changeset = await opened(hooked)
    check = vcs_pb2.FailedCheck(name="test", conclusion="failure", title="1 failed", summary="test_x is red")
    head = (await hooked.domain.row("changesets", changeset))["commit_sha"]
    for number in range(3):
        hooked.there(issue_there(PULL), check)
        for _ in range(2):
            await hooked.deliver("check_suite", failed_checks(head))
        jobs = await hooked.jobs()
        assert len(jobs) == min(2, number + 1)
        if number < 2:
            assert (jobs[-1]["queue"], jobs[-1]["metadata"]["webhook"]) == ("review", "check")
            assert "test_x is red" in jobs[-1]["prompt"]
            head = f"{number}" * 40
            await push(hooked, await hooked.start(), "It was the clock.", head)
    assert [words for *_, words in await comments(hooked)] == [
        "It was the clock.\n\nIt is in commit 0000000000.",
        "It was the clock.\n\nIt is in commit 1111111111.",
    ]


async def test_checks_that_are_not_of_a_head_of_ours_or_do_not_fail_start_nothing(
    database: Database, plan: Plan
) -> None:
    async with hooked_gateway(database, plan, surface(), surface("off", check_fixes=0)) as hooked:
        head = (await hooked.domain.row("changesets", await opened(hooked)))["commit_sha"]
        check = vcs_pb2.FailedCheck(name="test", conclusion="failure")
        hooked.there(issue_there(PULL), check)
        await hooked.deliver("check_suite", failed_checks(head, "success"))
        await hooked.deliver("check_suite", failed_checks(sha("9")))
        await hooked.deliver("check_suite", failed_checks(head), to="off")
        hooked.there(issue_there(PULL))  # the suite failed, but none of its checks does any more
        await hooked.deliver("check_suite", failed_checks(head))
        assert await hooked.jobs() == []
        hooked.there(issue_there(PULL), check)
        await hooked.deliver("check_suite", failed_checks(head, "timed_out"))
        assert len(await hooked.jobs()) == 1


async def test_a_remark_on_a_task_of_codebots_is_in_its_queue_of_reviews_and_no_task_of_its_own(hooked: Hooked) -> None:
    codebot = hooked.domain.client = await hooked.gateway.clients.ensure("codebot")
    await opened(hooked)
    await hooked.deliver("pull_request_review_comment", review_comment())
    assert await hooked.gateway.clients.queued(codebot) == {Queue.REVIEW: 1}
    looking = Looking(hooked.gateway.reading, codebot, timedelta(days=1))
    review = await hooked.job()
    assert review["client"] == "codebot"
    tasks = await looking.newest(None, limit=10)
    assert (len(tasks), review["id"] in {task.id for task in tasks}) == (1, False)
    assert (await looking.one(review["id"])).id == review["id"]


async def test_the_secrets_of_the_job_go_on_to_what_follows(database: Database, plan: Plan) -> None:
    sealer = Sealer(Fernet.generate_key().decode())
    async with hooked_gateway(database, plan, sealer=sealer) as hooked:
        await opened(hooked)
        (job,) = await hooked.domain.rows("SELECT id FROM jobs")
        sealed = sealer.seal({"githubToken": "ghp_x"}, owner=job_owner(job["id"]))
        await hooked.domain.execute("UPDATE jobs SET sealed = $1", sealed)
        await hooked.deliver("issue_comment", said_on_pull())
        review = await hooked.job()
        assert dict(sealer.open(review["sealed"], owners=[job_owner(review["id"])]).secrets) == {"githubToken": "ghp_x"}
