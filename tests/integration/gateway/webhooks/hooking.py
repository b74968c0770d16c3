"""The webhook's machinery of one gateway over a real database, and payloads as GitHub sends them, cut short."""

import json
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

from pydantic import SecretStr

from services.contracts.v1 import vcs_pb2
from services.gateway.app import assemble
from services.gateway.context import Gateway
from services.gateway.webhooks.rules import ActorRule, IssueRule, Rules, Surface
from services.jobs.models import ClaimedRun
from services.jobs.scheduling import Dispatched
from services.jobs.work_items import WorkItems
from services.runtime.jetstream import Bus
from services.runtime.postgres import Database, Record
from services.runtime.sealing import Sealer
from tests.integration.gateway.vcs_nodes import TOKEN, Plan, register
from tests.integration.jobs.domain import REPOSITORY, Domain

Result = TypeVar("Result")

FULL_NAME = "a/one"
ADA = {"login": "ada", "type": "User"}
PLACE = {"full_name": FULL_NAME, "clone_url": REPOSITORY}


def surface(name: str = "worker", *, issues: str = "all", reviews: bool = True, check_fixes: int = 2) -> Surface:
    return Surface(name, name, IssueRule.parse(issues), reviews, check_fixes)


def issue_payload(action: str = "opened", number: int = 12, **more: Any) -> dict[str, Any]:
    """``more``: of the issue; `sender` and `label` are the event's."""
    top: dict[str, Any] = {name: more.pop(name) for name in ("sender", "label", "comment") if name in more}
    issue = {"number": number, "title": "It breaks", "body": "Always.", "labels": [], **more}
    return {"action": action, "issue": issue, "repository": PLACE, "sender": ADA, **top}


def review_comment(identifier: int = 501, number: int = 7, **more: Any) -> dict[str, Any]:
    comment = {
        "id": identifier,
        "user": ADA,
        "body": "Rename it.",
        "path": "x.py",
        "line": 3,
        "diff_hunk": "@@ -1 +1 @@\n-a\n+b",
    }
    pull = {"number": number, "title": "A title"}
    return {"action": "created", "comment": comment | more, "pull_request": pull, "repository": PLACE, "sender": ADA}


def said_on_pull(identifier: int = 601, number: int = 7, **more: Any) -> dict[str, Any]:
    comment = {"id": identifier, "user": ADA, "body": "Why so?"} | more
    issue = {"number": number, "title": "A title", "pull_request": {"url": "x"}}
    return {"action": "created", "comment": comment, "issue": issue, "repository": PLACE, "sender": ADA}


def reviewed(identifier: int = 701, number: int = 7, **more: Any) -> dict[str, Any]:
    review = {"id": identifier, "user": ADA, "body": "Nice.", "state": "commented"} | more
    return {"action": "submitted", "review": review, "pull_request": {"number": number}, "repository": PLACE}


def failed_checks(sha: str, conclusion: str = "failure") -> dict[str, Any]:
    suite = {"id": 9, "head_sha": sha, "conclusion": conclusion, "pull_requests": []}
    return {"action": "completed", "check_suite": suite, "repository": PLACE, "sender": {"login": "ci[bot]"}}


def issue_there(number: int = 12, **more: Any) -> vcs_pb2.Issue:
    """As the forge has it now."""
    fields = {"title": "It breaks", "body": "Always.", "state": "open", "author": "ada", **more}
    return vcs_pb2.Issue(number=number, **fields)


class Hooked:
    """One gateway's webhook. Deliveries are done when ``deliver`` returns."""

    def __init__(self, gateway: Gateway, domain: Domain, plan: Plan) -> None:
        self.gateway = gateway
        self.domain = domain
        self.plan = plan
        self.items = WorkItems(domain.database)

    def there(self, issue: vcs_pb2.Issue, *checks: vcs_pb2.FailedCheck, permission: str = "write") -> None:
        """What the forge has from now on."""
        self.plan.answers |= {
            "GetIssue": [issue],
            "GetPermission": [vcs_pb2.GetPermissionReply(permission=permission)],
            "GetFailedChecks": [vcs_pb2.GetFailedChecksReply(checks=checks)],
        }

    async def keep(self, event: str, payload: Mapping[str, Any], *, to: str = "worker", delivery: str = "") -> bool:
        body = json.dumps(payload).encode()
        return await self.gateway.webhook.deliveries.keep(to, delivery or str(uuid4()), event, body)

    async def deliver(self, event: str, payload: Mapping[str, Any], *, to: str = "worker", delivery: str = "") -> None:
        await self.keep(event, payload, to=to, delivery=delivery)
        await self.work()

    async def work(self) -> None:
        await self.gateway.webhook.inbox.run_once()

    async def beside(self, step: Awaitable[Result]) -> Result:
        """Take a step of the domain's; its nodes take the place of others, and vcs is to stay."""
        nodes = await self.domain.rows("SELECT name, address FROM nodes WHERE kind = 'vcs'")
        result = await step
        await self.domain.execute("DELETE FROM nodes WHERE kind = 'vcs'")
        for node in nodes:
            await register(self.domain.database, node["name"], node["address"])
        return result

    async def admit(self) -> list[Dispatched]:
        await self.domain.admitting.release_held()
        return await self.beside(self.domain.admit())

    async def start(self) -> ClaimedRun:
        """Let an agent begin with the one run that waits."""
        (order,) = await self.admit()
        run = await self.domain.claimed(order)
        await self.domain.running.prepared(run.hold, base_sha="b" * 40, base_branch="main", events=[])
        return run

    async def work_later(self) -> None:
        """When whatever waits has become due."""
        await self.domain.execute("UPDATE webhook_deliveries SET due_at = now() WHERE due_at IS NOT NULL")
        await self.work()

    async def jobs(self) -> list[Record]:
        """Those that the webhook made, in order."""
        return await self.domain.rows(
            "SELECT j.*, c.name AS client FROM jobs j JOIN clients c ON c.id = j.client_id "
            "WHERE j.metadata ? 'webhook' ORDER BY j.created_at, j.id"
        )

    async def job(self) -> Record:
        (job,) = await self.jobs()
        return job

    async def run_of(self, job_id: UUID) -> Record:
        (run,) = await self.domain.rows("SELECT * FROM runs WHERE job_id = $1", job_id)
        return run

    async def said(self) -> list[str]:
        rows = await self.domain.rows("SELECT body FROM forge_comments ORDER BY created_at, id")
        return [row["body"] for row in rows]

    async def left(self) -> list[tuple[bool, int, str]]:
        """Of every delivery: whether it is still to be done, how often it was tried, and what went wrong."""
        rows = await self.domain.rows("SELECT * FROM webhook_deliveries ORDER BY received_at, delivery")
        return [(row["due_at"] is not None, row["attempts"], row["error"] or "") for row in rows]


@asynccontextmanager
async def hooked_gateway(
    database: Database,
    plan: Plan,
    *surfaces: Surface,
    actors: str = "write",
    bot_login: str = "",
    repositories: tuple[str, ...] = (),
    sealer: Sealer | None = None,
) -> AsyncIterator[Hooked]:
    """A gateway of its own over ``database``, whose vcs node is ``plan``'s."""
    bus = Bus("nats://127.0.0.1:1", name="test")
    rules = Rules(surfaces or (surface(),), ActorRule.parse(actors, bot_login=bot_login), repositories)
    gateway = assemble(
        database,
        bus,
        api_key=None,
        sealer=sealer,
        vcs_token=TOKEN,
        webhook_rules=rules,
        webhook_secret=SecretStr("x"),
        sync_wait=timedelta(seconds=1),
    )
    domain = Domain(database)
    domain.client = await gateway.clients.ensure("tester")
    hooked = Hooked(gateway, domain, plan)
    hooked.there(issue_there())
    yield hooked
    await gateway.commands.drain()
