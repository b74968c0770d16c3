"""What clients read: their own alone, page by page, nothing twice and nothing left out."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from services.contracts.words import ChangesetState, EventKind, JobKind, JobState, Publish
from services.jobs.errors import BadCursorError, NotFoundError
from services.jobs.models import Checkpoint, Client, StoredMessage
from services.jobs.reading import ChangesetFilter, JobFilter, Reading
from services.jobs.unit import Draft
from tests.integration.jobs.domain import COMMIT, REPOSITORY, Domain

BAD_CURSORS = ["", "!", "nonsense", "bm9uc2Vuc2U", "MTIzNDU2Nzg5MDEyMw", "ü", "LTE", "4pGg"]
Read = Callable[[Reading, Client, UUID], Awaitable[Any]]
OF_A_RUN: dict[str, Read] = {
    "run": lambda reading, client, run_id: reading.run(client, run_id),
    "diff": lambda reading, client, run_id: reading.diff(client, run_id),
    "transcript": lambda reading, client, run_id: reading.transcript(client, run_id),
    "logs": lambda reading, client, run_id: reading.logs(client, run_id),
}


async def job_ids(domain: Domain, wanted: JobFilter | None = None, *, limit: int = 200) -> list[UUID]:
    """Of all pages."""
    found: list[UUID] = []
    cursor = None
    while True:
        page = await domain.reading.jobs(domain.client, wanted or JobFilter(), limit=limit, cursor=cursor)
        found += [job.id for job in page.items]
        cursor = page.next_cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
async def test_pages_of_jobs_are_newest_first_and_whole(domain: Domain, limit: int) -> None:
    jobs = [await domain.submit() for _ in range(5)]

    assert await job_ids(domain, limit=limit) == jobs[::-1]


async def test_numbered_pages_of_jobs_tell_how_many_there_are_also_beyond_the_last(domain: Domain) -> None:
    newest_first = [await domain.submit(metadata={"of": "mine"}) for _ in range(5)][::-1]
    await domain.submit()
    mine = JobFilter(metadata={"of": "mine"})
    for offset, limit in ((0, 2), (2, 2), (4, 2), (5, 2), (10**9, 2), (0, 0)):
        jobs, total = await domain.reading.jobs_at(domain.client, mine, offset=offset, limit=limit)
        assert ([job.id for job in jobs], total) == (newest_first[offset : offset + limit], 5)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6])
async def test_pages_of_runs_are_by_place_and_whole(domain: Domain, limit: int) -> None:
    job_id = await domain.submit(*(f"https://a/{n}" for n in range(5)))

    places: list[int] = []
    cursor: str | None = None
    for _ in range(6):
        page = await domain.reading.runs(domain.client, job_id, limit=limit, cursor=cursor)
        places += [run.position for run in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert places == [0, 1, 2, 3, 4]


async def test_pages_of_changesets_are_newest_first_and_whole(domain: Domain) -> None:
    made = []
    for n in range(3):
        run = await domain.start(f"https://a/{n}")
        made.append(await domain.running.deliver(run.hold, COMMIT, publish=Publish.NONE, summary="done"))

    first = await domain.reading.changesets(domain.client, ChangesetFilter(), limit=2, cursor=None)
    rest = await domain.reading.changesets(domain.client, ChangesetFilter(), limit=2, cursor=first.next_cursor)
    assert [changeset.id for changeset in [*first.items, *rest.items]] == made[::-1]
    assert rest.next_cursor is None


@pytest.mark.parametrize("cursor", BAD_CURSORS)
async def test_a_cursor_of_no_list_is_refused(domain: Domain, cursor: str) -> None:
    job_id = await domain.submit()

    with pytest.raises(BadCursorError):
        await domain.reading.jobs(domain.client, JobFilter(), limit=1, cursor=cursor)
    with pytest.raises(BadCursorError):
        await domain.reading.runs(domain.client, job_id, limit=1, cursor=cursor)
    with pytest.raises(BadCursorError):
        await domain.reading.changesets(domain.client, ChangesetFilter(), limit=1, cursor=cursor)


async def test_jobs_are_found_by_every_filter(domain: Domain) -> None:
    run = await domain.start("https://b/3")
    plain = await domain.submit()
    named = await domain.submit("https://b/2", name="a name")
    task = await domain.submit(kind="task")
    before = datetime.now(UTC) - timedelta(hours=1)
    after = datetime.now(UTC) + timedelta(hours=1)

    filters = [
        (JobFilter(states=(JobState.RUNNING,)), {run.hold.job_id}),
        (JobFilter(states=(JobState.RUNNING, JobState.QUEUED)), {plain, named, task, run.hold.job_id}),
        (JobFilter(states=(JobState.FAILED,)), set()),
        (JobFilter(kind=JobKind.TASK), {task}),
        (JobFilter(name="a name"), {named}),
        (JobFilter(repository=REPOSITORY), {plain, task}),
        (JobFilter(repository="https://b/2", name="a name"), {named}),
        (JobFilter(created_after=before, created_before=after), {plain, named, task, run.hold.job_id}),
        (JobFilter(created_after=after), set()),
        (JobFilter(created_before=before), set()),
    ]
    assert [set(await job_ids(domain, wanted)) for wanted, _ in filters] == [jobs for _, jobs in filters]


async def test_changesets_are_found_by_every_filter(domain: Domain) -> None:
    run, changeset_id = await domain.hand_over()
    for wanted in (
        ChangesetFilter(state=ChangesetState.QUEUED),
        ChangesetFilter(job_id=run.hold.job_id),
        ChangesetFilter(run_id=run.hold.run_id),
        ChangesetFilter(repository=REPOSITORY),
    ):
        page = await domain.reading.changesets(domain.client, wanted, limit=5, cursor=None)
        assert [changeset.id for changeset in page.items] == [changeset_id]
    for wanted in (
        ChangesetFilter(state=ChangesetState.OPEN),
        ChangesetFilter(job_id=uuid4()),
        ChangesetFilter(run_id=uuid4()),
        ChangesetFilter(repository="https://b/2"),
    ):
        assert (await domain.reading.changesets(domain.client, wanted, limit=5, cursor=None)).items == []


async def test_a_run_is_read_with_its_changeset_transcript_and_logs(domain: Domain) -> None:
    run = await domain.start()
    body = b'{"role":"user","content":[{"type":"text","text":"hi"}]}'
    log = Draft(EventKind.LOG, {"level": "warning", "message": "careful"})
    await domain.running.checkpoint(run.hold, Checkpoint(messages=[StoredMessage(1, "user", body)], events=[log]))
    with pytest.raises(NotFoundError):
        await domain.reading.diff(domain.client, run.hold.run_id)
    changeset_id = await domain.running.deliver(run.hold, COMMIT, publish=Publish.NONE, summary="done")

    found = await domain.reading.run(domain.client, run.hold.run_id)
    transcript = await domain.reading.transcript(domain.client, run.hold.run_id)
    logs = await domain.reading.logs(domain.client, run.hold.run_id)
    changeset = await domain.reading.changeset(domain.client, changeset_id)

    assert (found.state, found.outcome, found.attempt, found.changeset) == ("completed", "stored", 1, changeset)
    assert (changeset.insertions, changeset.deletions, changeset.files[0].path) == (3, 1, "x")
    assert [message.content for message in transcript.messages] == [[{"type": "text", "text": "hi"}]]
    assert [(line.level, line.message) for line in logs.lines] == [("warning", "careful")]
    assert await domain.reading.diff(domain.client, run.hold.run_id) == COMMIT.patch


async def test_others_see_nothing_of_it(domain: Domain) -> None:
    run = await domain.start()
    changeset_id = await domain.running.deliver(run.hold, COMMIT, publish=Publish.NONE, summary="done")
    other = await domain.new_client("other")
    reading = domain.reading

    for read in OF_A_RUN.values():
        assert await read(reading, domain.client, run.hold.run_id) is not None
        with pytest.raises(NotFoundError):
            await read(reading, other, run.hold.run_id)
    with pytest.raises(NotFoundError):
        await reading.job(other, run.hold.job_id)
    with pytest.raises(NotFoundError):
        await reading.runs(other, run.hold.job_id, limit=5, cursor=None)
    with pytest.raises(NotFoundError):
        await reading.changeset(other, changeset_id)
    assert (await reading.jobs(other, JobFilter(), limit=5, cursor=None)).items == []
    wanted = ChangesetFilter(job_id=run.hold.job_id)
    assert (await reading.changesets(other, wanted, limit=5, cursor=None)).items == []


@pytest.mark.parametrize("what", OF_A_RUN)
async def test_what_is_not_there_is_said_so(domain: Domain, what: str) -> None:
    with pytest.raises(NotFoundError, match="no "):
        await OF_A_RUN[what](domain.reading, domain.client, uuid4())
