"""The transcript: append-only, and the same bytes however often it is stored and loaded."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.tools import ToolCall, ToolResult
from services.agent.transcript import Transcript, result_blocks
from services.jobs.models import StoredMessage
from tests.unit.agent.scripted import call, said

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
CONTENTS = st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), max_size=4)
MESSAGES = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), CONTENTS), max_size=5)


def filled(messages: list[tuple[Any, list[dict[str, Any]]]]) -> tuple[Transcript, list[StoredMessage]]:
    transcript = Transcript([])
    return transcript, [transcript.append(role, content) for role, content in messages]


@given(MESSAGES)
def test_loaded_again_it_is_the_same_in_every_byte(messages: list[tuple[Any, list[dict[str, Any]]]]):
    transcript, stored = filled(messages)
    again = Transcript(stored)
    assert again.bodies == transcript.bodies == [message.body for message in stored]
    assert [orjson.dumps(orjson.loads(body)) for body in again.bodies] == again.bodies
    assert [message.number for message in stored] == list(range(1, len(messages) + 1))
    assert [message.role for message in stored] == [role for role, _ in messages]


@given(MESSAGES, CONTENTS)
def test_what_is_appended_changes_nothing_before_it(
    messages: list[tuple[Any, list[dict[str, Any]]]], content: list[dict[str, Any]]
):
    transcript, stored = filled(messages)
    before = list(transcript.bodies)
    added = transcript.append("user", content)
    assert transcript.bodies[:-1] == before
    assert added.number == len(stored) + 1


def test_the_order_of_keys_is_kept():
    arguments = {"zebra": 1, "apple": {"y": 1, "x": 2}}
    stored = Transcript([]).append("assistant", [call(1, "odd", **arguments)])
    assert stored.body.index(b"zebra") < stored.body.index(b"apple")
    assert Transcript([stored]).append("assistant", orjson.loads(stored.body)["content"]).body == stored.body


def test_what_the_caller_changes_later_is_not_in_it():
    content = [said("a")]
    transcript = Transcript([])
    transcript.append("user", content)
    content[0]["text"] = "b"
    assert orjson.loads(transcript.bodies[0])["content"] == [said("a")]


def test_calls_are_open_until_they_are_answered():
    transcript = Transcript([])
    assert transcript.open_calls() == []
    transcript.append("user", [said("Go.")])
    assert transcript.open_calls() == []
    transcript.append("assistant", [said("a"), call(1, "read_file", path="f"), call(2, "list_files")])
    assert transcript.open_calls() == [
        ToolCall("toolu_1", "read_file", {"path": "f"}),
        ToolCall("toolu_2", "list_files", {}),
    ]
    transcript.append("user", result_blocks([ToolResult("toolu_1", "x"), ToolResult("toolu_2", "y", is_error=True)]))
    assert transcript.open_calls() == []


@pytest.mark.parametrize(
    ("stored", "given_to_the_tool"),
    [
        ({"malformed": '{"path": "f'}, '{"path": "f'),
        ({"malformed": 1}, {"malformed": 1}),
        ({"malformed": "a", "path": "f"}, {"malformed": "a", "path": "f"}),
        ({}, {}),
    ],
)
def test_malformed_input_reaches_the_tool_as_its_text(stored: dict[str, Any], given_to_the_tool: object):
    transcript = Transcript([])
    transcript.append("assistant", [{"type": "tool_use", "id": "toolu_1", "name": "read_file", "input": stored}])
    (open_call,) = transcript.open_calls()
    assert open_call.input == given_to_the_tool


def test_results_name_their_call_and_say_only_where_they_failed():
    assert result_blocks([ToolResult("a", "fine"), ToolResult("b", "not so", is_error=True)]) == [
        {"type": "tool_result", "tool_use_id": "a", "content": "fine"},
        {"type": "tool_result", "tool_use_id": "b", "content": "not so", "is_error": True},
    ]


def test_the_last_text_is_the_model_s():
    transcript = Transcript([])
    assert transcript.last_text() == ""
    transcript.append("assistant", [said("one"), said("two")])
    transcript.append("user", [said("hm?")])
    transcript.append("assistant", [call(1, "list_files")])
    assert transcript.last_text() == "one\n\ntwo"


def test_what_is_counted_as_said_is_ours_and_nothing_more():
    transcript = Transcript([])
    transcript.append("user", [said("go on")])
    transcript.append("assistant", [said("go on")])
    transcript.append("user", [said("go on"), said("please")])
    transcript.append("user", [said("go on")])
    assert transcript.times_said("go on") == 2


def turn(transcript: Transcript, number: int, *, path: str = "f", content: str = "x") -> int:
    """Call a tool, count the repeats as the loop does, answer."""
    transcript.append("assistant", [said(f"Turn {number}."), call(number, "read_file", path=path)])
    results = [ToolResult(f"toolu_{number}", content)]
    repeats = transcript.repeats(transcript.open_calls(), results)
    transcript.append("user", [*result_blocks(results), said("a note of ours")])
    return repeats


def test_repeats_are_the_same_calls_with_the_same_results_in_a_row():
    transcript = Transcript([])
    transcript.append("user", [said("Go.")])
    assert [turn(transcript, number) for number in (1, 2, 3)] == [1, 2, 3]
    assert turn(transcript, 4, content="y") == 1
    assert turn(transcript, 5) == 1
    assert turn(transcript, 6) == 2
    assert turn(transcript, 7, path="g") == 1
    transcript.append("assistant", [said("Well.")])
    transcript.append("user", [said("Go on.")])
    assert turn(transcript, 8, path="g") == 1


def test_repeats_are_counted_from_what_is_stored():
    transcript, stored = Transcript([]), []
    transcript.append("user", [said("Go.")])
    for number in (1, 2):
        turn(transcript, number)
    stored = [StoredMessage(0, "", body) for body in transcript.bodies]
    assert turn(Transcript(stored), 3) == 3
