"""The NATS streams, their subjects and durable consumers, and the ids of what travels on them."""

from __future__ import annotations

import re
from functools import cache, lru_cache

from services.contracts.words import EventKind, Queue

COMMANDS_STREAM = "COMMANDS"
WORK_STREAM = "WORK"
EVENTS_STREAM = "EVENTS"

COMMAND_SUBMIT = "qd.cmd.job.submit"
COMMAND_CANCEL = "qd.cmd.job.cancel"
COMMAND_MESSAGE = "qd.cmd.job.message"
ALL_COMMANDS = "qd.cmd.>"
ALL_WORK = "qd.work.*"
ALL_EVENTS = "qd.evt.>"

EVENTS_DOORBELL = "qd.ctl.events"
"""Core NATS: durable events were committed and wait to be published."""

BUDGETS = "qd.ctl.budgets"
"""Core NATS: the budgets over more than one run were changed."""

PACE = "qd.ctl.pace"
"""Core NATS: the model service refused a request; its payload says of which key and address, as a hash."""

SEQUENCE_HEADER = "Qd-Sequence"
"""Of a durable event's message: its place over all jobs, from 1, without holes."""
CLIENT_HEADER = "Qd-Client"
"""Of a durable event's message: whose job it is about."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
_NO_TOKEN = re.compile(r"[^A-Za-z0-9_-]")


class SubjectTokenError(ValueError):
    """A word cannot stand in a NATS subject: only letters, digits, `_` and `-` may."""


@lru_cache(maxsize=1_024)
def _token(word: str) -> str:
    if not _TOKEN.fullmatch(word):
        raise SubjectTokenError(f"{word!r} cannot stand in a subject")
    return word


def work(queue: Queue) -> str:
    return f"qd.work.{queue}"


def work_consumer(queue: Queue) -> str:
    return f"{queue}-workers"


def orders(agent: str) -> str:
    """Core NATS: where an agent hears of the runs that are given to it. ``agent``: its node's name, whatever it holds:
    what makes it unique are letters and digits.
    """
    return f"qd.order.{_NO_TOKEN.sub('_', agent)}"


def control(run_id: str) -> str:
    return f"qd.ctl.{_token(run_id)}"


def event(job_id: str, run_id: str, kind: EventKind) -> str:
    """``run_id``: empty for an event of the job as a whole."""
    return event_of_uuids(_token(job_id), _token(run_id) if run_id else "", kind)


def event_of_uuids(job_id: str, run_id: str, kind: EventKind) -> str:
    """As ``event``, of ids that are known to be UUIDs: any of those can stand in a subject."""
    return f"qd.evt.{job_id}.{run_id or '_'}.{_kind_token(kind)}"


@cache
def _kind_token(kind: EventKind) -> str:
    return kind.replace(".", "_")


def events_of_job(job_id: str) -> str:
    return f"qd.evt.{_token(job_id)}.>"


def publish_order_id(changeset_id: str, dispatch: int) -> str:
    """The `Nats-Msg-Id` of a publish order: a changeset's id alone would be swallowed when it is sent again."""
    return f"{changeset_id}:{dispatch}"
