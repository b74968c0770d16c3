"""docs/events.md tells of every kind of event, and of no other."""

import re
from pathlib import Path

from services.contracts.v1.events_pb2 import Event
from services.contracts.words import EventKind
from services.jobs import eventlog

PAGE = (Path(__file__).parents[3] / "docs" / "events.md").read_text()
DELTAS = {EventKind.DELTA, EventKind.TURN_RESET, EventKind.PROGRESS}
NAME = re.compile(r"`([a-z_.]+)`")


def kinds_in_the_table() -> list[str]:
    _, rows = PAGE.split("| kind | tells |\n| --- | --- |\n")
    table = rows.split("\n\n")[0]
    return [kind for row in table.splitlines() for kind in NAME.findall(row.split("|")[1])]


def test_the_table_has_each_durable_kind_once() -> None:
    assert sorted(kinds_in_the_table()) == sorted(set(EventKind) - DELTAS)


def test_the_deltas_are_told_before_it() -> None:
    (paragraph,) = (each for each in PAGE.split("\n\n") if each.startswith("**Durable events**"))
    assert set(NAME.findall(paragraph)) == DELTAS | {"number"}


def test_the_kinds_are_those_of_the_protobuf() -> None:
    payloads = {field.name for field in Event.DESCRIPTOR.oneofs_by_name["payload"].fields}
    assert {kind.replace(".", "_") for kind in EventKind} == payloads


def test_the_sizes_on_the_page_are_those_of_the_code() -> None:
    sizes = PAGE.split("## Sizes")[1].split("##")[0]
    for characters in (eventlog.MOST_SUMMARY_CHARACTERS, eventlog.MOST_LINE_CHARACTERS, eventlog._SHORTENED_CHARACTERS):
        assert f"{characters:,}" in sizes
    assert f"{eventlog.MOST_BYTES // 1024} KiB" in sizes
