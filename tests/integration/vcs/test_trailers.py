"""A trailer that a message is ended with is one that Git reads, whatever comes before it."""

import subprocess
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.contracts.trailers import with_trailer

KEY, VALUE = "Quarterdeck-Run", "00000000-0000-0000-0000-000000000001"
LINE = f"{KEY}: {VALUE}"
GIT_READS = ("git", "interpret-trailers", "--parse", "--no-divider")

paragraphs = st.lists(
    st.sampled_from(["Fix it", "Refs: 1", "A-b: c", "no trailer: here", "  indented", "x", "Signed-off-by: A <a@b>"]),
    min_size=1,
    max_size=4,
).map("\n".join)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(paragraphs, min_size=1, max_size=4).map("\n\n".join))
def test_git_reads_the_trailer(message: str) -> None:
    ended = with_trailer(message, KEY, VALUE)

    read = subprocess.run(GIT_READS, input=ended, capture_output=True, text=True, check=True, timeout=30).stdout

    assert read.splitlines().count(LINE) == 1


LINES = (
    "Text.",
    "Key: value",
    "Signed-off-by: Bob <b@example.org>",
    " goes on",
    "",
    "(cherry picked from commit 12)",
)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(st.sampled_from((*LINES, "Signed-off-by: Ada <ada@example.org>")), max_size=8))
def test_a_sign_off_stands_where_git_would_put_it(tmp_path: Path, lines: list[str]) -> None:
    message = "\n".join(("Subject", "", *lines))
    asked = ("--if-exists", "addIfDifferent", "--trailer", "Signed-off-by: Ada <ada@example.org>")
    ran = subprocess.run(
        ("git", "interpret-trailers", *asked),
        input=f"{message.rstrip()}\n",
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        cwd=tmp_path,
    )
    expected = ran.stdout.strip()
    assert with_trailer(message, "Signed-off-by", "Ada <ada@example.org>").strip() == expected
