"""The prompt files: each is said to a model somewhere, but for the template that the Cody Batch document has."""

from __future__ import annotations

from pathlib import Path
from string import Formatter

from services import agent
from services.agent.prompts import prompt

AGENT = Path(agent.__file__).parent
TEMPLATES = {"single_shot"}
"""Of a published document, for who reads it there; see docs/cody-batch.md."""
ANSWER = ["ANALYSIS:", "CHANGES_NECESSARY: [YES/NO]", "UPDATED_CODE:", "EXPLANATION:"]


def test_no_prompt_lies_there_unused() -> None:
    names = {path.stem for path in (AGENT / "prompts").glob("*.md")}
    code = "".join(path.read_text() for path in AGENT.rglob("*.py"))
    assert {name for name in names if f'"{name}"' not in code} == TEMPLATES


def test_the_single_shot_template_has_the_slots_and_the_answer_of_the_document() -> None:
    text = prompt("single_shot")
    slots = [name for _, name, _, _ in Formatter().parse(text) if name is not None]
    assert slots == ["prompt", "repository_name", "file_path", "file_content"]
    places = [text.index(f"\n{heading}") for heading in ANSWER]
    assert places == sorted(places)
    filled = text.format(prompt="Do {it}", repository_name="o/r", file_path="a.js", file_content="f({});")
    assert "FILE: a.js\n\n```\nf({});\n```" in filled
