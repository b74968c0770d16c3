"""One repository on the GitHub of these tests, and what is said and done there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from quarterdeck import Client
from services.contracts.rest import Job, Run
from services.runtime.postgres import Database, Record
from tests.acceptance.hub import BOT, Delivery, Hub
from tests.acceptance.stacks import until
from tests.integration.vcs.github.emulated import Json, Person

FILE: Final = "words.txt"
ASKED: Final = "Please replace all occurrences of 'colour' with 'color'."
_REMARKED: Final = ("pull_request_review_comment", "created")


@dataclass
class Place:
    """One repository, and what a test asks of it. ``client``: as whom `/v1` shows the jobs that come of it."""

    hub: Hub
    client: Client
    database: Database
    name: str

    @property
    def grace(self) -> Person:
        return self.hub.emulate.grace

    async def issue(self, body: str = ASKED) -> int:
        """Opened by somebody who may push there; its number."""
        described = {"title": "Spell it as others do", "body": body}
        number: int = (await self.grace.ask("POST", f"/repos/{self.name}/issues", described))["number"]
        return number

    async def remark(self, number: int, body: str, *, by: Person | None = None, **more: Any) -> int:
        """In the code of a pull request, once it was delivered; its id. ``by``: else by somebody who may push there."""
        said = {"body": body, "path": FILE, "line": 1, **more}
        path = f"/repos/{self.name}/pulls/{number}/comments"
        before = len(self.hub.delivered(self.name, *_REMARKED))
        comment: int = (await (by or self.grace).ask("POST", path, said))["id"]

        async def is_delivered() -> bool:
            return len(self.hub.delivered(self.name, *_REMARKED)) > before

        await until(is_delivered)
        return comment

    async def reword(self, pull: Json) -> Json:
        """Somebody writes title and text anew. (What the offline model says of its work, it would take as asked.)"""
        words = {"title": "In my words", "body": "And mine alone."}
        changed: Json = await self.grace.ask("PATCH", f"/repos/{self.name}/pulls/{pull['number']}", words)
        return changed

    async def said_on(self, number: int) -> list[str]:
        """By the bot, on an issue or a pull request."""
        return _words([one for one in await self.grace.comments(self.name, number) if one["user"]["login"] == BOT])

    async def threads(self, number: int) -> list[Json]:
        found: list[Json] = await self.grace.ask("GET", f"/repos/{self.name}/pulls/{number}/comments")
        return found

    async def replies(self, number: int, root: int) -> list[str]:
        """By the bot, in the thread of a remark."""
        return _words([one for one in await self.threads(number) if one["in_reply_to_id"] == root])

    async def pull(self) -> Json:
        """The only one that there ever was."""
        (pull,) = await self.hub.emulate.ada.pulls(self.name)
        return pull

    async def jobs(self) -> list[Job]:
        """That came of what happened there, the oldest first."""
        found = [job async for job in self.client.jobs() if job.metadata.get("repository") == self.name]
        return sorted(found, key=lambda job: job.created_at)

    async def run(self, job: Job) -> Run:
        (run,) = [run async for run in self.client.runs(job.id)]
        return run

    async def seen(self, job: Job, state: str) -> None:
        """Its changeset is known to be so."""

        async def is_so() -> bool:
            changeset = (await self.run(job)).changeset
            return changeset is not None and changeset.state == state

        await until(is_so)

    async def ended(self, count: int) -> Job:
        """The newest job, once there are as many and it has ended."""
        found: list[Job] = []

        async def is_so() -> bool:
            found[:] = await self.jobs()
            assert len(found) <= count, "too much was started"
            return len(found) == count and found[-1].finished_at is not None

        await until(is_so)
        return found[-1]

    async def answered(self, number: int, count: int) -> list[str]:
        """What the bot said on an issue or pull request, once it said as much."""
        await until(lambda: self.has(count, self.said_on, number))
        return await self.said_on(number)

    async def replied(self, number: int, root: int) -> str:
        """What the bot answered to a remark."""
        await until(lambda: self.has(1, self.replies, number, root))
        (reply,) = await self.replies(number, root)
        return reply

    async def has(self, count: int, read: Callable[..., Awaitable[Sequence[str]]], *about: int) -> bool:
        return len(await read(*about)) >= count

    async def delivery(self, event: str, action: str) -> Delivery:
        """The newest of its kind from here, once there is one."""

        async def is_there() -> bool:
            return bool(self.hub.delivered(self.name, event, action))

        await until(is_there)
        return self.hub.delivered(self.name, event, action)[-1]

    async def check_suite(self, sha: str, *, hook: str) -> str | None:
        """A suite of checks at the commit has failed; how its delivery is answered."""
        suite = {"id": 1, "head_sha": sha, "conclusion": "failure", "pull_requests": []}
        repository = {"full_name": self.name, "clone_url": f"{self.hub.address}/{self.name}.git"}
        sender = {"login": "ci[bot]", "type": "Bot"}
        payload = {"action": "completed", "check_suite": suite, "repository": repository, "sender": sender}
        return await self.hub.deliver(hook, "check_suite", payload)

    async def settled(self) -> None:
        """All that was delivered is done, and none of it in vain."""

        async def is_nothing_due() -> bool:
            return not await self._deliveries("due_at IS NOT NULL")

        await until(is_nothing_due)
        assert await self._deliveries("error IS NOT NULL") == []

    async def pass_delays(self) -> None:
        """Let time pass for what somebody took who is dead by now."""
        async with self.database.connection() as connection:
            for table in ("webhook_deliveries", "forge_comments"):
                await connection.execute(f"UPDATE {table} SET due_at = now() WHERE due_at > now()")

    async def _deliveries(self, condition: str) -> list[Record]:
        async with self.database.connection() as connection:
            return list(await connection.fetch(f"SELECT * FROM webhook_deliveries WHERE {condition}"))

    def commits(self, branch: str) -> list[str]:
        """Above main, the newest first."""
        return self.hub.repositories.run(self.name, "rev-list", f"main..{branch}").split()

    def text(self, branch: str) -> str:
        return self.hub.repositories.run(self.name, "show", f"{branch}:{FILE}")


def _words(comments: Sequence[Json]) -> list[str]:
    """Without the mark that nobody sees."""
    return [comment["body"].partition("<!--")[0].strip() for comment in comments]
