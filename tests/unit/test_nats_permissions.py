"""deploy/nats.conf lets each service say and hear what its code does, and no more: read from the code itself."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from services.contracts import subjects
from services.contracts.words import EventKind, Queue

ROOT = Path(__file__).parents[2]
SERVICES = ("gateway", "scheduler", "agent", "vcs")
USER = re.compile(r"user: (\w+)\n.*?publish: \[(.*?)\].*?subscribe: \[(.*?)\]", re.DOTALL)
HEARS = {"listen"}
READS = {"pull", "read", "tail", "stream_position"}
"""Through consumers: tests/unit/test_deploy.py looks at those."""
OURS = "qd."


@cache
def allowed(user: str) -> tuple[set[str], set[str]]:
    """What ``user`` may publish to, and what it may subscribe to."""
    found = {name: lists for name, *lists in USER.findall((ROOT / "deploy" / "nats.conf").read_text())}
    publish, subscribe = (set(re.findall(r'"([^"]+)"', text)) for text in found[user])
    return publish, subscribe


def covers(pattern: str, subject: str) -> bool:
    """Whether ``subject``, itself perhaps with wildcards, is within ``pattern``."""
    ours, theirs = pattern.split("."), subject.split(".")
    for place, word in enumerate(ours):
        if word == ">":
            return len(theirs) > place
        if place >= len(theirs) or (word not in ("*", theirs[place]) or (word == "*" and theirs[place] == ">")):
            return False
    return len(ours) == len(theirs)


def subject_of(node: ast.expr, module: ModuleType) -> str | None:
    """What the expression is as a subject of ours; what only running it would tell stands in it as `some`."""
    if isinstance(node, ast.Call):
        function = value_of(node.func, module)
        if not inspect.isfunction(function) or function.__module__ != subjects.__name__:
            return None
        arguments = [value_of(argument, module) for argument in node.args]
        found = function(*(each if isinstance(each, str) else "some" for each in arguments))
    else:
        found = value_of(node, module)
    return found if isinstance(found, str) and found.startswith(OURS) else None


def value_of(node: ast.expr, module: ModuleType) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return getattr(module, node.id, None)
    return getattr(value_of(node.value, module), node.attr, None) if isinstance(node, ast.Attribute) else None


def uses(node: ast.AST, module: ModuleType, within: frozenset[str] = frozenset()) -> Iterator[tuple[str, bool]]:
    """The subjects that the code below ``node`` names, each with whether it is heard; else it is published to."""
    if isinstance(node, ast.Compare):  # says which one a message came on
        return
    if isinstance(node, ast.expr) and (subject := subject_of(node, module)) is not None:
        is_heard = bool(within & HEARS)
        if is_heard or not (within & READS or "*" in subject or ">" in subject):  # nobody publishes to a wildcard
            yield subject, is_heard
        return
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
        return  # a name for it, which stands wherever it is used
    if isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        within = within | {called}
    for child in ast.iter_child_nodes(node):
        yield from uses(child, module, within)


@cache
def used(service: str) -> frozenset[tuple[str, bool]]:
    found: set[tuple[str, bool]] = set()
    for path in sorted((ROOT / "services" / service).rglob("*.py")):
        text = path.read_text()
        if "subjects" in text or OURS in text:
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found |= set(uses(ast.parse(text), importlib.import_module(name)))
    return frozenset(found)


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_says_and_hears_it_may(service):
    publish, subscribe = allowed(service)
    refused = [
        f"{'hears' if heard else 'says'} {subject}"
        for subject, heard in sorted(used(service))
        if not any(covers(pattern, subject) for pattern in (subscribe if heard else publish))
    ]
    assert refused == []


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_may_say_and_hear_it_does(service):
    for patterns, is_heard in zip(allowed(service), (False, True), strict=True):
        subjects_used = [subject for subject, heard in used(service) if heard is is_heard]
        ours = [pattern for pattern in patterns if pattern.startswith(OURS)]
        assert [pattern for pattern in ours if not any(covers(pattern, each) for each in subjects_used)] == []


def test_the_code_is_read_right():
    """Else both of the above would be content with anything."""
    assert used("agent") == {
        (subjects.EVENTS_DOORBELL, False),
        (subjects.PACE, False),
        (subjects.PACE, True),
        (subjects.BUDGETS, True),
        ("qd.ctl.*", True),
        (subjects.orders("some"), True),
        (subjects.work(Queue.PUBLISH), False),
        ("qd.evt.some.some.some", False),
    }
    assert used("vcs") == {(subjects.EVENTS_DOORBELL, False)}
    assert {(subjects.COMMAND_SUBMIT, False), (subjects.BUDGETS, False)} <= used("gateway")
    assert {
        (subjects.control("some"), False),
        (subjects.orders("some"), False),
        (subjects.work(Queue.PUBLISH), False),
    } <= used("scheduler")
    assert subjects.event("some", "some", EventKind.LOG).endswith(".log")


@pytest.mark.parametrize(
    ("pattern", "subject", "is_within"),
    [
        ("qd.ctl.*", "qd.ctl.pace", True),
        ("qd.ctl.*", "qd.ctl.*", True),
        ("qd.ctl.pace", "qd.ctl.*", False),
        ("qd.ctl.*", "qd.ctl.a.b", False),
        ("qd.evt.>", "qd.evt.a.b.c", True),
        ("qd.evt.>", "qd.evt", False),
        ("qd.*", "qd.>", False),
        ("qd.work.publish", "qd.work.code", False),
    ],
)
def test_wildcards_are_those_of_nats(pattern, subject, is_within):
    assert covers(pattern, subject) is is_within
