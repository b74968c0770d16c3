"""What `llmock` is told to do for one run among others, each of which asks a model of its own name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar
from uuid import UUID

from services.contracts.words import RunState
from services.runtime.postgres import Record
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.standins.servers import Json

Case = TypeVar("Case")
ENDED = (RunState.COMPLETED, RunState.FAILED)
ANSWER = "Forty-two."
NEW_FILE = "whole\n"
PATIENT_OPTIONS = {"maxAttempts": 1, "publish": "none", "allowUnpriced": True}


def model_of(case: object) -> str:
    """The name of the model by which the requests of ``case`` are known."""
    return f"claude-sonnet-5-5-{case}".replace(" ", "-")


def behavior(type_: str, /, *, of: object = None, times: int | None = 1, **fields: object) -> Json:
    """``of``: the case whose requests it is for, else all. ``times``: None: for ever."""
    match = {} if of is None else {"match": {"model": model_of(of)}}
    return {"type": type_, "times": times, **match, **fields}


def says(text: str = ANSWER, *, of: object = None, times: int | None = 1, **fields: object) -> Json:
    return behavior("reply", of=of, times=times, text=text, **fields)


def calls(name: str, *, of: object = None, times: int | None = 1, finish: str | None = None, **input_: object) -> Json:
    call = {"name": name, "arguments": input_}
    return behavior("reply", of=of, times=times, tool_calls=[call], finish_reason=finish)


def writes(*, of: object = None, times: int | None = 1, finish: str | None = None) -> Json:
    return calls("write_file", of=of, times=times, finish=finish, path="new.txt", content=NEW_FILE)


def completes(*, of: object = None, times: int | None = 1, summary: str = ANSWER) -> Json:
    return calls("task_complete", of=of, times=times, summary=summary, status="done")


async def start_task(fleet: Fleet, case: object, **options: object) -> UUID:
    """A run without a repository; its id."""
    options = {**PATIENT_OPTIONS, "model": model_of(case), **options}
    return await fleet.dispatch(kind="task", repositories=[], **options)


async def start_code(fleet: Fleet, case: object, **options: object) -> UUID:
    """A run on the one repository; its id."""
    return await fleet.dispatch(**{**PATIENT_OPTIONS, "model": model_of(case), **options})


async def ends(fleet: Fleet, runs: Mapping[Case, UUID]) -> dict[Case, Record]:
    """The rows of all runs once each has ended."""
    return {case: await fleet.until_run(run_id, *ENDED) for case, run_id in runs.items()}


def attempts(requests: Iterable[Json], case: object) -> list[str]:
    """The fingerprint of each request of ``case``, in order: equal where the body is."""
    return [request["fingerprint"] for request in requests if request["model"] == model_of(case)]
