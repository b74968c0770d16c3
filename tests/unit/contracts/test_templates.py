"""Templates fill in what they know and leave the rest; trailers end a message as Git reads them."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.templates import SUBJECT_CHARACTERS, fill, subject_of, values_of
from services.contracts.trailers import with_trailer

RUN, JOB = UUID(int=1), UUID(int=2)
KEY, VALUE = "Quarterdeck-Run", str(RUN)
LINE = f"{KEY}: {VALUE}"


def values(**known: str | None) -> dict[str, str]:
    given_ones: dict[str, str | None] = {"name": None, "repository": None, "branch": None, **known}
    prompt = given_ones.pop("prompt", None) or "Fix it\nall of it"
    return values_of(prompt=prompt, job_id=JOB, run_id=RUN, **given_ones)


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{name}: {prompt}", "Bump: Fix it"),
        ("{prompt}{prompt}", "Fix itFix it"),
        ("{unknown} {} {Name} {0} { name } {{name}}", "{unknown} {} {Name} {0} { name } {Bump}"),
        ("{name", "{name"),
        ("%s $name {name.__class__} {name!r}", "%s $name {name.__class__} {name!r}"),
        ("", ""),
        ("{job}/{run}", f"{JOB}/{RUN}"),
    ],
)
def test_what_is_known_is_filled_in(template: str, filled: str) -> None:
    assert fill(template, values(name="Bump")) == filled


def test_what_is_filled_in_is_not_read_again() -> None:
    assert fill("{name} {prompt}", values(name="{prompt}", prompt="{name}")) == "{prompt} {name}"


def test_what_is_not_there_is_empty_and_the_name_falls_back_to_the_prompt() -> None:
    assert fill("[{name}|{repository}|{branch}]", values()) == "[Fix it||]"


@given(st.text(), st.dictionaries(st.text("abc", min_size=1), st.text()))
def test_a_template_without_known_names_stays_as_it_is(template: str, known: dict[str, str]) -> None:
    assert fill(template.replace("{", "("), known) == template.replace("{", "(")


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("  \n\n One \r\ntwo", "One"),
        ("", ""),
        (" \n ", ""),
        ("x" * SUBJECT_CHARACTERS, "x" * SUBJECT_CHARACTERS),
        ("x" * (SUBJECT_CHARACTERS + 1), "x" * (SUBJECT_CHARACTERS - 1) + "…"),
    ],
)
def test_a_subject_is_the_first_line_cut_to_its_length(text: str, subject: str) -> None:
    assert subject_of(text) == subject


@pytest.mark.parametrize(
    ("message", "ended"),
    [
        ("Fix it", f"Fix it\n\n{LINE}\n"),
        ("Fix it\n\n\n", f"Fix it\n\n{LINE}\n"),
        ("Fix: it", f"Fix: it\n\n{LINE}\n"),
        ("Fix it\n\nBody: with a colon\nand more", f"Fix it\n\nBody: with a colon\nand more\n\n{LINE}\n"),
        ("Fix it\n\nCo-authored-by: A <a@b>", f"Fix it\n\nCo-authored-by: A <a@b>\n{LINE}\n"),
        ("Fix it\n \t\nRefs: 1\nCloses: 2\n", f"Fix it\n \t\nRefs: 1\nCloses: 2\n{LINE}\n"),
        (f"Fix it\n\n{LINE}", f"Fix it\n\n{LINE}\n"),
        (f"Fix it\n\n{LINE}\nRefs: 1\n", f"Fix it\n\n{LINE}\nRefs: 1\n"),
        (f"{LINE}", f"{LINE}\n\n{LINE}\n"),
    ],
)
def test_a_trailer_joins_those_that_are_there(message: str, ended: str) -> None:
    assert with_trailer(message, KEY, VALUE) == ended
    assert with_trailer(ended, KEY, VALUE) == ended
