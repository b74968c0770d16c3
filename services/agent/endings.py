"""The ways in which a loop ends, and when it may not go on. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from services.agent.answering import completion_of, text_of
from services.agent.model import Reply
from services.agent.prompts import prompt
from services.agent.tools import Completion
from services.agent.transcript import Transcript
from services.contracts.words import ExitReason


class RunFailedError(Exception):
    """The attempt cannot be finished. ``retryable``: another attempt may well be."""

    def __init__(self, reason: ExitReason, words: str, *, retryable: bool = False) -> None:
        super().__init__(words)
        self.reason = reason
        self.retryable = retryable


@dataclass(frozen=True)
class Finished:
    """The model is done, or its user is."""

    summary: str
    blocked: bool = False
    read_through: int = 0
    """The highest number of the user's messages that was heard and may not be stored as read; 0: none."""


def blocked(ended: Finished) -> RunFailedError:
    """That the model has said that it cannot go on."""
    return RunFailedError(ExitReason.BLOCKED, ended.summary or "the model said that it cannot go on")


@dataclass(frozen=True)
class Parked:
    """It is its user's turn; nothing that was said is unread. ``summary``: what the model said last."""

    summary: str


def finished(completion: Completion) -> Finished:
    return Finished(completion.summary, blocked=completion.status == "blocked")


def stored_end(transcript: Transcript) -> Finished | None:
    """With what an earlier attempt of this run had concluded, if one had."""
    completion = completion_of(transcript.calls_answered_with(prompt("go_on")))
    return finished(completion) if completion is not None else None


@dataclass
class Limits:
    max_turns: int
    turns: int = 0
    """Requests that earlier attempts made."""
    max_identical_calls: int = 4
    """Turns in a row with the same calls and the same results; the model is told one before, and at the last."""
    max_malformed_turns: int = 3
    """Turns in a row that had only malformed calls."""
    max_cut_offs: int = 2
    """How often the model may go on from a reply that was cut off, until it is told something else."""


def exceeded(limits: Limits, transcript: Transcript, *, turns: int, malformed: int) -> RunFailedError | None:
    """Why the model is not to be asked again.

    ``turns``: requests so far. ``malformed``: the last of them in a row that had only malformed calls.
    """
    if transcript.repeated >= limits.max_identical_calls:
        words = f"made the same call {limits.max_identical_calls} times in a row"
        return RunFailedError(ExitReason.STUCK, words)
    if malformed >= limits.max_malformed_turns:
        words = f"{limits.max_malformed_turns} turns in a row had only malformed tool calls"
        return RunFailedError(ExitReason.STUCK, words)
    if turns >= limits.max_turns:
        return RunFailedError(ExitReason.MAX_TURNS, f"not finished after {limits.max_turns} turns")
    return None


def failure_of(reply: Reply, transcript: Transcript, limits: Limits) -> RunFailedError | None:
    """Why the run cannot go on from ``reply``."""
    match reply.stop_reason:
        case "refusal":
            return RunFailedError(ExitReason.MODEL_REFUSED, text_of(reply) or "the model refused the request")
        case "model_context_window_exceeded":
            words = "the conversation no longer fits the model's window"
            return RunFailedError(ExitReason.CONTEXT_EXHAUSTED, words)
        case "max_tokens" if transcript.times_said_lately(prompt("cut_off")) >= limits.max_cut_offs:
            words = f"its replies were cut off at max_tokens {limits.max_cut_offs + 1} times"
            return RunFailedError(ExitReason.STUCK, words)
        case _:
            return None
