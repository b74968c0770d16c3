"""A model during whose replies a run's user speaks, and what a transcript must be whatever was said when."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson

from quarterdeck.offline_model.conversation import read_conversation
from quarterdeck.offline_model.wire import CountRequest
from services.agent.model import Reply, Watch
from tests.unit.agent.scripted import Script, StoredRun, call, reply, said

ANSWER = reply(said("It says a."), stop="end_turn")
MORE = reply(said("It still does."), stop="end_turn")

Moment = Callable[[Watch], Awaitable[Reply | None]]


def asks(number: int, question: str = "Which file?") -> dict[str, Any]:
    return call(number, "ask_user", question=question)


class Meanwhile(Script):
    """A model that lets things happen while it replies."""

    def __init__(self, *replies: Reply, moments: Mapping[int, Moment]) -> None:
        """``moments``: by number of the request, from 1; what one returns stands in place of the reply."""
        super().__init__(*replies)
        self._moments = moments

    async def __call__(self, messages: Sequence[bytes], watch: Watch) -> Reply:
        whole = await super().__call__(messages, watch)
        moment = self._moments.get(self.asked)
        return (moment and await moment(watch)) or whole


def saying(happen: Callable[[], object]) -> Moment:
    """A moment in which just that happens."""

    async def moment(_: Watch) -> None:
        happen()

    return moment


def last_message(run: StoredRun, back: int = 1) -> list[dict[str, Any]]:
    """The content of a stored message, counted from the end."""
    content: list[dict[str, Any]] = orjson.loads(run.bodies[-back])["content"]
    return content


def assert_valid(run: StoredRun) -> None:
    """The transcript can be sent once its user has spoken: roles alternate, and each call is answered, in order."""
    assert run.roles == [("user", "assistant")[place % 2] for place in range(len(run.roles))]
    assert [message.number for message in run.messages] == list(range(1, len(run.messages) + 1))
    sent = run.bodies[: -1 if run.roles[-1] == "assistant" else None]
    document = {"model": "claude-x", "messages": [orjson.loads(body) for body in sent]}
    read_conversation(CountRequest.model_validate(document))
