"""What is made of the tools that servers list: names, schemas and bounds, without any server."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.agent.mcp.naming import offered_names, server_of
from services.agent.mcp.offering import MAX_ALL_SCHEMAS_BYTES, ListedTool, offered, schema_problem

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def listed(name: str, schema: Any = None, description: str = "") -> ListedTool:
    return ListedTool(name, description, {"type": "object"} if schema is None else schema, read_only=False)


@given(st.lists(st.text(min_size=1) | st.sampled_from(["a.b", "a_b", "a-b", "a b", "n" * 60, "n" * 61]), unique=True))
def test_names_fit_differ_and_do_not_depend_on_the_order(tools: list[str]) -> None:
    names = offered_names("server-1", tools)
    assert set(names) == set(tools)
    assert len(set(names.values())) == len(tools)
    assert all(NAME.fullmatch(name) for name in names.values())
    assert names == offered_names("server-1", tools[::-1])
    assert {server_of(name) for name in names.values()} <= {"server-1"}


def test_a_name_made_to_collide_with_a_marked_one_does_not() -> None:
    marked = offered_names("s", ["a.b", "a_b"])["a.b"]
    forged = marked.removeprefix("mcp__s__")
    names = offered_names("s", ["a.b", "a_b", forged])
    assert names["a_b"] == "mcp__s__a_b"
    assert names[forged] == marked
    assert len(set(names.values())) == 3


def test_names_that_fit_stay_readable() -> None:
    assert offered_names("git-hub", ["get_me", "files.read"]) == {
        "get_me": "mcp__git-hub__get_me",
        "files.read": "mcp__git-hub__files_read",
    }


@pytest.mark.parametrize(("name", "server"), [("mcp__s-1__a__b", "s-1"), ("read_file", ""), ("mcp__S__a", "")])
def test_the_server_of_a_name(name: str, server: str) -> None:
    assert server_of(name) == server


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({}, "not of `type: object`"),
        ({"type": "string"}, "not of `type: object`"),
        ({"type": "object", "anyOf": []}, "`anyOf` on its top level"),
        ({"type": "object", "properties": []}, "`properties` are not schemas"),
        ({"type": "object", "properties": {"a": 1}}, "`properties` are not schemas"),
        ({"type": "object", "properties": {"ä\x1b": {}}}, r"no argument named `ä\x1b`"),
        ({"type": "object", "properties": {"a" * 65: {}}}, "no argument named"),
        ({"type": "object", "required": "a"}, "`required` is not a list"),
        ({"type": "object", "default": float("nan")}, "not JSON"),
        ({"type": "object", "title": "\ud800"}, "not JSON"),
        ({"type": "object", "title": "ä" * 40_000}, "its schema has 80,"),
        (nested(40), "nested more than 64 levels deep"),
        (nested(100_000), "nested more than 64 levels deep"),
    ],
)
def test_schemas_that_the_model_cannot_be_given_are_left_out(schema: Any, words: str) -> None:
    result = offered({"s": [listed("bad", schema), listed("good")]})
    assert [offer.tool for offer in result.offers] == ["good"]
    (problem,) = result.problems
    assert words in problem
    assert "`bad` is left out" in problem


def test_a_schema_goes_on_as_it_was_told() -> None:
    schema = {"type": "object", "properties": {"a.b": {"enum": ["x", 1, None]}, "c": True}, "$defs": {"d": {}}}
    assert schema_problem(schema) is None
    (offer,) = offered({"s": [listed("t", schema)]}).offers
    assert json.dumps(offer.spec.input_schema) == json.dumps(schema)


def test_control_characters_are_spelled_out() -> None:
    schema = {"type": "object", "description": "\x1b[2J", "properties": {"a": {"enum": ["\x07"]}}}
    (offer,) = offered({"s": [listed("t", schema, "\x1b]0;title\x07")]}).offers
    assert "\x1b" not in offer.spec.description
    assert offer.spec.input_schema["description"] == "\\x1b[2J"
    assert offer.spec.input_schema["properties"]["a"]["enum"] == ["\\x07"]


def test_all_schemas_together_are_bounded() -> None:
    schema = {"type": "object", "description": "x" * 60_000}
    result = offered({"s": [listed(f"t{number:02}", schema) for number in range(20)], "z": [listed("small")]})
    assert sum(len(json.dumps(offer.spec.input_schema)) for offer in result.offers) <= MAX_ALL_SCHEMAS_BYTES + 1_000
    assert "mcp__z__small" in [offer.spec.name for offer in result.offers]
    assert "12 of its tools are left out" in result.problems[0]
