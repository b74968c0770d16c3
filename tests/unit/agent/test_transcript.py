"""The transcript: append-only, and the same bytes however often it is stored and loaded."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.prompts import prompt
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


def turn(
    transcript: Transcript, number: int, *, path: str = "f", content: str = "x", words: str = prompt("repeating")
) -> int:
    """Call a tool and answer; how often in a row that was just so."""
    transcript.append("assistant", [said(f"Turn {number}."), call(number, "read_file", path=path)])
    answer = [*result_blocks([ToolResult(f"toolu_{number}", content)]), said(words)]
    would_be = transcript.repeats_with(answer)
    transcript.append("user", answer)
    assert transcript.repeated == would_be == Transcript(stored(transcript)).repeated
    return would_be


def stored(transcript: Transcript) -> list[StoredMessage]:
    return [StoredMessage(0, "", body) for body in transcript.bodies]


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
    assert transcript.repeated == 0
    assert turn(transcript, 8, path="g") == 1


def test_who_is_told_something_does_not_repeat_itself():
    transcript = Transcript([])
    transcript.append("user", [said("Go.")])
    assert [turn(transcript, 1), turn(transcript, 2)] == [1, 2]
    assert turn(transcript, 3, words="Your tests failed.") == 0
    assert [turn(transcript, 4), turn(transcript, 5)] == [1, 2]


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("Exit code 1 after 0.4 s.", "Exit code 1 after 12.0 s.", True),
        ("1 failed in 0.31s", "1 failed in 1.02s", True),
        ("Time: 13 ms, 2 min", "Time: 9 ms, 1 min", True),
        ("2026-01-31 09:08:07,123 x", "2026-02-01 10:11:12,9 x", True),
        ("<T object at 0x7f3c2a10>", "<T object at 0x7f99ffee>", True),
        ("path @outputs/1.txt, by", "path @outputs/12.txt, by", True),
        ("1.5.2 s, 0.4.31ms", "1.5.3 s, 0.4.9ms", True),
        ("77777777777777777777 s", "7 s", True),
        ("step 3 of 9", "step 4 of 9", False),
        ("Exit code 1 after 0.4 s.", "Exit code 2 after 0.4 s.", False),
        ("2 failed in 0.31s", "1 failed in 0.31s", False),
        ("5 sheep", "6 sheep", False),
        ("0x10", "0x11", False),
    ],
)
def test_how_long_and_when_and_where_makes_no_difference(one: str, other: str, alike: bool):
    transcript = Transcript([])
    transcript.append("user", [said("Go.")])
    turn(transcript, 1, content=one)
    assert turn(transcript, 2, content=other) == (2 if alike else 1)


@pytest.mark.parametrize("part", ["7", "7.", "f", "0x", "12:", "2026-", "7 ", "@outputs/7"])
def test_long_rows_of_anything_are_compared_in_a_moment(part: str):
    """While it compares, an agent does nothing else for any of its runs."""
    row = (part * 10_000)[:10_000]
    transcript = Transcript([])
    transcript.append("user", [said("Go.")])
    started = time.process_time()
    turn(transcript, 1, content=f"{row}!")
    assert turn(transcript, 2, content=f"{row}?") == 1
    assert turn(transcript, 3, content=f"{row}?") == 2
    assert time.process_time() - started < 1


def test_repeats_are_counted_from_what_is_stored():
    transcript = Transcript([])
    transcript.append("user", [said("Go.")])
    for number in (1, 2):
        turn(transcript, number)
    assert turn(Transcript(stored(transcript)), 3) == 3


@pytest.mark.parametrize("is_answered", [True, False])
def test_what_another_run_did_is_not_counted(is_answered: bool):
    transcript = Transcript([])
    transcript.append("user", [said("Go.")])
    for number in (1, 2):
        turn(transcript, number)
    transcript.append("assistant", [said("Well.")])
    transcript.append("user", [said("mark: more")])
    if not is_answered:
        transcript.append("assistant", [call(3, "read_file", path="f")])
    again = Transcript(stored(transcript), copied=len(transcript))
    assert (again.repeated, again.times_said("mark: more"), again.times_begun("mark")) == (0, 0, 0)
    assert again.times_said_lately("mark: more") == 0
    if is_answered:
        assert turn_of_copy(again, 3) == 1
    else:
        again.append("user", result_blocks([ToolResult("toolu_3", "x")]))
        assert again.repeated == 0


def turn_of_copy(transcript: Transcript, number: int) -> int:
    transcript.append("assistant", [call(number, "read_file", path="f")])
    transcript.append("user", result_blocks([ToolResult(f"toolu_{number}", "x")]))
    return transcript.repeated


def test_lately_is_since_the_model_was_told_something():
    transcript = Transcript([])
    cut_off = prompt("cut_off")

    def cut() -> None:
        transcript.append("assistant", [said("A long")])
        transcript.append("user", [said(cut_off)])

    transcript.append("user", [said("Go.")])
    cut()
    turn(transcript, 1)
    cut()
    assert transcript.times_said_lately(cut_off) == 2
    turn(transcript, 2, words="Your tests failed.")
    assert transcript.times_said_lately(cut_off) == 0
    cut()
    assert transcript.times_said_lately(cut_off) == 1
    transcript.append("assistant", [call(3, "ask_user", question="Go on?")])
    transcript.append("user", result_blocks([ToolResult("toolu_3", "Yes.")]))
    assert transcript.times_said_lately(cut_off) == 0


def test_what_was_answered_with_is_what_the_last_message_ends_with():
    transcript = Transcript([])
    transcript.append("user", [said("Go.")])
    turn(transcript, 1, words="over")
    assert [each.id for each in transcript.calls_answered_with("over")] == ["toolu_1"]
    assert transcript.calls_answered_with("ov") == []
    assert Transcript(stored(transcript), copied=2).calls_answered_with("over") == [], "of a call of another run"
    transcript.append("assistant", [said("Well.")])
    assert transcript.calls_answered_with("over") == []
