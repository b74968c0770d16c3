"""A user who talks with a run: what the gateway and the scheduler do with what they say, and what is left of a run."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from services.agent.loop import Loop
from services.contracts import subjects
from services.contracts.rest import CompleteRequest
from services.contracts.v1.commands_pb2 import RunControl
from services.contracts.words import RunState
from services.jobs.messaging import Messaging
from services.runtime.postgres import Record
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.messages_server import Answer, Json, call, said, whole

ENDS = (RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED)
READ = whole(said("Reading."), call(1, "read_file", path="f.txt"))
ANSWER = whole(said("It says a."), stop="end_turn")
MORE = whole(said("It still does."), stop="end_turn")


def asks(number: int, question: str = "Which file?") -> Answer:
    return whole(call(number, "ask_user", question=question))


def ends(number: int, summary: str = "All is said.") -> Answer:
    return whole(call(number, "task_complete", summary=summary, status="done"))


@dataclass(frozen=True)
class User:
    """Of one run that an agent holds, or that waits."""

    fleet: Fleet
    run_id: UUID

    @property
    def messaging(self) -> Messaging:
        return self.fleet.domain.messaging

    async def says(self, text: str, *, interrupt: bool = False, rings: bool = True) -> None:
        """``rings``: whether the agent is told at once, as it usually is."""
        await self.fleet.domain.say(await self.fleet.job_of(self.run_id), text, interrupt=interrupt, runId=self.run_id)
        if rings:
            await self.ring()

    async def ring(self) -> None:
        control = RunControl(run_id=str(self.run_id), kind=RunControl.KIND_MESSAGE)
        await self.fleet.bus.ring(subjects.control(str(self.run_id)), control.SerializeToString())

    async def completes(self) -> None:
        wanted = CompleteRequest.model_validate({"runId": self.run_id})
        await self.messaging.complete(self.fleet.domain.client, await self.fleet.job_of(self.run_id), wanted)
        await self.ring()

    async def answers(self, text: str) -> None:
        """Say ``text`` to the run that waits, and have it go on."""
        await self.until_waiting()
        await self.says(text, rings=False)
        await self.fleet.again(self.run_id)

    async def until_waiting(self) -> Record:
        run = await self.fleet.until_run(self.run_id, RunState.WAITING, *ENDS)
        assert run["state"] == "waiting", run["error"]
        return run

    async def until_ended(self) -> Record:
        return await self.fleet.until_run(self.run_id, *ENDS)

    async def transcript(self) -> list[Json]:
        """The messages; those that the model has to answer next are valid for the Messages API."""
        messages = [orjson.loads(body) for body in await self.fleet.transcript(self.run_id)]
        assert [message["role"] for message in messages] == [("user", "assistant")[n % 2] for n in range(len(messages))]
        for reply, answer in zip(messages[1::2], messages[2::2], strict=False):
            called = [block["id"] for block in reply["content"] if block["type"] == "tool_use"]
            answered = [block.get("tool_use_id") for block in answer["content"][: len(called)]]
            assert answered == called, "each call has its result, in order and before all else"
        return messages

    async def unread(self) -> list[Record]:
        return await self.fleet.domain.rows("SELECT FROM inbox WHERE run_id = $1 AND read_at IS NULL", self.run_id)


async def talk(fleet: Fleet, *answers: Answer, **fields: Any) -> User:
    """The user of a new task, whose model will answer so."""
    fleet.model.answer(*answers)
    return User(fleet, await fleet.dispatch(kind="task", **fields))


def loops_in_memory() -> int:
    """Of agents in this process."""
    gc.collect()
    return sum(isinstance(thing, Loop) for thing in gc.get_objects())


def prefix_bytes(request: Json) -> bytes:
    """All of a request that comes before the end of its messages."""
    return orjson.dumps({**request, "messages": request["messages"]})[:-2]
