"""What an agent is told of what happened on GitHub: templates, with what people wrote there fenced off as data. Pure.

The line that fences it is made from what it holds, so that nobody can have written it there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from services.contracts.rest import MAX_PROMPT_CHARACTERS
from services.contracts.templates import fill
from services.contracts.text import storable
from services.contracts.v1 import vcs_pb2
from services.gateway.webhooks.happenings import Remark

_FOLDER: Final = Path(__file__).parent / "prompts"
_TEMPLATES: Final = {name: (_FOLDER / f"{name}.md").read_text() for name in ("issue", "review", "checks")}
_MOST_DATA: Final = 80_000
_MOST_TEXT: Final = 20_000
"""Of one body, comment or check; a prompt has at most 100,000 characters."""
_MOST_LINE: Final = 300
_CUT: Final = " … (cut)"


def issue_prompt(repository: str, issue: vcs_pb2.Issue) -> str:
    """The issue as it is now, with what was said on it, the newest of it where that is too much."""
    parts = [_described("Issue", issue), *map(_comment, issue.comments)]
    return _prompt("issue", parts, number=issue.number, repository=repository)


def review_prompt(repository: str, pull: vcs_pb2.Issue, remark: Remark, *, task: str) -> str:
    """``task``: the prompt that the pull request was made with."""
    parts = [
        f"What you were asked for at first:\n{_cut(task)}",
        _described("Pull request", pull),
        *map(_comment, pull.comments),
        _remark(remark),
    ]
    return _prompt("review", parts, number=pull.number, repository=repository)


def checks_prompt(repository: str, number: int, sha: str, checks: Sequence[vcs_pb2.FailedCheck], *, task: str) -> str:
    """``task``: as for a review."""
    parts = [f"What you were asked for at first:\n{_cut(task)}", *map(_check, checks)]
    return _prompt("checks", parts, number=number, repository=repository, sha=sha)


def _prompt(template: str, parts: Sequence[str], **values: object) -> str:
    data = storable("\n\n".join(_fitting(parts)))
    fence = f"===== {hashlib.sha256(data.encode()).hexdigest()[:16]} ====="
    filled = {name: storable(str(value)) for name, value in values.items()}
    return fill(_TEMPLATES[template], {**filled, "data": data, "fence": fence})[:MAX_PROMPT_CHARACTERS].strip()


def _fitting(parts: Sequence[str]) -> Iterable[str]:
    """The first two and the last, and of those between the newest that there is room for."""
    first, between, last = list(parts[:2]), list(parts[2:-1]), list(parts[2:][-1:])
    room = _MOST_DATA - sum(map(len, first + last))
    kept: list[str] = []
    for part in reversed(between):
        room -= len(part)
        if room < 0:
            kept.append(f"({len(between) - len(kept)} older comments are left out)")
            break
        kept.append(part)
    return [*first, *reversed(kept), *last]


def _described(what: str, issue: vcs_pb2.Issue) -> str:
    labels = f"\nLabels: {_line(', '.join(issue.labels))}" if issue.labels else ""
    return f"{what} #{issue.number} by {_line(issue.author)}\nTitle: {_line(issue.title)}{labels}\n\n{_cut(issue.body)}"


def _comment(comment: vcs_pb2.IssueComment) -> str:
    return f"Comment by {_line(comment.author)}:\n{_cut(comment.body)}"


def _remark(remark: Remark) -> str:
    place = f" on {_line(remark.path)}" if remark.path else ""
    line = f", line {remark.line}" if remark.line else ""
    hunk = f"\nThe code that it is about:\n{_cut(remark.hunk)}\n" if remark.hunk else ""
    return f"The last remark, by {_line(remark.author.login)}{place}{line}:\n{hunk}\n{_cut(remark.said)}"


def _check(check: vcs_pb2.FailedCheck) -> str:
    words = "\n".join(filter(None, [_line(check.title), _cut(check.summary)]))
    return f"Check {_line(check.name)}: {_line(check.conclusion)}\n{words}"


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_LINE else line[:_MOST_LINE] + _CUT


def _cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + _CUT
