"""What the published document prints, in files as it is printed there; only the base address and the ids are others."""

import json
from pathlib import Path
from typing import Any

ADDRESS = "https://api.cody-batch.example.com"
JOB_ID = "job-123"
THREAD_ID = "thread-123"
REPOSITORY = "liamzdenek/repo1"
ENCODED = "liamzdenek%2Frepo1"
_PRINTED = Path(__file__).parent / "printed"


def script(name: str) -> str:
    return (_PRINTED / f"{name}.sh").read_text()


def answer(name: str) -> dict[str, Any]:
    """A JSON body, with its fields in their order."""
    body: dict[str, Any] = json.loads((_PRINTED / f"{name}.json").read_text())
    return body


DIFF = (_PRINTED / "diff.diff").read_bytes()
CREATE = {
    "name": "Update code patterns",
    "description": "Apply a specific code change across repositories",
    "type": "code-pattern-update",
    "prompt": answer("create")["prompt"],
    "repositories": [REPOSITORY, "liamzdenek/repo2"],
    "createPullRequests": True,
}
