"""Whole runs whose settings stand at three levels: the job's count before the client's, those before the service's."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from services.contracts.agents import ClientSettings
from services.contracts.rest import JobRequest
from services.jobs.client_settings import ClientSetting
from services.jobs.submission import Submissions
from services.runtime.base_urls import BaseUrls
from services.runtime.sealing import Sealer
from tests.integration.agent.agents import StartAgent
from tests.integration.agent.fleet import Fleet
from tests.integration.agent.looking import ENDS, logged, system, work
from tests.integration.agent.messages_server import Json, MessagesServer, call, whole

DONE = whole(call(9, "task_complete", summary="Done.", status="done"))
TAKES_TEMPERATURE, TAKES_EFFORT = "claude-sonnet-4-5", "claude-sonnet-5-5"
SECRET_KEY = base64.urlsafe_b64encode(b"k" * 32).decode()

SERVICE = {
    "CLAUDE_MODEL": TAKES_TEMPERATURE,
    "CLAUDE_MAX_TOKENS": 3_000,
    "CLAUDE_TEMPERATURE": 0.1,
    "effort": "low",
    "system_prompt": "Says the service.",
}
CLIENT = {"maxTokens": 4_000, "temperature": 0.2, "effort": "medium", "systemPrompt": "Says the client."}
JOB = {"maxTokens": 5_000, "temperature": 0.3, "effort": "high", "systemPrompt": "Says the job."}


class KeyNotingServer(MessagesServer):
    """Keeps the keys that requests came with."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers["authorization"].removeprefix("Bearer "))
        return await super()._handle(request)


@pytest.fixture
async def model() -> AsyncIterator[KeyNotingServer]:
    async with KeyNotingServer() as server:
        yield server


@pytest.fixture
async def other_model() -> AsyncIterator[KeyNotingServer]:
    async with KeyNotingServer() as server:
        server.ever_after = DONE
        yield server


def settings(fleet: Fleet, *others: MessagesServer) -> ClientSetting:
    return ClientSetting(fleet.domain.units, Sealer(SECRET_KEY), base_urls(fleet, *others))


def base_urls(fleet: Fleet, *others: MessagesServer) -> BaseUrls:
    return BaseUrls(fleet.model.url, ",".join(other.url for other in others))


def shown(request: Json) -> dict[str, Any]:
    """What the settings came to, under the names that a job has for them."""
    last_line = system(request).splitlines()[-1]
    return {
        "maxTokens": request["max_tokens"],
        "systemPrompt": last_line,
        **({"temperature": request["temperature"]} if "temperature" in request else {}),
        **({"effort": request["output_config"]["effort"]} if "output_config" in request else {}),
    }


@pytest.mark.parametrize(
    ("model_name", "left_out"), [(TAKES_TEMPERATURE, "effort"), (TAKES_EFFORT, "temperature")], ids=["older", "newest"]
)
async def test_the_narrowest_level_counts_and_what_the_model_does_not_take_is_told(
    fleet: Fleet, start_agent: StartAgent, model_name: str, left_out: str
):
    await start_agent(**SERVICE | {"CLAUDE_MODEL": model_name})
    fleet.model.ever_after = DONE
    first = await work(fleet)
    await settings(fleet).replace(fleet.domain.client, ClientSettings.model_validate(CLIENT))
    runs = [first, await work(fleet), await work(fleet, **JOB)]
    of_service = {"maxTokens": 3_000, "temperature": 0.1, "effort": "low", "systemPrompt": "Says the service."}
    taken = [{name: value for name, value in level.items() if name != left_out} for level in (of_service, CLIENT, JOB)]
    assert [shown(request) for request in fleet.model.requests] == taken
    for run in runs:
        assert await logged(fleet, run["id"]) == [f"{model_name} takes no {left_out}: it was left out"]


async def test_a_level_that_says_nothing_leaves_it_to_the_next(fleet: Fleet, start_agent: StartAgent):
    await start_agent(**SERVICE)
    fleet.model.ever_after = DONE
    client = ClientSettings.model_validate({"maxTokens": 4_000, "model": "claude-opus-4-5"})
    await settings(fleet).replace(fleet.domain.client, client)
    await work(fleet, temperature=0)
    (request,) = fleet.model.requests
    assert request["model"] == "claude-opus-4-5"
    taken = {"maxTokens": 4_000, "temperature": 0, "effort": "low", "systemPrompt": "Says the service."}
    assert shown(request) == taken


async def test_a_model_that_replies_with_less_is_asked_for_less(fleet: Fleet, start_agent: StartAgent):
    await start_agent(**SERVICE)
    fleet.model.ever_after = DONE
    run = await work(fleet, model="claude-3-5-haiku-latest", maxTokens=20_000)
    assert fleet.model.requests[0]["max_tokens"] == 8_192
    assert "claude-3-5-haiku-latest replies with 8,192 tokens at most, not 20,000" in await logged(fleet, run["id"])


async def test_a_retired_model_is_replaced_and_that_is_told(fleet: Fleet, start_agent: StartAgent):
    await start_agent(**SERVICE)
    fleet.model.ever_after = DONE
    run = await work(fleet, model="claude-3-7-sonnet-20250219")
    assert fleet.model.requests[0]["model"] == TAKES_TEMPERATURE
    assert any(line.startswith("claude-3-7-sonnet-20250219 is retired") for line in await logged(fleet, run["id"]))


async def test_a_key_goes_to_the_address_of_its_level(
    fleet: Fleet, start_agent: StartAgent, model: KeyNotingServer, other_model: KeyNotingServer
):
    await start_agent(secret_key=SECRET_KEY, model_base_urls=other_model.url)
    model.ever_after = DONE
    client, setting = fleet.domain.client, settings(fleet, other_model)
    await work(fleet)
    await setting.set_key(client, "of-client")
    await work(fleet)
    await setting.replace(client, ClientSettings.model_validate({"baseUrl": other_model.url}))
    await work(fleet)
    await fleet.until_run(await with_key(fleet, other_model, baseUrl=fleet.model.url), *ENDS)
    assert model.keys == ["a key", "of-client", "of-job"]
    assert other_model.keys == ["of-client"]


async def with_key(fleet: Fleet, other: MessagesServer, **options: Any) -> UUID:
    """The run of a job that brings a key of its own."""
    submissions = Submissions(fleet.domain.units, Sealer(SECRET_KEY), base_urls(fleet, other))
    request = {
        "prompt": "Change a to b",
        "repositories": [{"url": str(fleet.repository)}],
        "options": options,
        "credentials": {"anthropicApiKey": "of-job"},
    }
    submitted = await submissions.submit(fleet.domain.client, JobRequest.model_validate(request), key=None, body=b"")
    (order,) = await fleet.order(submitted.job_id)
    return order.run_id


async def test_no_key_goes_to_an_address_that_a_narrower_level_names(
    fleet: Fleet, start_agent: StartAgent, other_model: KeyNotingServer
):
    await start_agent(secret_key=SECRET_KEY, model_base_urls=other_model.url)
    client = ClientSettings.model_validate({"baseUrl": other_model.url})
    await settings(fleet, other_model).replace(fleet.domain.client, client)
    run = await work(fleet)
    assert (run["state"], run["exit_reason"]) == ("failed", "model_rejected")
    assert "the server's key is not sent there" in run["error"]
    assert fleet.model.requests == other_model.requests == []
