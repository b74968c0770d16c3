"""What came of a test run, and how a model and the event log are told. Pure."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from services.agent.prompts import prompt
from services.contracts.text import storable
from services.contracts.words import EventKind
from services.jobs.unit import Draft

MAX_OUTPUT_CHARACTERS: Final = 4_000
TESTS_FAILED_MARK: Final = prompt("tests_failed").partition("\n")[0]
"""The first line of every message that sends failing tests back to a model, by which those are counted."""

# What a shell ends with where it could not begin a command.
CANNOT_BE_EXECUTED: Final = 126
_NOT_FOUND: Final = 127
_UNSTARTED: Final = {
    CANNOT_BE_EXECUTED: "it cannot be executed",
    _NOT_FOUND: "there is no such command in the sandbox",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """``exit_code``: the command's; 128 and the signal's number where a signal ended it. ``output``: the end of what
    it printed, at most 4,000 characters, fit to be stored. ``has_run``: False where no sandbox could run it, which no
    change to the code puts right.
    """

    passed: bool
    exit_code: int
    timed_out: bool
    output: str
    command: str
    duration: timedelta
    has_run: bool = True

    @property
    def ending(self) -> str:
        """How it ended, to go on a sentence that begins with the command."""
        if not self.has_run:
            return "could not be started: there is no sandbox for it"
        if self.timed_out:
            return f"was stopped after {self.duration.total_seconds():.0f} s, its time limit"
        if self.exit_code in _UNSTARTED:
            return f"could not be started: {_UNSTARTED[self.exit_code]} (exit code {self.exit_code})"
        return f"ended with exit code {self.exit_code}"


def end_of(text: str) -> str:
    """As much of the end of ``text`` as is kept, fit to be stored."""
    return storable(text)[-MAX_OUTPUT_CHARACTERS:]


def prompt_of(verdict: Verdict) -> str:
    """What the model is told about failing tests; begins with ``TESTS_FAILED_MARK``."""
    output = verdict.output.strip() or "(it printed nothing)"
    return prompt("tests_failed").format(command=verdict.command, ending=verdict.ending, output=output)


def tests_started(command: str, fix_attempt: int) -> Draft:
    """``fix_attempt``: how often failures went back to the model before."""
    return Draft(EventKind.TESTS_STARTED, {"command": storable(command), "fixAttempt": fix_attempt})


def tests_ended(verdict: Verdict) -> Draft:
    data = {
        "passed": verdict.passed,
        "exitCode": verdict.exit_code,
        "timedOut": verdict.timed_out,
        "durationMs": round(verdict.duration.total_seconds() * 1000),
        "output": verdict.output,
    }
    return Draft(EventKind.TESTS_ENDED, data)
