"""What an agent is told of the runs that it is given: by its orders, or by the claims that it answers them with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson

from services.contracts.agents import ClientSettings
from services.contracts.delivery import Checkout
from services.contracts.rest import JobOptions
from services.contracts.words import JobKind
from services.jobs.models import ClaimedRun, Hold, SavedTree, Spent, StoredMessage
from services.runtime.ids import as_uuid
from services.runtime.postgres import Record

_PLAIN = Checkout()
_NO_SETTINGS = ClientSettings()
_FIRST_ATTEMPT: Mapping[str, Any] = {
    "turns": 0,
    "attempts_spent": 0,
    "tokens": 0,
    "cost_microusd": 0,
    "resumes": None,
    "cancel_requested": False,
    "job_sealed": None,
    "client_sealed": None,
}
"""Of a run that begins for the first time and has no secrets; of any other an order does not say what it is."""
_TOLD = {
    *("client_id", "queue", "repository", "base_ref", "base_sha", "base_branch", "branch", "checkout", "created_at"),
    *("head", "seconds_left", "kind", "name", "prompt", "options", "settings", "is_budgeted", "may_be_skipped"),
}
"""What an order says where it says anything."""


@dataclass(frozen=True)
class Order:
    """A work order, as it came."""

    run_id: UUID
    token: UUID
    """Of the lease that was granted with it."""
    job_id: UUID | None = None
    work: bytes = b""
    """What there is to know of the run, as JSON, where it begins for the first time; empty: it has to be claimed."""

    def as_claim(self) -> Claim | None:
        """What a claim of it would answer, for whoever knows that the lease lasts; None where too little is said."""
        if self.job_id is None or not self.work:
            return None
        try:
            row: dict[str, Any] = {**_FIRST_ATTEMPT, **orjson.loads(self.work)}
            if not row.keys() >= _TOLD:
                return None  # by a scheduler of another version
            row["client_id"], row["created_at"] = as_uuid(row["client_id"]), datetime.fromisoformat(row["created_at"])
        except (ValueError, TypeError):
            return None
        return Claim(Hold(self.run_id, self.job_id, 1, self.token), row)


@dataclass(frozen=True)
class Claim:
    """A run that this agent has taken up."""

    hold: Hold
    row: Mapping[str, Any] | Record
    """What the claim, or the order, said of it."""

    @property
    def cancel_requested(self) -> bool:
        """Then nothing is to begin: it is to be said that nothing is left of it."""
        requested: bool = self.row["cancel_requested"]
        return requested

    @property
    def is_new(self) -> bool:
        """Whether neither it nor another run that it goes on from can have left anything yet."""
        return self.hold.attempt == 1 and self.row["resumes"] is None


def known_run(claim: Claim) -> ClaimedRun | None:
    """All that its agent needs of a run that begins for the first time; None where something has to be read for it."""
    return claimed_run(claim) if claim.is_new and not claim.row["may_be_skipped"] else None


def claimed_run(
    claim: Claim,
    messages: Sequence[Record] = (),
    saved: Record | None = None,
    outputs: Sequence[Record] = (),
    *,
    skipped_for: str | None = None,
) -> ClaimedRun:
    """All that its agent needs of it: ``messages``, ``saved`` and ``outputs`` as earlier attempts left them."""
    row = claim.row
    return ClaimedRun(
        hold=claim.hold,
        kind=JobKind(row["kind"]),
        prompt=row["prompt"],
        name=row["name"],
        options=_options(row["options"]),
        repository=row["repository"],
        base_ref=row["base_ref"],
        base_sha=row["base_sha"],
        branch=row["branch"],
        checkout=Checkout.model_validate(row["checkout"]) if row["checkout"] else _PLAIN,
        skipped_for=skipped_for,
        turns=row["turns"],
        attempts_spent=row["attempts_spent"],
        seconds_left=row["seconds_left"],
        created_at=row["created_at"],
        messages=[StoredMessage(m["number"], m["role"], m["body"]) for m in messages],
        tree=SavedTree(saved["patch"], saved["read_versions"], saved["is_behind"]) if saved else None,
        client_id=row["client_id"],
        client_settings=ClientSettings.model_validate(row["settings"]) if row["settings"] else _NO_SETTINGS,
        sealed=[sealed for sealed in (row["job_sealed"], row["client_sealed"]) if sealed is not None],
        head=row["head"],
        spent=Spent(row["tokens"], row["cost_microusd"]),
        is_budgeted=row["is_budgeted"],
        copied=sum(m["is_copied"] for m in messages),
        outputs={output["name"]: output["body"] for output in outputs},
    )


@lru_cache(maxsize=256)
def _options(text: str) -> JobOptions:
    """Most jobs of a client have the same; validating takes longer than all else of a claim. They are immutable."""
    return JobOptions.model_validate(orjson.loads(text))
