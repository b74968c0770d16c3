"""The offline model's behaviour, against an agent in memory that carries out what it asks for."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import pytest

from quarterdeck.offline_model.conversation import Call, Conversation, Result, Turn
from quarterdeck.offline_model.script import SIGNATURE, next_step
from quarterdeck.offline_model.searching import Step
from quarterdeck.offline_model.toolbox import Toolbox
from quarterdeck.offline_model.wire import Tool, ToolChoice

_INPUTS = {
    "list_files": ("directory", "recursive", "glob", "limit"),
    "read_file": ("path", "start_line", "end_line"),
    "edit_file": ("path", "old_string", "new_string", "replace_all"),
    "search_code": ("pattern", "path", "glob", "ignore_case", "context", "max_results"),
    "task_complete": ("summary", "status"),
    "ask_user": ("question",),
}
CODE_TOOLS = ("list_files", "read_file", "edit_file", "search_code", "task_complete")
LONGEST_CONVERSATION = 60


def _tools(*names: str) -> list[Tool]:
    return [Tool(name=name, input_schema={"properties": {key: {} for key in _INPUTS[name]}}) for name in names]


@dataclass
class Agent:
    """Answers calls from ``files``; ``refused`` fails to be edited; ``shown_matches`` cuts off longer searches."""

    files: dict[str, str]
    refused: frozenset[str] = frozenset()
    shown_matches: int = 1_000
    toolbox: Toolbox = field(default_factory=lambda: Toolbox(_tools(*CODE_TOOLS), None))
    steps: list[Step] = field(default_factory=list)

    def converse(self, prompt: str) -> Call:
        """Drive the conversation to its end and return the last call."""
        conversation = Conversation(speeches=[(prompt, 0)])
        for _ in range(LONGEST_CONVERSATION):
            step = next_step(conversation, self.toolbox)
            assert step == next_step(conversation, self.toolbox)
            self.steps.append(step)
            if not step.calls or step.calls[-1].tool in {"task_complete", "ask_user"}:
                return step.calls[-1] if step.calls else Call("", {})
            conversation.turns.append(Turn(step.calls, tuple(self._answer(call) for call in step.calls)))
        raise AssertionError("the conversation does not end")

    def _answer(self, call: Call) -> Result:
        answers: dict[str, Callable[..., Result]] = {
            "search_code": self._search,
            "list_files": self._list,
            "read_file": self._read,
            "edit_file": self._edit,
        }
        return answers[call.tool](**call.input)

    def _search(self, *, pattern: str, max_results: int, path: str = ".", glob: str = "*") -> Result:
        lines = [
            f"{name}:{number}:{line}"
            for name, text in sorted(self.files.items())
            if name.startswith(path) or path == "."
            # As with the real tool, a file that is named is searched whatever the glob.
            if fnmatch(name, glob) or name == path
            for number, line in enumerate(text.splitlines(), 1)
            if re.search(pattern, line)
        ]
        shown = lines[: min(max_results, self.shown_matches)]
        notice = [f"[{len(lines) - len(shown)} more matches left out]"] if len(shown) < len(lines) else []
        return Result("\n".join([*shown, *notice]) or "No matches.")

    def _list(self, *, directory: str, limit: int) -> Result:
        below = [name.removeprefix(directory) for name in self.files if name.startswith(directory) or directory == "."]
        entries = {name.split("/")[0] + ("/" if "/" in name else "") for name in below}
        return Result("\n".join(("" if directory == "." else directory) + entry for entry in sorted(entries)[:limit]))

    def _read(self, *, path: str) -> Result:
        return Result("\n".join(f"{number}\t{line}" for number, line in enumerate(self.files[path].splitlines(), 1)))

    def _edit(self, *, path: str, old_string: str, new_string: str, replace_all: bool) -> Result:
        assert replace_all
        if path in self.refused or old_string not in self.files[path]:
            return Result(f"{path} is read-only.\nNothing was changed.", is_error=True)
        count = self.files[path].count(old_string)
        self.files[path] = self.files[path].replace(old_string, new_string)
        return Result(f"Replaced {count} places.")


def _tools_asked_for(agent: Agent) -> list[list[str]]:
    return [[call.tool for call in step.calls] for step in agent.steps]


def test_search_read_edit_verify_and_done() -> None:
    agent = Agent({"a.py": "old\nolder old\n", "b.py": "none", "dir/c.md": "[old]"})

    end = agent.converse("Please replace all occurrences of 'old' with 'new'.")

    assert agent.files == {"a.py": "new\nnewer new\n", "b.py": "none", "dir/c.md": "[new]"}
    assert _tools_asked_for(agent) == [
        ["search_code"],
        ["read_file", "read_file"],
        ["edit_file", "edit_file"],
        ["search_code"],
        ["task_complete"],
    ]
    assert end.input["status"] == "done"
    assert "4 occurrences in 2 files: a.py (3), dir/c.md (1)" in end.input["summary"]
    assert all(step.text.startswith(f"{SIGNATURE} ") for step in agent.steps)
    assert end.input["summary"].startswith(SIGNATURE)


def test_nothing_to_change() -> None:
    agent = Agent({"a.py": "text"})

    end = agent.converse("replace all occurrences of 'old' with 'new'")

    assert end.input["status"] == "done"
    assert "occurs nowhere: nothing to change" in end.input["summary"]
    assert len(agent.steps) == 2


def test_a_text_replaced_with_itself_is_left_alone() -> None:
    agent = Agent({"a.py": "old"})

    assert "nothing to change" in agent.converse("replace 'old' with 'old'").input["summary"]
    assert len(agent.steps) == 1


@pytest.mark.parametrize(("old", "new", "text"), [("a", "aa", "a-a"), ("aa", "a", "aaaa"), (".*", "(.*)", "x.*y")])
def test_matches_that_do_not_end_are_replaced_once(old: str, new: str, text: str) -> None:
    agent = Agent({f"{number}.txt": text for number in range(3)})

    end = agent.converse(f"replace all occurrences of '{old}' with '{new}'")

    assert set(agent.files.values()) == {text.replace(old, new)}
    assert end.input["status"] == "done"


def test_several_replacements_are_made_in_order() -> None:
    agent = Agent({"a.py": "one two", "a.md": "one two"})

    agent.converse("replace 'one' with 'two' in *.py; replace 'two' with 'three' in *.py")

    assert agent.files == {"a.py": "three three", "a.md": "one two"}


def test_a_file_that_cannot_be_edited_is_named_and_the_others_are_done() -> None:
    agent = Agent({"a.py": "old", "b.py": "old"}, refused=frozenset({"a.py"}))

    end = agent.converse("replace 'old' with 'new'")

    assert agent.files == {"a.py": "old", "b.py": "new"}
    assert end.input["status"] == "blocked"
    assert "Could not replace 'old' in a.py (a.py is read-only)" in end.input["summary"]
    assert any("Could not edit a.py: a.py is read-only. " in step.text for step in agent.steps)


def test_where_no_file_can_be_edited_there_is_nothing_to_verify() -> None:
    agent = Agent({"a.py": "old"}, refused=frozenset({"a.py"}))

    assert agent.converse("replace 'old' with 'new'").input["status"] == "blocked"
    assert [tools[0] for tools in _tools_asked_for(agent)].count("search_code") == 1


@pytest.mark.parametrize("new", ["new", "old old"])
def test_a_search_that_is_cut_off_is_made_in_parts(new: str) -> None:
    names = [f"{directory}/{number}.py" for directory in "abc" for number in range(6)]
    agent = Agent({**dict.fromkeys(names, "old\nold"), "top.py": "old", "deep/er/x.py": "old"}, shown_matches=5)

    end = agent.converse("replace 'old' with '" + new + "'")

    assert {text.replace("\n", " ") for text in agent.files.values()} == {f"{new} {new}", new}
    assert end.input["status"] == "done"
    assert "38 occurrences in 20 files" in end.input["summary"]


def test_a_search_in_parts_keeps_to_the_glob() -> None:
    names = [f"{directory}{number}.{kind}" for directory in ("", "a/") for number in range(9) for kind in ("py", "md")]
    agent = Agent(dict.fromkeys(names, "old"), shown_matches=5)

    assert agent.converse("replace 'old' with 'new' in *.py").input["status"] == "done"
    assert {name for name, text in agent.files.items() if text == "new"} == {name for name in names if "py" in name}


def test_a_tool_that_takes_no_glob_does_not_widen_it() -> None:
    search = Tool(name="search_code", input_schema={"properties": {"pattern": {}, "max_results": {}}})
    toolbox = Toolbox([search, *_tools("edit_file", "read_file", "task_complete")], None)
    agent = Agent({"a.py": "old", "a.md": "old"}, toolbox=toolbox)

    agent.converse("replace 'old' with 'new' in *.py")

    assert agent.files == {"a.py": "new", "a.md": "old"}


def test_a_search_that_is_cut_off_and_cannot_be_made_in_parts_is_admitted() -> None:
    names = [f"{number}.py" for number in range(9)]
    toolbox = Toolbox(_tools(*(name for name in CODE_TOOLS if name != "list_files")), None)
    agent = Agent(dict.fromkeys(names, "old"), shown_matches=5, toolbox=toolbox)

    end = agent.converse("replace 'old' with 'older'")

    assert end.input["status"] == "blocked"
    assert "cut off" in end.input["summary"]


def test_a_search_that_fails_is_told() -> None:
    toolbox = Toolbox(_tools(*CODE_TOOLS), None)
    conversation = Conversation(speeches=[("replace 'a' with 'b'", 0)])
    search = next_step(conversation, toolbox).calls
    conversation.turns.append(Turn(search, (Result("The search took too long.", is_error=True),)))

    (end,) = next_step(conversation, toolbox).calls

    assert end.input["status"] == "blocked"
    assert "the search failed: The search took too long" in end.input["summary"]


def test_many_files_take_few_turns() -> None:
    agent = Agent({f"{number}.py": "old" for number in range(300)})

    assert agent.converse("replace 'old' with 'new'").input["status"] == "done"
    assert len(agent.steps) < 25
    assert set(agent.files.values()) == {"new"}


def test_one_call_a_turn_where_the_request_says_so() -> None:
    choice = ToolChoice(type="auto", disable_parallel_tool_use=True)
    agent = Agent({"a.py": "old", "b.py": "old"}, toolbox=Toolbox(_tools(*CODE_TOOLS), choice))

    agent.converse("replace 'old' with 'new'")

    assert set(agent.files.values()) == {"new"}
    assert all(len(step.calls) == 1 for step in agent.steps)


@pytest.mark.parametrize("prompt", ["write me a web server", "replace 'a' with 'b' except in tests"])
def test_what_it_does_not_understand_it_says(prompt: str) -> None:
    agent = Agent({"a.py": "a"})

    end = agent.converse(prompt)

    assert end.input["status"] == "blocked"
    assert "offline stand-in" in end.input["summary"]
    assert "replace all occurrences of 'A' with 'B'" in agent.steps[0].text
    assert prompt[:10] in agent.steps[0].text or "except in tests" in agent.steps[0].text


def test_without_tools_it_ends_its_turn() -> None:
    conversation = Conversation(speeches=[("hello", 0)])

    assert next_step(conversation, Toolbox([], None)).calls == ()
    assert next_step(conversation, Toolbox(_tools(*CODE_TOOLS), ToolChoice(type="none"))).calls == ()


def test_tools_that_are_not_offered_are_named() -> None:
    agent = Agent({}, toolbox=Toolbox(_tools("search_code", "task_complete"), None))

    end = agent.converse("replace 'a' with 'b'")

    assert end.input["status"] == "blocked"
    assert "edit_file" in end.input["summary"]


def test_it_asks_the_user_and_understands_the_answer() -> None:
    toolbox = Toolbox(_tools(*CODE_TOOLS, "ask_user"), None)
    conversation = Conversation(speeches=[("hello", 0)])
    asked = next_step(conversation, toolbox)
    conversation.turns.append(Turn(asked.calls, (Result("asked"),)))
    conversation.speeches.append(("then do it", 1))
    asked_again = next_step(conversation, toolbox)
    conversation.turns.append(Turn(asked_again.calls, (Result("asked"),)))
    conversation.speeches.append(("replace 'a' with 'b'", 2))

    assert [call.tool for call in asked.calls] == ["ask_user"]
    assert "'hello'" in asked.calls[0].input["question"]
    assert "'then do it'" in asked_again.calls[0].input["question"]
    assert next_step(conversation, toolbox).calls[0].tool == "search_code"


def test_where_nobody_can_be_asked_it_is_blocked() -> None:
    toolbox = Toolbox(_tools(*CODE_TOOLS, "ask_user"), None)
    conversation = Conversation(speeches=[("hello", 0)])
    conversation.turns.append(Turn(next_step(conversation, toolbox).calls, (Result("nobody", is_error=True),)))

    assert next_step(conversation, toolbox).calls[0].input["status"] == "blocked"


def test_a_reminder_or_a_foreign_turn_does_not_start_it_afresh() -> None:
    toolbox = Toolbox(_tools(*CODE_TOOLS), None)
    conversation = Conversation(speeches=[("replace 'a' with 'aa'", 0)])
    search = next_step(conversation, toolbox).calls
    conversation.turns.append(Turn(search, (Result("x.py:1:a"),)))
    read = next_step(conversation, toolbox).calls
    conversation.turns.append(Turn((Call("write_file", {"path": "y"}),), (Result("done"),)))
    conversation.speeches.append(("Remember: replace 'a' with 'aa'!", 2))

    assert read == (Call("read_file", {"path": "x.py"}),)
    assert next_step(conversation, toolbox).calls == read


def test_after_its_end_it_only_repeats_its_summary() -> None:
    agent = Agent({"a.py": "old"})
    end = agent.converse("replace 'old' with 'new'")
    turns = [Turn(step.calls, tuple(Result("") for _ in step.calls)) for step in agent.steps]
    turns[0] = Turn(turns[0].calls, (Result("a.py:1:old"),))
    turns[1] = Turn(turns[1].calls, (Result("1\told"),))
    conversation = Conversation(speeches=[("replace 'old' with 'new'", 0), ("thank you", 5)], turns=turns)

    assert next_step(conversation, agent.toolbox) == Step(end.input["summary"])


def test_inputs_take_the_names_and_bounds_of_the_schema() -> None:
    schema = {"properties": {"regex": {}, "limit": {"type": "integer", "maximum": 50}}}
    toolbox = Toolbox([Tool(name="search_code", input_schema=schema)], None)

    call = toolbox.call("search_code", pattern="x", max_results=1_000, glob="*.py", path=None)

    assert call.input == {"regex": "x", "limit": 50}


def test_a_tool_without_a_schema_gets_the_plain_names() -> None:
    toolbox = Toolbox([Tool(name="read_file")], None)

    arguments: dict[str, Any] = toolbox.call("read_file", path="a").input

    assert arguments == {"path": "a"}
