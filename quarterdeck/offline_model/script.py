"""What the stand-in says and does next, as pure generators that are replayed over the conversation so far.

Being replayed, they hold no state between requests: the same request always gets the same step.
"""

from __future__ import annotations

from collections.abc import Iterable

from quarterdeck.offline_model.conversation import ASK_USER, Conversation, Turn
from quarterdeck.offline_model.instructions import (
    UNDERSTOOD_FORM,
    Replacement,
    UnclearInstructionError,
    parse_replacements,
)
from quarterdeck.offline_model.replacing import Outcome, Script, replace_everywhere, report
from quarterdeck.offline_model.searching import Step
from quarterdeck.offline_model.toolbox import Toolbox

SIGNATURE = "[offline model]"
NEEDED_TOOLS = ("search_code", "edit_file")
TASK_COMPLETE = "task_complete"
SUMMARY_CHARACTERS = 10_000


def next_step(conversation: Conversation, toolbox: Toolbox) -> Step:
    """Return what to say, under the stand-in's name, and which tools to call (none: the turn ends)."""
    script, turns = _choose_script(conversation, toolbox)
    step = _replay(script, turns)
    return Step(f"{SIGNATURE} {step.text}", step.calls)


def _replay(script: Script, turns: Iterable[Turn]) -> Step:
    """Run ``script`` up to where the conversation stands; a turn that it did not ask for is passed over."""
    try:
        step = next(script)
        for turn in turns:
            if turn.calls == step.calls:
                step = script.send(turn.results)
    except StopIteration as end:
        return Step(str(end.value))
    return step


def _choose_script(conversation: Conversation, toolbox: Toolbox) -> tuple[Script, list[Turn]]:
    """Take the newest understood instruction, else decline the newest thing said."""
    instruction: tuple[Replacement, ...] = ()
    begins = 0
    unclear = ""
    for text, turns_before in conversation.speeches:
        try:
            replacements = parse_replacements(text)
        except UnclearInstructionError as error:
            instruction, unclear = (), str(error)
            continue
        # A reminder that repeats the prompt must not start it afresh: 'a' with 'aa' would be done twice.
        if replacements and replacements != instruction:
            instruction, begins = replacements, turns_before
    if instruction:
        return _carry_out(instruction, toolbox), conversation.turns[begins:]
    said, begins = conversation.speeches[-1] if conversation.speeches else ("", 0)
    return _decline(said, unclear, toolbox), conversation.turns[begins:]


def _carry_out(replacements: tuple[Replacement, ...], toolbox: Toolbox) -> Script:
    if missing := toolbox.missing(*NEEDED_TOOLS):
        reason = f"Needed for this, but not offered here: {', '.join(missing)}. Nothing was changed."
        return (yield from _complete(reason, "blocked", toolbox))
    outcomes: list[Outcome] = []
    for replacement in replacements:
        outcome = yield from replace_everywhere(replacement, toolbox)
        outcomes.append(outcome)
    status = "done" if all(outcome.succeeded for outcome in outcomes) else "blocked"
    return (yield from _complete(report(outcomes), status, toolbox))


def _decline(said: str, unclear: str, toolbox: Toolbox) -> Script:
    words = " ".join(said.split())[:60]
    reason = (
        "This is the offline stand-in for Claude, not Claude itself. It carries out literal replacements only, "
        f"asked for in the form: {UNDERSTOOD_FORM}. "
        + (f"Here {unclear}." if unclear else f"It cannot carry out: {words!r}.")
    )
    if ASK_USER in toolbox:
        question = f"{reason} What shall be replaced, with what, and in which files?"
        yield Step(question, (toolbox.call(ASK_USER, question=f"{SIGNATURE} {question}"),))
    return (yield from _complete(reason, "blocked", toolbox))


def _complete(summary: str, status: str, toolbox: Toolbox) -> Script:
    summary = summary if len(summary) <= SUMMARY_CHARACTERS else f"{summary[:SUMMARY_CHARACTERS]} …"
    if TASK_COMPLETE in toolbox:
        yield Step(summary, (toolbox.call(TASK_COMPLETE, summary=f"{SIGNATURE} {summary}", status=status),))
    return summary
