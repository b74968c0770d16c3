"""What nobody asks for any more goes, a little at a time; what is still owed, or may still be told, stays."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import cast
from uuid import UUID

import orjson
from cryptography.fernet import Fernet
from uuid_utils.compat import uuid7

from services.jobs.forge_apps import ForgeApps
from services.jobs.forge_pacing import ForgePacing
from services.jobs.unit import SQL
from services.runtime.postgres import Connection, Statements
from services.runtime.sealing import Sealer
from tests.integration.jobs.domain import REPOSITORY, Domain
from tests.integration.jobs.test_plans import Explaining, rows_read

A_MONTH, A_DAY = timedelta(days=30), timedelta(days=1)
A_BIT = timedelta(minutes=1)
WORK_ITEM = (
    "INSERT INTO work_items (id, client_id, kind, repository, number, job_id) VALUES ($1, $2, 'issue', $3, 7, $4)"
)
COMMENT = (
    "INSERT INTO forge_comments (id, work_item_id, repository, number, body, due_at)"
    " VALUES (uuidv7(-$1::interval), $2, $3, 7, $4, CASE WHEN $5 THEN now() END)"
)
DUE = 50
COMMENTS = (
    "INSERT INTO forge_comments (id, work_item_id, repository, number, body, due_at)"
    " SELECT uuidv7(n * interval '-1 second'), $1, $2, 7, 'x', CASE WHEN n <= 50 THEN now() END"
    " FROM generate_series(1, 20000) n"
)

LONG_UNUSED = "UPDATE forge_pace SET refilled_at = now() - $1::interval, paused_until = now() - $1::interval"


async def work_item(domain: Domain) -> UUID:
    identifier, job_id = uuid7(), await domain.submit()
    await domain.execute(WORK_ITEM, identifier, domain.client.id, REPOSITORY, job_id)
    return identifier


async def test_comments_that_were_said_or_given_up_are_kept_for_a_month(domain: Domain) -> None:
    item = await work_item(domain)
    for body, age, is_due in (
        ("long said", A_MONTH + A_BIT, False),
        ("said", A_MONTH - A_BIT, False),
        ("still owed", A_MONTH + A_BIT, True),
    ):
        await domain.execute(COMMENT, age, item, REPOSITORY, body, is_due)

    await domain.scheduling.forget_old()

    left = await domain.rows("SELECT body FROM forge_comments ORDER BY body")
    assert [row["body"] for row in left] == ["said", "still owed"]
    assert len(await domain.rows("SELECT FROM work_items")) == 1, "it is what makes nothing start twice"


async def test_of_many_comments_those_that_are_due_or_old_are_read_alone(domain: Domain) -> None:
    await domain.execute(COMMENTS, await work_item(domain), REPOSITORY)
    await domain.execute("ANALYZE forge_comments")
    async with domain.database.transaction() as connection:
        taking, forgetting = (Explaining(connection, options="ANALYZE, FORMAT JSON") for _ in range(2))
        of_comments, of_the_sweep = Statements(SQL / "forge_comments.sql"), Statements(SQL / "scheduling.sql")
        await of_comments.rows(cast("Connection", taking), "take_due", most=4, again=A_BIT)
        await of_the_sweep.execute(cast("Connection", forgetting), "forget_comments")
    for explaining, most in ((taking, DUE * (DUE + 1)), (forgetting, DUE)):
        words = orjson.dumps(explaining.plan, option=orjson.OPT_INDENT_2).decode()
        assert rows_read(explaining.plan, "forge_comments") <= most, words


async def test_the_limits_of_credentials_that_nobody_uses_are_forgotten(domain: Domain) -> None:
    scopes = ("of a job that ended", "paused for long", "in use")
    for scope in scopes:
        await ForgePacing(domain.database, scope, creations_per_minute=20).before(creates=True)
    await domain.execute(f"{LONG_UNUSED} WHERE scope <> 'in use'", A_DAY + A_BIT)
    await ForgePacing(domain.database, "paused for long", creations_per_minute=20).pause(60, "it wants us to wait")

    await domain.scheduling.forget_old()

    assert {row["scope"] for row in await domain.rows("SELECT scope FROM forge_pace")} == set(scopes[1:])


async def test_limits_that_are_being_looked_at_are_not_waited_for(domain: Domain) -> None:
    await ForgePacing(domain.database, "a scope", creations_per_minute=20).before(creates=False)
    await domain.execute(LONG_UNUSED, 2 * A_DAY)
    async with domain.database.transaction() as connection:
        await connection.execute("SELECT FROM forge_pace FOR UPDATE")
        await asyncio.wait_for(domain.scheduling.forget_old(), 30)
        assert len(await domain.rows("SELECT FROM forge_pace")) == 1


async def test_installations_that_were_removed_are_remembered_for_a_month(domain: Domain) -> None:
    apps = ForgeApps(domain.database, Sealer(Fernet.generate_key().decode()))
    for number in (1, 2, 3):
        await apps.record_installation(number, app_id=7, account="acme")
    for number in (1, 2):
        await apps.remove(number)
    ago = "UPDATE forge_installations SET removed_at = now() - $1::interval WHERE installation_id = 1"
    await domain.execute(ago, A_MONTH + A_BIT)

    await domain.scheduling.forget_old()

    left = await domain.rows("SELECT installation_id FROM forge_installations ORDER BY installation_id")
    assert [row["installation_id"] for row in left] == [2, 3]
