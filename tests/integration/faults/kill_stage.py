"""Runs of the story under agents that are killed, and what can be seen of them afterwards. What the gateway and the
scheduler would do, the test does, so that nobody waits for a lease to run out.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson

from quarterdeck.demo.git import git, line
from services.agent.tools import ToolResult
from services.agent.tools.toolbox import _BROKEN_OFF as BROKEN_OFF
from services.agent.transcript import result_blocks
from services.runtime.postgres import Record
from services.vcs.__main__ import Vcs
from tests.integration.agent.fleet import Fleet
from tests.integration.faults.halting_agent import HALTED, HALTS_VARIABLE, JOINS_VARIABLE
from tests.integration.faults.kill_story import COMMAND_TURN, MODEL, WHOLE, Asked, Story, told_again, untimed
from tests.integration.faults.processes import Service

HALTING_AGENT = "tests.integration.faults.halting_agent"
AGENT = "services.agent"
PLACES = 200
SECONDS = 100
POLL_SECONDS = 0.05
ASKED_AT = datetime(2026, 1, 31, 12, tzinfo=UTC)

StartService = Callable[..., Awaitable[Service]]


@dataclass(frozen=True)
class Ending:
    """What a run came to, but for what names this very run."""

    run: Mapping[str, Any]
    changeset: Mapping[str, Any]
    transcript: tuple[bytes, ...]
    head: bytes
    usage: tuple[tuple[int, ...], ...]

    def as_interrupted(self) -> Ending:
        """The same story where an agent died over the command: the model is told so, and asks for it once more."""
        behind = 2 * COMMAND_TURN
        call = self.transcript[behind - 1]
        (asked,) = (block for block in orjson.loads(call)["content"] if block["type"] == "tool_use")
        answer = result_blocks([ToolResult(asked["id"], BROKEN_OFF, is_error=True)])
        told = orjson.dumps({"role": "user", "content": answer})
        again = (told_again(body) for body in self.transcript[behind - 1 :])
        repeated = self.usage[COMMAND_TURN - 1 :]
        return replace(
            self,
            transcript=(*self.transcript[:behind], told, *again),
            usage=(*self.usage[:COMMAND_TURN], *((turn + 1, *used) for turn, *used in repeated)),
        )


@dataclass
class StoryRun:
    """One run of a story. ``tag``: what the model knows it by."""

    id: UUID
    tag: str
    story: Story = WHOLE
    kept: list[Kept] = field(default_factory=list)
    """What was stored at each death of its agents."""


@dataclass(frozen=True)
class Kept:
    turns: int
    transcript: tuple[bytes, ...]

    @property
    def broke_off_command(self) -> bool:
        """Whether the command may have been under way."""
        last = self.transcript[-1] if self.transcript else b""
        return last.startswith(b'{"role":"assistant"') and b'"name":"run_command"' in last


class Stage:
    def __init__(
        self, fleet: Fleet, nodes: Sequence[Vcs], start: StartService, asked: Mapping[str, list[Asked]]
    ) -> None:
        """``nodes``: each with a data folder of its own; ``asked``: what the model heard."""
        self.fleet = fleet
        self._nodes = nodes
        self._start = start
        self._asked = asked
        self._lives = count(1)
        self.joins = False
        """Whether agents that are to be killed store together what comes together, as others do."""

    async def submit(self, number: int, story: Story = WHOLE) -> list[StoryRun]:
        """So many runs of the same story, submitted at the same moment."""
        runs = []
        for place in range(number):
            tag = f"{story.name}-{place:04}"
            job_id = await self.fleet.submit(systemPrompt=tag, **story.options)
            (row,) = await self.fleet.domain.rows("SELECT id FROM runs WHERE job_id = $1", job_id)
            runs.append(StoryRun(row["id"], tag, story))
        for table in ("jobs", "runs"):
            await self.fleet.domain.execute(f"UPDATE {table} SET created_at = $1", ASKED_AT)
        return runs

    async def kill_at(self, halts: Mapping[UUID, str], runs: Iterable[StoryRun], *, node: int = 0) -> None:
        """Have an agent take on what is queued, and kill it when each run of ``halts`` is at its step, and each other
        one of ``runs`` at its end.
        """
        agent = await self.begin(HALTING_AGENT, node=node, halts=halts)
        await self._until_halted(agent, halts)
        await self._until_finished(agent, [run for run in runs if run.id not in halts])
        await self.kill(agent, runs)

    async def begin(self, module: str = AGENT, *, node: int = 0, halts: Mapping[UUID, str] | None = None) -> Service:
        """Start an agent and order all that is queued. Each has a key of its own, by which the model knows its life."""
        variables = self.fleet.agent_environment | {
            "ANTHROPIC_API_KEY": f"life {next(self._lives)}",
            "CLAUDE_MODEL": MODEL,
            "QUARTERDECK_AGENT_CAPACITY": str(PLACES),
            "QUARTERDECK_VCS_ADDRESS": self._nodes[node].settings.vcs_listen,
            "SANDBOX": "none",
            HALTS_VARIABLE: orjson.dumps({str(run_id): step for run_id, step in (halts or {}).items()}).decode(),
            JOINS_VARIABLE: "yes" if self.joins else "",
        }
        agent = await self._start(module, **variables)
        await self.fleet.until(self.fleet.has_places)
        await self._order()
        return agent

    async def _order(self) -> None:
        """Give all that is queued to the agent, and need not wait because its node was too busy for it."""
        await self.fleet.send(*await self.fleet.admit())

    async def _until_halted(self, agent: Service, halts: Mapping[UUID, str]) -> None:
        left = dict(halts)
        try:
            async with asyncio.timeout(SECONDS):
                while left:
                    assert agent.process.returncode is None, "\n".join((await agent.lines())[-30:])
                    for told in await agent.lines():
                        if told.startswith(HALTED):
                            left.pop(UUID(told.removeprefix(HALTED).strip()), None)
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise AssertionError(f"never came to {sorted(left.values())}\n" + "\n".join(await agent.lines())) from None

    async def kill(self, agent: Service, runs: Iterable[StoryRun]) -> None:
        """`kill -9`; then the sweep takes the runs from the dead, whose node nobody sees any more."""
        agent.process.kill()
        await agent.process.wait()
        domain = self.fleet.domain
        await domain.execute("DELETE FROM nodes WHERE kind = 'agent'")
        await domain.execute("UPDATE leases SET expires_at = now() - interval '1 second'")
        await domain.lose()
        assert not await domain.rows("SELECT FROM leases")
        for run in runs:
            row = await self.fleet.run(run.id)
            if row["state"] == "queued":
                run.kept.append(Kept(row["turns"], tuple(await self.fleet.transcript(run.id))))

    async def finish(self, runs: Sequence[StoryRun], *, node: int = 0) -> None:
        """Have an agent that nobody kills see all of them to their end."""
        agent = await self.begin(node=node)
        await self._until_finished(agent, runs)
        await agent.stop()

    async def _until_finished(self, agent: Service, runs: Sequence[StoryRun]) -> None:
        """Until all of ``runs`` have come to an end, and their agent has put their last worktrees away."""
        try:
            async with asyncio.timeout(SECONDS):
                while await self._unfinished(runs):
                    await self._order()
                    assert agent.process.returncode is None, "\n".join((await agent.lines())[-30:])
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise AssertionError("\n".join([*await self._stuck(runs), *await agent.lines()])) from None

    async def _stuck(self, runs: Sequence[StoryRun]) -> list[str]:
        """What is known of those of ``runs`` that did not come to their end."""
        found = [(run, await self.fleet.run(run.id)) for run in runs]
        told = [f"{run.tag} is {row['state']} in attempt {row['attempt']}: {row['error']}" for run, row in found]
        return [*told, f"worktrees that are left: {self.worktrees()}"]

    async def _unfinished(self, runs: Sequence[StoryRun]) -> bool:
        """Whether one of ``runs`` is not at its end, or its last attempt has left its worktree."""
        rows = await self.fleet.domain.rows(
            "SELECT id, attempt, finished_at FROM runs WHERE id = ANY($1)", [run.id for run in runs]
        )
        left = self.worktrees()
        return any(row["finished_at"] is None or (str(row["id"]), row["attempt"]) in left for row in rows)

    def asked(self, run: StoryRun, life: int | None = None) -> list[Asked]:
        """What the run's agents asked the model: all of them, or that one life."""
        return [each for each in self._asked[run.tag] if life is None or each.life == f"life {life}"]

    async def ending(self, run: StoryRun, tree: str) -> Ending:
        """``tree``: the one that its commit is expected to have."""
        row, changeset = await self.fleet.run(run.id), await self.fleet.changeset(run.id)
        assert changeset["commit_sha"] == _commit_sha(tree, row["base_sha"], changeset), "author, time, message, tree"
        usage = await self.fleet.domain.rows("SELECT * FROM model_usage WHERE run_id = $1 ORDER BY turn", run.id)
        return Ending(
            run={name: row[name] for name in ("state", "outcome", "summary", "error", "base_sha", "exit_reason")},
            changeset={
                name: changeset[name] for name in ("patch", "files", "insertions", "deletions", "state", "verified")
            },
            transcript=tuple(untimed(body) for body in await self.fleet.transcript(run.id)),
            head=row["head"].replace(run.tag.encode(), b"story"),
            usage=tuple(
                (use["turn"], use["input_tokens"], use["output_tokens"], use["cost_microusd"]) for use in usage
            ),
        )

    async def tree_of(self, run: StoryRun, scratch: Path) -> str:
        """The tree that the run's changeset makes of its base, in a repository that has seen nothing but the base."""
        row, changeset = await self.fleet.run(run.id), await self.fleet.changeset(run.id)
        git("clone", "--quiet", "--no-checkout", self.fleet.repository, scratch, folder=self.fleet.repository)
        git("read-tree", row["base_sha"], folder=scratch)
        git("apply", "--cached", "--binary", "-", folder=scratch, given=changeset["patch"])
        return line("write-tree", folder=scratch)

    async def assert_all_is_accounted_for(self, runs: Sequence[StoryRun]) -> None:
        """Each checkpointed turn was counted once, by the run, by its usage and by its client; nothing is held."""
        domain = self.fleet.domain
        for run in runs:
            row = await self.fleet.run(run.id)
            uses = await domain.rows("SELECT * FROM model_usage WHERE run_id = $1 ORDER BY turn", run.id)
            replies = sum(body.startswith(b'{"role":"assistant"') for body in await self.fleet.transcript(run.id))
            assert [use["turn"] for use in uses] == list(range(1, row["turns"] + 1))
            assert row["turns"] == replies
            # Replies that were cut off with their attempt were paid for, too.
            void = await domain.rows("SELECT * FROM void_usage WHERE run_id = $1", run.id)
            for column in ("input_tokens", "output_tokens", "cost_microusd"):
                assert row[column] == sum(use[column] for use in (*uses, *void))
        (used,) = await domain.rows(
            "SELECT sum(input_tokens + output_tokens) AS tokens, sum(cost_microusd) AS microusd FROM ("
            "SELECT input_tokens, output_tokens, cost_microusd FROM model_usage UNION ALL "
            "SELECT input_tokens, output_tokens, cost_microusd FROM void_usage) u"
        )
        (spent,) = await domain.rows("SELECT sum(tokens) AS tokens, sum(microusd) AS microusd FROM spending")
        assert spent == used
        for table in ("leases", "reservations"):
            assert not await domain.rows(f"SELECT FROM {table}")

    def worktrees(self) -> list[tuple[str, int]]:
        """What is left of attempts, on any node."""
        return [left for node in self._nodes for left in node.worktrees.present()]


def _commit_sha(tree: str, base_sha: str, changeset: Record) -> str:
    author = f"{changeset['commit_author_name']} <{changeset['commit_author_email']}>"
    who = f"{author} {int(changeset['commit_time'].timestamp())} +0000"
    text = f"tree {tree}\nparent {base_sha}\nauthor {who}\ncommitter {who}\n\n{changeset['commit_message']}".encode()
    return hashlib.sha1(b"commit %d\0%b" % (len(text), text), usedforsecurity=False).hexdigest()
