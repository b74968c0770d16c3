"""Which requests the offline model refuses, and that the refusal names what was wrong."""

from typing import Any

import orjson
import pytest

from quarterdeck.offline_model.conversation import Call, Result, Turn, read_conversation
from quarterdeck.offline_model.wire import MessagesRequest, RequestError, decode, validate


def _use(use_id: str, tool: str = "read_file") -> dict[str, Any]:
    return {"type": "tool_use", "id": use_id, "name": tool, "input": {"path": use_id}}


def _result(use_id: str, content: Any = "text", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": use_id, "content": content, **more}


def _user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content) or "hi"}


def _assistant(*content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(content)}


def _request(*messages: dict[str, Any], **fields: Any) -> MessagesRequest:
    decoded = {"model": "claude-opus-5-5", "max_tokens": 10, "messages": list(messages or [_user()]), **fields}
    return validate(MessagesRequest, decode(orjson.dumps(decoded)))


def test_fields_that_it_does_not_use_are_let_through() -> None:
    text = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    thinking = {"type": "thinking", "thinking": "…", "signature": "s"}

    request = _request(
        _user(text),
        {"role": "system", "content": "mind the gap"},
        _assistant(thinking, {"type": "text", "text": "yes"}),
        _user({"type": "image", "source": {"type": "base64"}}, text),
        system=[text],
        thinking={"type": "adaptive"},
        metadata={"user_id": "u"},
        cache_control={"type": "ephemeral"},
        tools=[{"type": "web_search_20260209", "name": "web_search"}],
    )

    assert read_conversation(request).speeches == [("hi", 0), ("hi", 0)]


@pytest.mark.parametrize("field", ["model", "max_tokens", "messages"])
def test_a_missing_field_is_named(field: str) -> None:
    decoded = {"model": "m", "max_tokens": 10, "messages": [_user()]}
    del decoded[field]

    with pytest.raises(RequestError, match=f"^{field}: Field required$") as caught:
        validate(MessagesRequest, decoded)

    assert (caught.value.status, caught.value.kind) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"model": ""}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0.content.0.text.text"),
        ({"messages": [{"role": "user", "content": [{"text": "hi"}]}]}, "messages.0.content.0.other.type"),
        (
            {"messages": [_assistant({"type": "tool_use", "id": "a", "name": "x"})]},
            "messages.0.content.0.tool_use.input",
        ),
        ({"tools": [{"name": "no spaces"}]}, "tools.0.name"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(RequestError) as caught:
        _request(**fields) if "messages" in fields else _request(_user(), **fields)

    assert caught.value.message.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object, not list"),
        (b'{"a": "\\ud800"}', "not valid JSON"),
        (b'{"a":' * 600 + b"1" + b"}" * 600, "cannot be read"),
    ],
)
def test_a_body_that_is_no_json_object(body: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        decode(body)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([_assistant({"type": "text", "text": "hi"}), _user()], "first message must use"),
        ([_user(), _assistant({"type": "text", "text": "hi"})], r"messages\.1\.role: prefilling"),
        ([{"role": "system", "content": "hi"}], "at least one message"),
        ([_user(_result("a"))], "unexpected tool_use_id 'a'"),
        ([_user(), _assistant(_use("a")), _user(_result("a"), _result("b"))], "unexpected tool_use_id 'b'"),
        ([_user(), _assistant(_use("a"), _use("b")), _user(_result("a"))], "without a tool_result .*: b"),
        ([_user(), _assistant(_use("a")), _user({"type": "text", "text": "no"})], "without a tool_result .*: a"),
        ([_user(), _assistant(_use("a"), _use("a")), _user(_result("a"))], "must be unique, 'a'"),
        ([_user(), _assistant(_use("a")), _user(_result("a"), _result("a"))], "'a' must be given once"),
        (
            [_user(), _assistant(_use("a")), _user({"type": "text", "text": "see"}, _result("a"))],
            "before other blocks",
        ),
        (
            [_user(), _assistant(_use("a")), _user(_result("a")), _assistant(_use("a")), _user(_result("a"))],
            "must be unique, 'a'",
        ),
    ],
)
def test_a_conversation_that_the_real_service_refuses(messages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_conversation(_request(*messages))


def test_tool_names_must_be_unique() -> None:
    with pytest.raises(RequestError, match="'a' is not"):
        read_conversation(_request(tools=[{"name": "a"}, {"name": "a"}]))


def test_calls_are_paired_with_their_results_in_the_order_of_the_calls() -> None:
    conversation = read_conversation(
        _request(
            _user(),
            _assistant(_use("a"), _use("b")),
            _user(_result("b", [{"type": "text", "text": "B"}], is_error=True), _result("a", "")),
        )
    )

    calls = (Call("read_file", {"path": "a"}), Call("read_file", {"path": "b"}))
    assert conversation.turns == [Turn(calls, (Result(""), Result("B", is_error=True)))]


def test_neighbours_of_one_role_are_one_turn() -> None:
    text = {"type": "text", "text": "go on"}
    conversation = read_conversation(_request(_user(), _assistant(_use("a")), _user(_result("a")), _user(text)))

    assert conversation.speeches == [("hi", 0), ("go on", 1)]


def test_an_answer_to_a_question_is_something_the_user_said() -> None:
    asked = [_user(), _assistant(_use("a", "ask_user"))]
    text = {"type": "text", "text": "as a message"}

    in_result = read_conversation(_request(*asked, _user(_result("a", "in the result"))))
    beside = read_conversation(_request(*asked, _user(_result("a", "The user was asked."), text)))
    failed = read_conversation(_request(*asked, _user(_result("a", "no user here", is_error=True))))

    assert in_result.speeches[1:] == [("in the result", 1)]
    assert beside.speeches[1:] == [("as a message", 1)]
    assert failed.speeches[1:] == []
