"""One payload of each kind, for the examples of docs/asyncapi.yaml; a test decodes each with the protobuf."""

from __future__ import annotations

from typing import Any

from services.contracts.words import EventKind

_BASE_SHA = "1f0c5d3a9be44f7f2a6d3c81e8f2b7c4d5a69e03"
_COMMIT_SHA = "9a3b7c1d2e4f5061728394a5b6c7d8e9f0a1b2c3"
_CHANGESET = "0198c3a0-0000-7000-8000-000000000005"
_BRANCH = "quarterdeck/fix-the-typo-0198c3a0"
_CALL = "toolu_01"

EXAMPLES: dict[EventKind, dict[str, Any]] = {
    EventKind.JOB_SUBMITTED: {"kind": "code", "runs": 2},
    EventKind.JOB_STARTED: {},
    EventKind.JOB_CANCEL_REQUESTED: {},
    EventKind.JOB_FINISHED: {"state": "completed", "outcome": "partial"},
    EventKind.RUN_DISPATCHED: {"dispatch": 1},
    EventKind.RUN_STARTED: {"agent": "agent-1"},
    EventKind.RUN_PREPARED: {"baseSha": _BASE_SHA, "branch": _BRANCH},
    EventKind.RUN_REQUEUED: {"reason": "retry", "error": "the model is overloaded"},
    EventKind.RUN_WAITING: {"summary": "Which of the two files do you mean?"},
    EventKind.RUN_MESSAGE: {"number": 1, "text": "Please also fix the README.", "interrupt": True},
    EventKind.RUN_PUBLISHING: {"changesetId": _CHANGESET},
    EventKind.RUN_FINISHED: {"state": "completed", "outcome": "delivered", "summary": "Fixed the typo in two files."},
    EventKind.TURN_STARTED: {"turn": 2, "model": "claude-sonnet-5-5"},
    EventKind.TURN_ENDED: {
        "turn": 2,
        "stopReason": "tool_use",
        "usage": {"inputTokens": 812, "outputTokens": 40, "cacheReadInputTokens": 4096},
        "durationMs": 950,
    },
    EventKind.TURN_RESET: {"turn": 2, "reason": "the model is overloaded"},
    EventKind.TOOL_STARTED: {"turn": 2, "toolUseId": _CALL, "name": "read_file", "subject": "README.md"},
    EventKind.TOOL_ENDED: {"turn": 2, "toolUseId": _CALL, "name": "read_file", "isError": True, "durationMs": 12},
    EventKind.FILE_CHANGED: {"path": "README.md", "change": "modified"},
    EventKind.USAGE: {
        "turn": 2,
        "model": "claude-sonnet-5-5",
        "tokens": {"inputTokens": 12, "outputTokens": 480, "cacheReadInputTokens": 9000},
        "costUsd": 0.0121,
        "runCostUsd": 0.0475,
    },
    EventKind.TESTS_STARTED: {"command": "make test", "fixAttempt": 1},
    EventKind.TESTS_ENDED: {"exitCode": 2, "durationMs": 5400, "output": "1 failed, 41 passed"},
    EventKind.LOG: {"level": "info", "message": "The tests are run."},
    EventKind.DELTA: {
        "turn": 2,
        "type": "text",
        "text": "I will look",
        "block": 1,
        "more": [{"type": "tool_input", "text": '{"pa', "block": 2}],
    },
    EventKind.CHANGESET_STORED: {
        "changesetId": _CHANGESET,
        "commitSha": _COMMIT_SHA,
        "filesChanged": 2,
        "insertions": 3,
        "deletions": 3,
    },
    EventKind.CHANGESET_PUSHED: {
        "changesetId": _CHANGESET,
        "commitSha": _COMMIT_SHA,
        "branch": _BRANCH,
        "url": "https://forge.example/you/one/pull/7",
    },
    EventKind.CHANGESET_FAILED: {"changesetId": _CHANGESET, "error": "the remote refused the push"},
    EventKind.CHANGESET_UPDATED: {
        "changesetId": _CHANGESET,
        "state": "open",
        "checks": "passing",
        "review": "approved",
        "mergeable": "yes",
        "url": "https://forge.example/you/one/pull/7",
    },
    EventKind.PROGRESS: {"phase": "Receiving objects", "percent": 42},
}
