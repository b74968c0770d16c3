"""What is to be said on a forge is said once, in its order, and given up in words; on the domain's real database."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from services.jobs.forge_comments import ForgeComments, queue
from services.runtime.postgres import Connection, Record, StoreUnavailableError
from services.vcs.errors import ForgePausedError, ForgeRefusedError, ForgeUnavailableError
from services.vcs.forges import MarkedComment, PostedComment
from services.vcs.forges.local import LocalForge
from services.vcs.publishing.commenter import MAX_TRIES, MOST_CLAIMS, Commenter
from tests.integration.jobs.domain import REPOSITORY, Domain

PAGE = "https://forge.example/c/1"
HOUR = timedelta(hours=1)


@dataclass
class Wall:
    """The forges and one of them at once, which notes what it is told to say."""

    error: Exception | None = None
    said: list[MarkedComment] = field(default_factory=list)

    def of(self, _: Any) -> Wall:
        return self

    async def post(self, comment: MarkedComment) -> PostedComment:
        self.said.append(comment)
        if self.error is not None:
            raise self.error
        return PostedComment("1", PAGE)


@pytest.fixture
def comments(domain: Domain) -> ForgeComments:
    return ForgeComments(domain.database)


async def work_item(domain: Domain, number: int = 7) -> UUID:
    identifier, job_id = uuid7(), await domain.submit()
    statement = (
        "INSERT INTO work_items (id, client_id, kind, repository, number, job_id) VALUES ($1, $2, 'issue', $3, $4, $5)"
    )
    await domain.execute(statement, identifier, domain.client.id, REPOSITORY, number, job_id)
    return identifier


async def queued(domain: Domain, item: UUID, body: str = "Done.", **replaced: Any) -> UUID:
    described = {"repository": REPOSITORY, "number": 7, "in_reply_to": None, **replaced}

    async def work(connection: Connection) -> UUID:
        return await queue(connection, work_item_id=item, body=body, **described)

    return await domain.database.in_transaction(work)


async def due_again(domain: Domain) -> None:
    await domain.execute("UPDATE forge_comments SET due_at = now() WHERE due_at IS NOT NULL")


async def row(domain: Domain, identifier: UUID) -> Record:
    return await domain.row("forge_comments", identifier)


def commenter(comments: ForgeComments, forges: Any) -> Commenter:
    return Commenter(comments, forges, allow_local=False)


async def test_what_is_queued_is_said_once_and_where_is_kept(domain: Domain, comments: ForgeComments) -> None:
    wall = Wall()
    identifier = await queued(domain, await work_item(domain), "NUL\0.", in_reply_to="9")
    for _ in range(2):
        await commenter(comments, wall).run_once()
        await due_again(domain)
    (said,) = wall.said
    assert (said.id, said.number, said.body, said.in_reply_to) == (str(identifier), 7, "NUL\N{SYMBOL FOR NULL}.", "9")
    assert (said.repository.url, said.tried_since) == (REPOSITORY, None)
    kept = await row(domain, identifier)
    assert (kept["url"], kept["due_at"], kept["error"], kept["attempts"]) == (PAGE, None, None, 1)
    assert kept["posted_at"] is not None


async def test_what_is_taken_back_is_never_said(domain: Domain, comments: ForgeComments) -> None:
    item, wall = await work_item(domain), Wall()

    async def work(connection: Connection) -> None:
        await queue(connection, work_item_id=item, repository=REPOSITORY, number=7, in_reply_to=None, body="Done.")
        raise LookupError

    with pytest.raises(LookupError):
        await domain.database.in_transaction(work)
    await commenter(comments, wall).run_once()
    assert wall.said == []


async def test_one_that_is_queued_again_under_its_id_is_one(domain: Domain, comments: ForgeComments) -> None:
    item, identifier, wall = await work_item(domain), uuid7(), Wall()
    for _ in range(2):
        await queued(domain, item, comment_id=identifier)
    await commenter(comments, wall).run_once()
    assert [said.id for said in wall.said] == [str(identifier)]


async def test_each_is_taken_by_one_and_again_where_nothing_was_recorded(
    domain: Domain, comments: ForgeComments
) -> None:
    wanted = {await queued(domain, await work_item(domain, number)) for number in range(1, 9)}
    taken = await asyncio.gather(*(comments.take_due(most=3, again=HOUR) for _ in range(4)))
    assert sorted(one.id for some in taken for one in some) == sorted(wanted)
    assert await comments.take_due(most=10, again=HOUR) == []
    await due_again(domain)
    again = await comments.take_due(most=10, again=HOUR)
    assert [one.tries for one in again] == [2] * len(wanted)


async def test_of_one_work_item_they_are_said_in_their_order(domain: Domain, comments: ForgeComments) -> None:
    item = await work_item(domain)
    first, second = await queued(domain, item, "I am at it."), await queued(domain, item, "Done.")
    (taken,) = await comments.take_due(most=10, again=HOUR)
    assert taken.id == first
    assert await comments.take_due(most=10, again=HOUR) == []
    await comments.give_up(taken, error="locked")
    assert [one.id for one in await comments.take_due(most=10, again=HOUR)] == [second]


async def test_a_pause_is_waited_for_and_counts_as_no_try(domain: Domain, comments: ForgeComments) -> None:
    wall = Wall(ForgePausedError("GitHub wants to be asked less", seconds=3_000))
    identifier = await queued(domain, await work_item(domain))
    await commenter(comments, wall).run_once()
    statement = "SELECT due_at - now() AS wait, attempts, error FROM forge_comments WHERE id = $1"
    (kept,) = await domain.rows(statement, identifier)
    assert timedelta(seconds=2_900) < kept["wait"] <= timedelta(seconds=3_000)
    assert (kept["attempts"], kept["error"]) == (0, "GitHub wants to be asked less")
    wall.error = None
    await due_again(domain)
    await commenter(comments, wall).run_once()
    # Nothing can have been posted by what was no try: it is not looked for.
    assert [said.tried_since for said in wall.said] == [None, None]
    assert (await row(domain, identifier))["url"] == PAGE


async def test_what_may_have_been_posted_is_looked_for(domain: Domain, comments: ForgeComments) -> None:
    identifier = await queued(domain, await work_item(domain))
    wall = Wall(ForgeUnavailableError("GitHub did not answer"))
    await commenter(comments, wall).run_once()
    for error in (ForgePausedError("less", seconds=1), None):
        wall.error = error
        await due_again(domain)
        await commenter(comments, wall).run_once()
    kept = await row(domain, identifier)
    assert [said.tried_since for said in wall.said] == [None, kept["created_at"], kept["created_at"]]
    assert (kept["url"], kept["error"]) == (PAGE, None)


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (ForgeRefusedError("GitHub does not permit it", git_message="issue is locked"), 1),
        (ForgeUnavailableError("GitHub failed itself"), 2),
        (RuntimeError("a bug"), 2),
    ],
)
async def test_it_is_given_up_with_the_words(
    domain: Domain, comments: ForgeComments, error: Exception, tries: int
) -> None:
    wall, identifier = Wall(error), await queued(domain, await work_item(domain))
    await domain.execute("UPDATE forge_comments SET attempts = $1", MAX_TRIES - 2)
    for _ in range(tries + 1):
        await commenter(comments, wall).run_once()
        await due_again(domain)
    kept = await row(domain, identifier)
    assert (len(wall.said), kept["due_at"], kept["posted_at"]) == (tries, None, None)
    assert str(error) in kept["error"]


async def test_what_its_vcs_stops_over_again_and_again_is_given_up(domain: Domain, comments: ForgeComments) -> None:
    wall, identifier = Wall(), await queued(domain, await work_item(domain))
    await domain.execute("UPDATE forge_comments SET attempts = $1", MOST_CLAIMS)
    await commenter(comments, wall).run_once()
    kept = await row(domain, identifier)
    assert (wall.said, kept["due_at"]) == ([], None)
    assert f"stopped {MOST_CLAIMS} times" in kept["error"]


async def test_where_this_vcs_knows_no_forge_another_may(domain: Domain, comments: ForgeComments) -> None:
    nothing: Any = None
    wall = Wall()
    wall.of = lambda _: LocalForge(nothing, nothing, "")  # type: ignore[assignment, method-assign, return-value]
    identifiers = [
        await queued(domain, await work_item(domain, 1)),
        await queued(domain, await work_item(domain, 2), repository="https://a:b@[/"),
    ]
    await commenter(comments, wall).run_once()
    first, second = [await row(domain, identifier) for identifier in identifiers]
    assert (first["due_at"] is not None, second["due_at"]) == (True, None)
    assert "nowhere to comment; give them to every vcs service" in first["error"]
    assert second["error"]
    assert "a:b" not in second["error"]


async def test_postgres_away_after_it_was_said_ends_nothing_and_it_is_looked_for(
    domain: Domain, comments: ForgeComments
) -> None:
    wall, identifier = Wall(), await queued(domain, await work_item(domain))

    class Deaf(ForgeComments):
        async def posted(self, *_: Any) -> None:
            raise StoreUnavailableError("connection refused")

    await commenter(Deaf(domain.database), wall).run_once()
    assert (await row(domain, identifier))["posted_at"] is None
    await due_again(domain)
    await commenter(comments, wall).run_once()
    assert [said.tried_since is None for said in wall.said] == [True, False]


async def test_whoever_was_slow_changes_nothing_of_what_another_has_taken(
    domain: Domain, comments: ForgeComments
) -> None:
    identifier = await queued(domain, await work_item(domain))
    (slow,) = await comments.take_due(most=1, again=HOUR)
    await due_again(domain)
    (fast,) = await comments.take_due(most=1, again=HOUR)
    before = await row(domain, identifier)
    await comments.retry(slow, error="late", delay=timedelta())
    await comments.postpone(slow, error="late", delay=timedelta())
    await comments.give_up(slow, error="late")
    assert await row(domain, identifier) == before
    # The same answer twice, as where a commit's end was not heard, takes no more than one try away.
    for _ in range(2):
        await comments.postpone(fast, error="less", delay=timedelta())
    assert (await row(domain, identifier))["attempts"] == 1
