"""Replies put together from the events of their stream, with all that streams were seen to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.model import Fragment, Reply, StreamBrokenError
from services.agent.model.reply import Assembly, StreamFailedError
from services.jobs.models import Usage

Json = dict[str, Any]


def event(kind: str, **data: Any) -> Json:
    return {"type": kind, **data}


def begin(**usage: int) -> Any:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "claude-x"}
    counted = {"input_tokens": 3, "output_tokens": 1, **usage}
    return event("message_start", message={**message, "stop_reason": None, "stop_sequence": None, "usage": counted})


def end(stop: str = "end_turn", **usage: int) -> list[Any]:
    delta = {"stop_reason": stop, "stop_sequence": None}
    return [event("message_delta", delta=delta, usage={"output_tokens": 9, **usage}), event("message_stop")]


def text(*pieces: str, index: int = 0) -> list[Any]:
    return _block(index, {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces])


def tool(*pieces: str, index: int = 0) -> list[Any]:
    start = {"type": "tool_use", "id": f"toolu_{index}", "name": "read_file", "input": {}}
    return _block(index, start, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces])


def thinking(*pieces: str, signature: str = "c2ln", index: int = 0) -> list[Any]:
    start = {"type": "thinking", "thinking": "", "signature": ""}
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
    return _block(index, start, [*deltas, {"type": "signature_delta", "signature": signature}])


def _block(index: int, start: Json, deltas: Iterable[Json]) -> list[Any]:
    return [
        event("content_block_start", index=index, content_block=start),
        *(event("content_block_delta", index=index, delta=delta) for delta in deltas),
        event("content_block_stop", index=index),
    ]


def assembled(*events: Any, on_fragment: Callable[[Fragment], None] = lambda _: None) -> Reply:
    assembly = Assembly(on_fragment)
    for each in events:
        assembly.feed(each)
    return assembly.reply()


def test_blocks_are_joined_in_their_order():
    reply = assembled(
        begin(),
        *thinking("Hm", "m.", index=0),
        *text("Read", "ing", index=1),
        *tool('{"path"', ': "f"}', index=2),
        *end(),
    )
    assert reply.content == [
        {"type": "thinking", "thinking": "Hmm.", "signature": "c2ln"},
        {"type": "text", "text": "Reading"},
        {"type": "tool_use", "id": "toolu_2", "name": "read_file", "input": {"path": "f"}},
    ]
    assert (reply.stop_reason, reply.model) == ("end_turn", "claude-x")


def test_interleaved_blocks_are_kept_apart():
    first, second = text("a", "b", index=0), text("c", "d", index=1)
    reply = assembled(begin(), *(each for pair in zip(first, second, strict=True) for each in pair), *end())
    assert [block["text"] for block in reply.content] == ["ab", "cd"]


def test_fragments_come_as_they_stream():
    seen: list[Fragment] = []
    events = [begin(), *thinking("Hm"), *text("a", "b", index=1), *tool("{", "}", index=2), *end()]
    assembled(*events, on_fragment=seen.append)
    assert [(fragment.type, fragment.block, fragment.text) for fragment in seen] == [
        *(("thinking", 0, "Hm"), ("text", 1, "a"), ("text", 1, "b")),
        *(("tool_input", 2, "{"), ("tool_input", 2, "}")),
    ]


def test_a_block_may_begin_with_its_first_words():
    seen: list[Fragment] = []
    spoken, thought = text("world"), thinking("mm", signature="")
    spoken[0]["content_block"]["text"] = "Hello "
    thought[0]["content_block"] |= {"thinking": "H", "signature": "c2ln"}
    shifted = [{**each, "index": 1} for each in thought]
    reply = assembled(begin(), *spoken, *shifted, *end(), on_fragment=seen.append)
    assert reply.content == [
        {"type": "text", "text": "Hello world"},
        {"type": "thinking", "thinking": "Hmm", "signature": "c2ln"},
    ]
    assert [fragment.text for fragment in seen] == ["Hello ", "world", "H", "mm"]


def test_usage_is_cumulative():
    reply = assembled(
        begin(input_tokens=7, cache_read_input_tokens=100, cache_creation_input_tokens=20), *end(output_tokens=40)
    )
    assert reply.usage == Usage(7, 40, 100, 20)


def test_output_that_nobody_tells_is_estimated():
    """Else it would cost nothing."""
    _, stop = end()
    untold = event("message_delta", delta={"stop_reason": "end_turn"})
    reply = assembled(begin(input_tokens=7), *text("a" * 300), untold, stop)
    assert reply.usage == Usage(7, 100, 0, 0)
    assert reply.raw_usage["output_is_estimated"] is True
    assert "output_is_estimated" not in assembled(begin(), *text("a" * 300), *end()).raw_usage


@pytest.mark.parametrize("count", [-1, 1.5, "many", 2**40 + 1, 2**63])
def test_usage_that_is_no_number_of_tokens_is_a_broken_stream(count: Any):
    with pytest.raises(StreamBrokenError, match="no number of tokens"):
        assembled(begin(input_tokens=count))


@pytest.mark.parametrize("cut", range(7))
def test_a_stream_that_ends_early_is_no_reply(cut: int):
    """Partial tool input may well parse; the SDK raises nothing."""
    events = [begin(), *tool('{"path": "f', '"}'), *end("tool_use")]
    assert assembled(*events).content[0]["input"] == {"path": "f"}
    assert len(events) == 7
    with pytest.raises(StreamBrokenError, match="before the reply was whole"):
        assembled(*events[:cut])


def test_an_end_without_a_reason_is_no_reply():
    with pytest.raises(StreamBrokenError):
        assembled(begin(), *text("a"), event("message_stop"))


@pytest.mark.parametrize(
    "pieces", [('{"path": "f',), ("[1, 2]",), ('"f"',), ("null",), ("nonsense",), ('{"a": "\\ud800"}',)]
)
def test_input_that_is_no_object_is_kept_as_its_text(pieces: tuple[str, ...]):
    reply = assembled(begin(), *tool(*pieces), *end("tool_use"))
    assert reply.content[0]["input"] == {"malformed": "".join(pieces)}


def test_the_input_of_a_tool_use_may_come_with_its_beginning():
    start, stop = tool()
    start["content_block"]["input"] = {"path": "f"}
    assert assembled(begin(), start, stop, *end("tool_use")).content[0]["input"] == {"path": "f"}


@pytest.mark.parametrize("given", [[1], "f", 1, {"a": "\ud800"}])
def test_a_tool_use_that_begins_with_no_object_is_a_broken_stream(given: Any):
    start, _ = tool()
    start["content_block"]["input"] = given
    with pytest.raises(StreamBrokenError, match="something else than an object"):
        assembled(begin(), start)


def test_no_input_at_all_is_an_empty_object():
    assert assembled(begin(), *tool(""), *end("tool_use")).content[0]["input"] == {}


@given(
    st.dictionaries(
        st.text(max_size=5), st.recursive(st.none() | st.booleans() | st.text(max_size=5), st.lists, max_leaves=5)
    ),
    st.data(),
)
def test_input_cut_anywhere_is_the_same(value: Json, data: st.DataObject):
    whole = json.dumps(value)
    places = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=4)))
    pieces = [whole[start:stop] for start, stop in zip([0, *places], [*places, len(whole)], strict=True)]
    reply = assembled(begin(), *tool(*pieces), *end("tool_use"))
    assert reply.content[0]["input"] == value


@pytest.mark.parametrize("blank", ["", " ", "\n\n"])
def test_blank_text_is_left_out(blank: str):
    """The service refuses it when it is sent back."""
    reply = assembled(begin(), *text(blank), *tool("{}", index=1), *end("tool_use"))
    assert [block["type"] for block in reply.content] == ["tool_use"]


@pytest.mark.parametrize(("pieces", "whole"), [(("\ud83d", "\ude00"), "\U0001f600"), (("a\ud83d", "b"), "a\ufffdb")])
def test_halves_of_characters_can_be_stored(pieces: tuple[str, ...], whole: str):
    reply = assembled(begin(), *text(*pieces), *end())
    assert reply.content == [{"type": "text", "text": whole}]
    assert orjson.loads(orjson.dumps(reply.content)) == reply.content


def test_unknown_events_deltas_and_blocks_are_passed_over():
    odd_delta = event("content_block_delta", index=0, delta={"type": "hologram_delta", "hologram": "…"})
    start, *rest = text("a")
    strange = event("content_block_start", index=1, content_block={"type": "redacted_thinking", "data": "c2ln"})
    reply = assembled(begin(), event("comet"), start, odd_delta, *rest, strange, *end())
    assert reply.content == [{"type": "text", "text": "a"}, {"type": "redacted_thinking", "data": "c2ln"}]


@pytest.mark.parametrize(
    "named", [{"id": "toolu_1"}, {"name": "read_file"}, {"id": "", "name": "f"}, {"id": 1, "name": "f"}]
)
def test_a_tool_use_that_cannot_be_answered_is_a_broken_stream(named: Json):
    with pytest.raises(StreamBrokenError):
        assembled(begin(), event("content_block_start", index=0, content_block={"type": "tool_use", **named}))


@pytest.mark.parametrize(
    ("details", "code"),
    [
        ({"details": {"error_code": "enforced_spend_limit_reached"}}, "enforced_spend_limit_reached"),
        ({"details": {"error_code": 7}}, None),
        ({"details": "none"}, None),
        ({"details": None}, None),
        ({}, None),
    ],
)
def test_an_error_event_tells_its_type_and_code(details: Json, code: str | None):
    with pytest.raises(StreamFailedError, match=r"^Paused$") as failed:
        assembled(begin(), event("error", error={"type": "rate_limit_error", "message": "Paused", **details}))
    assert (failed.value.kind, failed.value.code) == ("rate_limit_error", code)


def test_an_error_event_without_words_tells_its_type():
    with pytest.raises(StreamFailedError, match=r"^api_error$"):
        assembled(begin(), event("error", error={"type": "api_error"}))


def test_a_delta_of_no_block_is_a_broken_stream():
    with pytest.raises(StreamBrokenError, match="block 3, which never began"):
        assembled(begin(), event("content_block_delta", index=3, delta={"type": "text_delta", "text": "a"}))


@pytest.mark.parametrize(
    "event_data",
    [
        ("message_start", {}),
        ("content_block_start", {"index": 0}),
        ("content_block_delta", {"index": 0}),
        ("message_start", {"message": {"model": 5, "usage": {}}}),
        ("message_delta", {}),
        ("message_delta", {"delta": {"stop_reason": ["end_turn"]}}),
        ("content_block_start", {"index": 0, "content_block": None}),
        ("content_block_start", {"index": 1, "content_block": {"type": "text", "text": 7}}),
        ("content_block_start", {"index": "1", "content_block": {"type": "text", "text": ""}}),
        ("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": 7}}),
        ("content_block_delta", {"index": 0, "delta": {"type": "signature_delta", "signature": None}}),
    ],
)
def test_an_event_without_its_fields_is_a_broken_stream(event_data: tuple[str, Json]):
    kind, data = event_data
    with pytest.raises(StreamBrokenError, match="wrong shape"):
        assembled(begin(), *text("a"), event(kind, **data))


def test_an_error_of_the_watcher_is_not_the_stream_s():
    def broken(_: Fragment) -> None:
        raise TypeError("a bug of ours")

    with pytest.raises(TypeError, match="a bug of ours"):
        assembled(begin(), *text("a"), on_fragment=broken)


@pytest.mark.parametrize(("behind", "output"), [(0, 300 // 3), (1, 9)])
def test_what_a_reply_that_was_broken_off_used_is_estimated_until_it_was_told(behind: int, output: int):
    assembly = Assembly(lambda _: None)
    for each in [begin(), *text("a" * 300), *end()[:behind]]:
        assembly.feed(each)
    void = assembly.interrupted()
    assert (void.usage.output_tokens, void.raw_usage.get("output_is_estimated", False)) == (output, behind == 0)
