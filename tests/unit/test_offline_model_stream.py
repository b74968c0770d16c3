"""A message must come out of its stream as it went in, whatever it holds."""

import json
from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.offline_model.conversation import Call
from quarterdeck.offline_model.message import compose, count_input_tokens
from quarterdeck.offline_model.searching import Step
from quarterdeck.offline_model.stream import events

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def _message(text: str, inputs: list[dict[str, Any]], **request: Any) -> dict[str, Any]:
    decoded = {"max_tokens": 100_000, "messages": [{"role": "user", "content": "hi"}], **request}
    calls = tuple(Call("edit_file", each) for each in inputs)
    return compose(Step(text, calls), decoded, orjson.dumps(decoded))


def _parsed(message: dict[str, Any]) -> list[dict[str, Any]]:
    parsed = []
    for name, data in events(message):
        head, body, *rest = data.decode().split("\n", 2)
        assert head == f"event: {name}"
        assert rest == ["\n"]
        parsed.append(json.loads(body.removeprefix("data: ")))
        assert parsed[-1]["type"] == name
    return parsed


def _reassembled(stream: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = stream[0]["message"]
    fragments: list[str] = []
    for event in stream[1:]:
        if event["type"] == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(event["content_block"])
            fragments = []
        elif event["type"] == "content_block_delta":
            fragments.append(event["delta"].get("text", event["delta"].get("partial_json")))
        elif event["type"] == "content_block_stop":
            block = message["content"][event["index"]]
            whole = "".join(fragments)
            block |= {"text": whole} if block["type"] == "text" else {"input": json.loads(whole)}
        elif event["type"] == "message_delta":
            message |= event["delta"] | {"usage": event["usage"]}
    return message


@given(_TEXT, st.lists(st.dictionaries(_TEXT, _TEXT | st.booleans() | st.integers(0, 9)), max_size=3))
def test_a_stream_carries_the_whole_message(text: str, inputs: list[dict[str, Any]]) -> None:
    message = _message(text, inputs)

    assert _reassembled(_parsed(message)) == message


def test_order_of_events() -> None:
    names = [name for name, _ in events(_message("hi", [{}]))]

    assert names == [
        "message_start",
        *("content_block_start", "ping", "content_block_delta", "content_block_stop"),
        *("content_block_start", "content_block_delta", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop"),
    ]


def test_input_comes_in_fragments_that_cut_escapes_in_two() -> None:
    stream = _parsed(_message("hi", [{"old_string": 'a "quoted"\nstring\\ with é'}]))
    fragments = [event["delta"]["partial_json"] for event in stream if "partial_json" in event.get("delta", {})]

    assert fragments[0] == ""
    assert len(fragments) > 5
    inside = [fragment for fragment in fragments if fragment.endswith("\\")]
    assert len(inside) == 6  # two quotes, one newline, one backslash (itself two characters), one é


def test_usage_is_cumulative_and_the_opening_has_no_end() -> None:
    stream = _parsed(_message("some words", []))
    opening, ending = stream[0]["message"], stream[-2]

    assert opening["stop_reason"] is None
    assert opening["usage"]["output_tokens"] == 1
    assert ending["usage"]["input_tokens"] == opening["usage"]["input_tokens"]
    assert ending["usage"]["output_tokens"] > 1


def test_equal_requests_get_equal_messages_and_others_get_other_ids() -> None:
    first, again = _message("hi", [{}, {}]), _message("hi", [{}, {}])
    other = _message("hi", [{}, {}], system="other")

    assert first == again
    ids = [first["id"], other["id"], *(block["id"] for each in (first, other) for block in each["content"][1:])]
    assert len(set(ids)) == 6


def test_a_reply_longer_than_max_tokens_is_cut() -> None:
    message = _message("words " * 100, [{"path": "a"}], max_tokens=10)

    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 10
    assert [block["type"] for block in message["content"]] == ["text"]
    assert len(message["content"][0]["text"]) == 40


def test_what_was_sent_before_is_read_from_the_cache() -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "x" * 400}]
    cache: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}
    plain = _message("hi", [], messages=messages)["usage"]
    first = _message("hi", [], messages=messages, **cache)["usage"]
    messages = [*messages, {"role": "assistant", "content": "y"}, {"role": "user", "content": "z" * 40}]
    second = _message("hi", [], messages=messages, **cache)["usage"]

    assert plain["input_tokens"] > 100
    assert plain["cache_read_input_tokens"] == plain["cache_creation_input_tokens"] == 0
    assert first["cache_read_input_tokens"] == 0
    assert first["cache_creation_input_tokens"] > 90
    assert second["cache_read_input_tokens"] >= first["cache_creation_input_tokens"]
    for usage, sent in ((plain, messages[:1]), (first, messages[:1]), (second, messages)):
        inputs = [number for name, number in usage.items() if name != "output_tokens"]
        assert sum(inputs) == count_input_tokens({"messages": sent})
