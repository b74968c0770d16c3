"""The asynchronous client of the native API. It holds no state of jobs: every answer is the gateway's."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any
from urllib.parse import urlencode

from quarterdeck.changesets import Changesets
from quarterdeck.clients import Clients
from quarterdeck.connection import Id, filters_of, json_bytes, model_json, parsed, segment
from quarterdeck.errors import WaitTimeoutError
from quarterdeck.repositories import Repositories
from quarterdeck.sse import AllPosition, Event, Position, follow
from services.contracts.agents import ClientSettings
from services.contracts.limits import Limits
from services.contracts.rest import (
    Health,
    Job,
    JobOptions,
    JobPage,
    JobRequest,
    Logs,
    Message,
    RepositoryRequest,
    RetryOptions,
    Run,
    RunPage,
    Transcript,
)
from services.contracts.spending import Budgets, UsageReport
from services.contracts.words import EventKind, JobKind, JobState

RECONNECT_PATIENCE = timedelta(seconds=60)
"""How long an event stream may be without any connection."""

FINAL_STATES = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})


class Client(Changesets, Repositories, Clients):
    """A client of one gateway; use it in ``async with``.

    ``address``: such as `http://127.0.0.1:8080`; default: `QUARTERDECK_ADDRESS`, else the running local stack's.
    ``api_key``: default: `QUARTERDECK_API_KEY`, else the local stack's. Raises NotConfiguredError where none is
    known. ``patience``: how long reads and submits are tried again. Every method raises ``ApiError`` (by kind:
    NotFoundError, InvalidRequestError, …), UnavailableError or ProtocolError.
    """

    async def submit(
        self,
        prompt: str,
        repositories: Iterable[str | RepositoryRequest] = (),
        *,
        kind: JobKind | str = JobKind.CODE,
        name: str | None = None,
        priority: int = 0,
        not_before: datetime | None = None,
        options: JobOptions | Mapping[str, Any] | None = None,
        anthropic_api_key: str | None = None,
        github_token: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Ask for a job on these repositories: Git URLs, or absolute paths where the server allows them.

        ``options``: as ``JobOptions`` or by their JSON names. ``not_before``: with a time zone.
        ``anthropic_api_key``, ``github_token``: for this job alone; the server keeps them encrypted, and shows them to
        nobody. With the token its repositories on GitHub are fetched, pushed to and asked for pull requests.
        ``idempotency_key``: the same key twice makes one job; default: a fresh one, so that retries are safe.
        """
        body: dict[str, Any] = {
            "prompt": prompt,
            "kind": str(kind),
            "priority": priority,
            "repositories": [_repository_json(repository) for repository in repositories],
        }
        if name is not None:
            body["name"] = name
        if not_before is not None:
            body["notBefore"] = not_before.isoformat()
        if options is not None:
            body["options"] = model_json(options) if isinstance(options, JobOptions) else dict(options)
        if credentials := _given(anthropicApiKey=anthropic_api_key, githubToken=github_token):
            body["credentials"] = credentials
        return await self._submit(body, idempotency_key)

    async def submit_request(self, request: JobRequest, *, idempotency_key: str | None = None) -> Job:
        """The same for a request that is a model already."""
        body = model_json(request)
        if request.credentials is not None:
            # A model shows stars in their place.
            body["credentials"] = {
                name: secret.get_secret_value()
                for name, secret in request.credentials.model_dump(by_alias=True, exclude_none=True).items()
            }
        return await self._submit(body, idempotency_key)

    async def _submit(self, body: Mapping[str, Any], idempotency_key: str | None) -> Job:
        key = idempotency_key or str(uuid.uuid4())
        return parsed(Job, await self._transport.post("/v1/jobs", json_bytes(body), key))

    async def job(self, job_id: Id) -> Job:
        return parsed(Job, await self._transport.get(f"/v1/jobs/{segment(job_id)}"))

    def jobs(
        self,
        *,
        state: JobState | str | None = None,
        kind: JobKind | str | None = None,
        repository: str | None = None,
        name: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[Job]:
        """Jobs from the newest on, page by page as they are asked for; at most ``limit`` of them."""
        filters = filters_of(
            state=state,
            kind=kind,
            repository=repository,
            name=name,
            createdAfter=created_after,
            createdBefore=created_before,
        )
        return self._items(partial(parsed, JobPage), "/v1/jobs", filters, limit)

    async def cancel_job(self, job_id: Id) -> Job:
        """Ask for the job's end; what runs is stopped soon after. Raises ConflictError where it is final."""
        return parsed(Job, await self._transport.post_once(f"/v1/jobs/{segment(job_id)}/cancel"))

    async def retry_job(
        self,
        job_id: Id,
        *,
        only_failed: bool = False,
        resume: bool = False,
        options: RetryOptions | Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Do an ended job again; the answer is the new job. Raises ConflictError where the old one has not ended.

        ``only_failed``: only the runs that did not complete. ``resume``: from the old runs' checkpoints.
        ``options``: what takes the place of the old ones, by their JSON names or as ``RetryOptions``.
        """
        body: dict[str, Any] = {"only": "failed" if only_failed else "all", "resume": resume}
        if options is not None:
            body["options"] = model_json(options) if isinstance(options, RetryOptions) else dict(options)
        path, key = f"/v1/jobs/{segment(job_id)}/retry", idempotency_key or str(uuid.uuid4())
        return parsed(Job, await self._transport.post(path, json_bytes(body), key))

    async def say(self, job_id: Id, text: str, *, run_id: Id | None = None, interrupt: bool = False) -> Message:
        """Say something to a task's run. Raises ConflictError where nobody can hear it.

        ``run_id``: needed where the job has several. ``interrupt``: break off what the model is saying. Sent once: it
        is not known whether a message without an answer has arrived.
        """
        body = {"text": text, "interrupt": interrupt, **({"runId": str(run_id)} if run_id is not None else {})}
        path = f"/v1/jobs/{segment(job_id)}/messages"
        return parsed(Message, await self._transport.send_once("POST", path, json_bytes(body)))

    async def complete_job(self, job_id: Id, *, run_id: Id | None = None) -> Job:
        """End a task's conversation, or one run's. Raises ConflictError where it has ended."""
        body = {"runId": str(run_id)} if run_id is not None else {}
        path = f"/v1/jobs/{segment(job_id)}/complete"
        return parsed(Job, await self._transport.send_once("POST", path, json_bytes(body)))

    async def limits(self) -> Limits:
        """How many runs may hold a slot at once: all limits for an operator, else the common ones and one's own."""
        return parsed(Limits, await self._transport.get("/v1/limits"))

    async def set_limits(self, limits: Limits) -> Limits:
        """Replace all limits. Raises UnauthorizedError where the key is no operator's."""
        body = limits.model_dump_json(by_alias=True).encode()
        return parsed(Limits, await self._transport.send_once("PUT", "/v1/limits", body))

    async def settings(self) -> ClientSettings:
        """What one's own runs take where their job says nothing; each secret as `(set)`."""
        return parsed(ClientSettings, await self._transport.get("/v1/settings"))

    async def set_settings(self, settings: ClientSettings) -> ClientSettings:
        """Replace all but the key; a secret that says `(set)` stays as it is stored."""
        body = settings.model_dump_json(by_alias=True).encode()
        return parsed(ClientSettings, await self._transport.send_once("PUT", "/v1/settings", body))

    async def remove_settings(self) -> ClientSettings:
        """Take all settings away, with the key and every other secret."""
        return parsed(ClientSettings, await self._transport.send_once("DELETE", "/v1/settings", b""))

    async def set_anthropic_key(self, key: str | None) -> ClientSettings:
        """Store the key that one's own runs use the model service with; None: take it away."""
        path = "/v1/settings/anthropic-key"
        if key is None:
            return parsed(ClientSettings, await self._transport.send_once("DELETE", path, b""))
        body = json_bytes({"anthropicApiKey": key})
        return parsed(ClientSettings, await self._transport.send_once("PUT", path, body))

    async def budgets(self) -> Budgets:
        """What may be used over more than one job: all budgets for an operator, else the common ones and one's own."""
        return parsed(Budgets, await self._transport.get("/v1/budgets"))

    async def set_budgets(self, budgets: Budgets) -> Budgets:
        """Replace all budgets. Raises UnauthorizedError where the key is no operator's."""
        body = budgets.model_dump_json(by_alias=True).encode()
        return parsed(Budgets, await self._transport.send_once("PUT", "/v1/budgets", body))

    async def usage(
        self, *, first_day: date | None = None, last_day: date | None = None, client: str | None = None
    ) -> UsageReport:
        """What was used from one UTC day to another, both included, and what the budgets leave for today.

        Default: the 30 days up to ``last_day``, and that is today. ``client``: another client's, for operators; raises
        UnauthorizedError for anybody else.
        """
        filters = filters_of(**{"from": first_day, "to": last_day, "client": client})
        return parsed(UsageReport, await self._transport.get("/v1/usage", filters))

    def runs(self, job_id: Id, *, limit: int | None = None) -> AsyncIterator[Run]:
        """The job's runs in the order of its repositories."""
        return self._items(partial(parsed, RunPage), f"/v1/jobs/{segment(job_id)}/runs", {}, limit)

    async def run(self, run_id: Id) -> Run:
        return parsed(Run, await self._transport.get(f"/v1/runs/{segment(run_id)}"))

    async def cancel_run(self, run_id: Id) -> Run:
        """Ask for one run's end; the job's other runs go on. Raises ConflictError where it is too late."""
        return parsed(Run, await self._transport.post_once(f"/v1/runs/{segment(run_id)}/cancel"))

    async def diff(self, run_id: Id) -> str:
        """The run's change as a unified diff. Raises NotFoundError where it has none (yet)."""
        response = await self._transport.get(f"/v1/runs/{segment(run_id)}/diff")
        return response.content.decode(errors="replace")

    async def transcript(self, run_id: Id) -> Transcript:
        return parsed(Transcript, await self._transport.get(f"/v1/runs/{segment(run_id)}/transcript"))

    async def logs(self, run_id: Id) -> Logs:
        return parsed(Logs, await self._transport.get(f"/v1/runs/{segment(run_id)}/logs"))

    async def health(self) -> Health:
        return parsed(Health, await self._transport.get("/health"))

    def events(
        self, job_id: Id, *, after: str | None = None, patience: timedelta = RECONNECT_PATIENCE
    ) -> AsyncGenerator[Event, None]:
        """The job's events from its first on, or from behind ``after`` (an ``Event.id``), until it has finished.

        A broken connection is made again: every durable event comes once and in order, and what the gateway no
        longer has is one event of the kind `gap`. Close the iterator (``contextlib.aclosing``) to leave early.
        Raises UnavailableError where no connection could be made for ``patience``.
        """

        async def is_over() -> bool:
            return (await self.job(job_id)).state in FINAL_STATES

        return follow(
            self._transport,
            f"/v1/jobs/{segment(job_id)}/events",
            position=Position.after(after),
            patience_seconds=patience.total_seconds(),
            is_over=is_over,
        )

    def all_events(
        self,
        *,
        after: str | int | None = None,
        kinds: Iterable[EventKind | str] = (),
        deltas: bool = True,
        patience: timedelta = RECONNECT_PATIENCE,
    ) -> AsyncGenerator[Event, None]:
        """The events of all jobs from now on, or from behind ``after``, without end: close the iterator to leave.

        ``after``: an ``Event.id`` of this stream, or the place over all jobs that such an id begins with; 0: all that
        is kept. ``kinds``: only these; none given: all. ``deltas``: false for durable events alone.
        A broken connection is made again, as in ``events``: each durable event comes once, and each job's in order.
        Raises UnavailableError where no connection could be made for ``patience``.
        """

        async def is_over() -> bool:
            return False

        query = [*(("kind", str(kind)) for kind in kinds), *(() if deltas else (("deltas", "false"),))]
        return follow(
            self._transport,
            f"/v1/events?{urlencode(query)}" if query else "/v1/events",
            position=AllPosition.after(f"{after}:-:0" if isinstance(after, int) else after),
            patience_seconds=patience.total_seconds(),
            is_over=is_over,
        )

    async def wait(self, job_id: Id, *, deadline: timedelta = timedelta(days=1)) -> Job:
        """Wait until the job is final. Raises WaitTimeoutError after ``deadline``; the job then goes on."""
        try:
            async with asyncio.timeout(deadline.total_seconds()):
                async with aclosing(self.events(job_id)) as events:
                    async for _ in events:
                        pass
                return await self.job(job_id)
        except TimeoutError as error:
            raise WaitTimeoutError(f"Job {job_id} is not final after {deadline}; it goes on.") from error


def _repository_json(repository: str | RepositoryRequest) -> dict[str, Any]:
    if isinstance(repository, str):
        return {"url": repository}
    return repository.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)


def _given(**secrets: str | None) -> dict[str, str]:
    return {name: secret for name, secret in secrets.items() if secret is not None}
