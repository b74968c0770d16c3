"""Subjects: the words of the design, and nothing from outside can add a level or a wildcard."""

import re
from collections.abc import Callable

import pytest

from services.contracts import subjects
from services.contracts.subjects import SubjectTokenError
from services.contracts.words import EventKind, Queue

BAD_TOKENS = ["", "a.b", "*", ">", "a b", "a\n", "a\0", "ä", "a/b", "\ud800"]


def test_an_event_is_named_by_job_run_and_kind() -> None:
    assert subjects.event("j-1", "r-1", EventKind.RUN_STARTED) == "qd.evt.j-1.r-1.run_started"
    assert subjects.event("j-1", "", EventKind.JOB_CANCEL_REQUESTED) == "qd.evt.j-1._.job_cancel_requested"
    assert subjects.events_of_job("j-1") == "qd.evt.j-1.>"


@pytest.mark.parametrize("kind", EventKind)
def test_every_kind_is_one_token(kind: EventKind) -> None:
    assert subjects.event("j", "r", kind).count(".") == len(("qd", "evt", "j", "r"))


@pytest.mark.parametrize("queue", Queue)
def test_a_queue_has_its_subject_and_consumer(queue: Queue) -> None:
    assert subjects.work(queue) == f"qd.work.{queue.value}"
    assert subjects.work_consumer(queue) == f"{queue.value}-workers"


def test_a_publish_order_sent_again_has_another_id() -> None:
    assert subjects.publish_order_id("c-1", 1) == "c-1:1"
    assert subjects.publish_order_id("c-1", 2) != subjects.publish_order_id("c-1", 1)


def test_an_agent_hears_of_its_runs_by_the_name_of_its_node() -> None:
    assert subjects.orders("agent-1-0a1b2c3d") == "qd.order.agent-1-0a1b2c3d"


@pytest.mark.parametrize("word", [word for word in BAD_TOKENS if word])
def test_whatever_an_agent_is_called_it_has_one_subject_of_its_own(word: str) -> None:
    """People choose its name; letters and digits behind that make it unique."""
    subject = subjects.orders(f"{word}-0a1b2c3d")

    assert re.fullmatch(r"qd\.order\.[A-Za-z0-9_-]+", subject)
    assert subject.endswith("-0a1b2c3d")


@pytest.mark.parametrize("word", BAD_TOKENS)
@pytest.mark.parametrize(
    "subject",
    [
        subjects.control,
        subjects.events_of_job,
        lambda word: subjects.event(word, "r", EventKind.LOG),
        lambda word: subjects.event("j", word or " ", EventKind.LOG),
    ],
    ids=["control", "events_of_job", "event's job", "event's run"],
)
def test_a_word_that_is_no_token_is_refused(subject: Callable[[str], str], word: str) -> None:
    with pytest.raises(SubjectTokenError, match="cannot stand in a subject"):
        subject(word)
