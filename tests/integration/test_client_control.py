"""What the client and the commands send to steer jobs and limits, and what they make of refusals."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web
from pydantic import BaseModel
from typer.testing import CliRunner, Result

from quarterdeck import Client, ConflictError, RateLimitedError, UnauthorizedError, UnavailableError
from quarterdeck.cli.app import app
from services.contracts.agents import SET, ClientSettings
from services.contracts.limits import Limits
from services.contracts.rest import Job, JobRequest, Message, RetryOptions
from tests.integration.fake_gateway import API_KEY, NOW, FakeGateway, make_job, make_run, problem, running

WEB = {"type": "http", "url": "https://mcp.example/", "headers": {"Authorization": SET}}


@dataclass
class ControlGateway(FakeGateway):
    """The fake gateway with the routes that steer; ``sent``: the bodies that came, by method and last word."""

    limits: dict[str, Any] = field(default_factory=lambda: {"fleet": 7, "client": {"byName": {"default": 4}}})
    settings: dict[str, Any] = field(default_factory=lambda: {"model": "m", "mcpServers": {"web": WEB}})
    sent: list[tuple[str, Any]] = field(default_factory=list)

    def application(self) -> web.Application:
        application = super().application()
        application.add_routes(
            [
                web.post("/v1/jobs/{id}/retry", self._retry),
                web.post("/v1/jobs/{id}/messages", self._message),
                web.post("/v1/jobs/{id}/complete", self._complete),
                web.get("/v1/limits", self._get_limits),
                web.put("/v1/limits", self._put_limits),
                web.get("/v1/settings", self._get_settings),
                web.put("/v1/settings", self._put_settings),
                web.delete("/v1/settings", self._put_settings),
                web.put("/v1/settings/anthropic-key", self._put_key),
                web.delete("/v1/settings/anthropic-key", self._put_key),
            ]
        )
        return application

    async def _retry(self, request: web.Request) -> web.Response:
        self.sent.append(("retry", await request.json()))
        return _answer(make_job(retry_of=self._found(request).id), status=201)

    async def _message(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.sent.append(("messages", body))
        run_id = body.get("runId") or self.runs[0].id
        words = {"text": body["text"], "interrupt": body["interrupt"]}
        return _answer(Message(run_id=run_id, number=1, created_at=NOW, read_at=None, **words), status=201)

    async def _complete(self, request: web.Request) -> web.Response:
        self.sent.append(("complete", await request.json()))
        return _answer(self._found(request), status=202)

    async def _get_limits(self, _: web.Request) -> web.Response:
        return _answer(Limits.model_validate(self.limits))

    async def _put_limits(self, request: web.Request) -> web.Response:
        self.limits = await request.json()
        self.sent.append(("limits", self.limits))
        return _answer(Limits.model_validate(self.limits))

    async def _get_settings(self, _: web.Request) -> web.Response:
        return _answer(ClientSettings.model_validate(self.settings))

    async def _put_settings(self, request: web.Request) -> web.Response:
        self.settings = await request.json() if request.method == "PUT" else {}
        self.sent.append((request.method, self.settings))
        return await self._get_settings(request)

    async def _put_key(self, request: web.Request) -> web.Response:
        body = await request.json() if request.method == "PUT" else None
        self.sent.append((request.method, body))
        self.settings = self.settings | {"anthropicApiKey": SET if body else None}
        return await self._get_settings(request)


def _answer(model: BaseModel, *, status: int = 200) -> web.Response:
    return web.json_response(text=model.model_dump_json(by_alias=True), status=status)


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ControlGateway]:
    monkeypatch.setenv("QUARTERDECK_DATA_DIR", str(tmp_path / "no-stack"))
    served = ControlGateway()
    with running(served):
        monkeypatch.setenv("QUARTERDECK_ADDRESS", served.address)
        monkeypatch.setenv("QUARTERDECK_API_KEY", API_KEY)
        yield served


@pytest.fixture
async def client(gateway: ControlGateway) -> AsyncIterator[Client]:
    async with Client(gateway.address, API_KEY, patience=timedelta(seconds=30)) as connected:
        yield connected


@pytest.fixture
def job(gateway: ControlGateway) -> Job:
    made = make_job()
    return gateway.add(made, make_run(made))


def quarterdeck(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


async def test_a_retry_says_what_is_to_be_done_again(client: Client, gateway: ControlGateway, job: Job) -> None:
    assert (await client.retry_job(job.id)).retry_of == job.id
    await client.retry_job(job.id, only_failed=True, resume=True, idempotency_key="mine")
    assert gateway.sent == [("retry", {"only": "all", "resume": False}), ("retry", {"only": "failed", "resume": True})]
    assert gateway.requests[-1].headers["Idempotency-Key"] == "mine"


@pytest.mark.parametrize("status", [429, 503])
async def test_a_retry_is_repeated_with_one_idempotency_key(
    client: Client, gateway: ControlGateway, job: Job, status: int
) -> None:
    gateway.faults = [problem(status, "Not now", "too many jobs are queued", retry_after="1")]
    await client.retry_job(job.id)
    assert len(gateway.requests) == 2
    assert len({request.headers["Idempotency-Key"] for request in gateway.requests}) == 1


async def test_a_message_names_its_run_where_that_is_told(client: Client, gateway: ControlGateway, job: Job) -> None:
    run_id = uuid4()
    assert (await client.say(job.id, "louder")).text == "louder"
    assert (await client.say(job.id, "stop", run_id=run_id, interrupt=True)).run_id == run_id
    assert gateway.sent == [
        ("messages", {"text": "louder", "interrupt": False}),
        ("messages", {"text": "stop", "interrupt": True, "runId": str(run_id)}),
    ]


async def test_a_conversation_is_ended_whole_or_for_one_run(client: Client, gateway: ControlGateway, job: Job) -> None:
    run_id = uuid4()
    assert (await client.complete_job(job.id)).id == job.id
    await client.complete_job(job.id, run_id=run_id)
    assert gateway.sent == [("complete", {}), ("complete", {"runId": str(run_id)})]


async def test_limits_that_were_read_can_be_put_back(client: Client, gateway: ControlGateway) -> None:
    now = await client.limits()
    assert await client.set_limits(now) == now
    assert gateway.limits["client"] == {"default": None, "byName": {"default": 4}}


@pytest.mark.parametrize(
    ("status", "error"),
    [(409, ConflictError), (403, UnauthorizedError), (429, RateLimitedError), (503, UnavailableError)],
)
async def test_what_cannot_be_known_to_have_arrived_is_sent_once(
    client: Client, gateway: ControlGateway, job: Job, status: int, error: type[Exception]
) -> None:
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: client.say(job.id, "louder"),
        lambda: client.complete_job(job.id),
        lambda: client.set_limits(Limits()),
    ]
    for call in calls:
        gateway.requests.clear()
        gateway.faults = [problem(status, "Refused", "for a reason", retry_after="1")]
        with pytest.raises(error, match="for a reason"):
            await call()
        assert len(gateway.requests) == 1


def test_the_commands_send_what_they_were_told(gateway: ControlGateway, job: Job) -> None:
    run = gateway.runs[0].id
    retried = quarterdeck("retry", str(job.id), "--only-failed", "--resume", "--json")
    said = quarterdeck("say", str(job.id), "stop", "--run", str(run), "--interrupt")
    completed = quarterdeck("complete", str(job.id), "--run", str(run))
    assert [result.exit_code for result in (retried, said, completed)] == [0, 0, 0]
    assert json.loads(retried.stdout)["retryOf"] == str(job.id)
    assert f"{run} will read it as message 1" in said.stdout
    assert gateway.sent == [
        ("retry", {"only": "failed", "resume": True}),
        ("messages", {"text": "stop", "interrupt": True, "runId": str(run)}),
        ("complete", {"runId": str(run)}),
    ]


def test_a_retry_that_is_refused_is_one_line_and_an_exit_code(gateway: ControlGateway, job: Job) -> None:
    gateway.faults = [problem(409, "Conflict", "the job has not ended; cancel it first")]
    refused = quarterdeck("retry", str(job.id))
    assert refused.exit_code == 1
    assert "the job has not ended; cancel it first" in refused.stderr
    assert "Traceback" not in refused.output


def test_limits_are_shown_without_being_written(gateway: ControlGateway) -> None:
    shown = quarterdeck("limits")
    assert shown.exit_code == 0
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert {("the", "fleet", "7"), ("client", "default", "4")} <= {tuple(row) for row in rows}
    assert json.loads(quarterdeck("limits", "--json").stdout)["fleet"] == 7
    assert gateway.sent == []


def test_limits_are_changed_by_name_and_all_others_written_back(gateway: ControlGateway) -> None:
    done = quarterdeck("limits", "set", "--queue", "code=3", "--repository", "https://a.invalid/b?x=y=1", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == gateway.limits
    assert (gateway.limits["fleet"], gateway.limits["queues"]["code"]) == (7, 3)
    assert gateway.limits["client"]["byName"] == {"default": 4}
    assert gateway.limits["repository"]["byName"] == {"https://a.invalid/b?x=y": 1}


def test_a_number_that_no_limit_may_be_is_not_sent(gateway: ControlGateway) -> None:
    refused = quarterdeck("limits", "set", "--fleet", "100001")
    assert refused.exit_code == 2
    assert "fleet 100001" in refused.output
    assert gateway.sent == []


def test_who_is_no_operator_is_told_so(gateway: ControlGateway) -> None:
    own = web.json_response(text=Limits().model_dump_json(by_alias=True))
    gateway.faults = [own, problem(403, "Forbidden", "only an operator's key may change limits")]
    refused = quarterdeck("limits", "set", "--fleet", "1")
    assert refused.exit_code == 1
    assert "only an operator's key may change limits" in refused.stderr


async def test_a_retry_carries_what_is_to_be_different(client: Client, gateway: ControlGateway, job: Job) -> None:
    await client.retry_job(job.id, options={"runBudget": {"usd": 9}})
    await client.retry_job(job.id, options=RetryOptions.model_validate({"maxTurns": 7}))
    assert [body["options"] for _, body in gateway.sent] == [{"runBudget": {"usd": 9}}, {"maxTurns": 7}]


async def test_a_jobs_key_arrives_as_it_is(client: Client, gateway: ControlGateway) -> None:
    await client.submit("x", kind="task", anthropic_api_key="sk-mine")
    await client.submit("x", kind="task", github_token="ghp_mine")
    await client.submit("x", kind="task")
    both = {"anthropicApiKey": "sk-model", "githubToken": "ghp_model"}
    for credentials in (both, {"githubToken": "ghp_model"}):
        request = {"prompt": "x", "kind": "task", "credentials": credentials}
        await client.submit_request(JobRequest.model_validate(request))
    given = [{"anthropicApiKey": "sk-mine"}, {"githubToken": "ghp_mine"}, None, both, {"githubToken": "ghp_model"}]
    assert [body.get("credentials") for body in gateway.bodies] == given


async def test_settings_that_were_read_can_be_put_back(client: Client, gateway: ControlGateway) -> None:
    now = await client.settings()
    assert await client.set_settings(now) == now
    assert gateway.settings["mcpServers"] == {"web": WEB}
    assert (await client.remove_settings()).model is None


def test_settings_set_changes_what_is_named_and_nothing_else(gateway: ControlGateway) -> None:
    changed = quarterdeck("settings", "set", "--effort", "high", "--budget-usd", "2.5", "--unset", "model")
    assert changed.exit_code == 0, changed.output
    assert "high" in changed.output
    (method, body), *_ = gateway.sent
    sent = {name: value for name, value in body.items() if value}
    assert method == "PUT"
    assert sent == {"effort": "high", "runBudget": {"usd": 2.5, "tokens": None}, "mcpServers": {"web": WEB}}


def test_settings_show_no_secret_and_say_where_there_is_nothing(gateway: ControlGateway) -> None:
    assert "https://mcp.example/" in quarterdeck("settings").output
    assert json.loads(quarterdeck("settings", "--json").output)["mcpServers"]["web"]["headers"] == {
        "Authorization": SET
    }
    cleared = quarterdeck("settings", "clear")
    assert (cleared.exit_code, gateway.settings) == (0, {})
    assert "Nothing is set" in cleared.output


def test_the_key_is_read_from_standard_input_alone(gateway: ControlGateway) -> None:
    stored = CliRunner().invoke(app, ["settings", "key"], input="sk-mine\n")
    assert (stored.exit_code, gateway.sent) == (0, [("PUT", {"anthropicApiKey": "sk-mine"})])
    assert "sk-mine" not in stored.output
    assert SET in stored.output
    assert quarterdeck("settings", "key", "sk-mine").exit_code == 2
    assert CliRunner().invoke(app, ["settings", "key"], input=" \n").exit_code == 2
    assert len(gateway.sent) == 1
    assert quarterdeck("settings", "key", "--remove").exit_code == 0
    assert gateway.sent[-1] == ("DELETE", None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("set",), "name at least one setting"),
        (("set", "--unset", "colour"), "--unset colour: there are the settings model, maxTokens"),
        (("set", "--max-turns", "0"), "maxTurns 0: Input should be greater than or equal to 1"),
        (("set", "--system-prompt-file", "/no/such/file"), "/no/such/file cannot be read"),
        (("--json", "set", "--model", "x"), "belong behind `set`"),
    ],
)
def test_a_setting_that_cannot_be_is_named_and_nothing_is_sent(
    words: tuple[str, ...], message: str, gateway: ControlGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    refused = quarterdeck("settings", *words)
    assert (refused.exit_code, gateway.sent) == (2, [])
    assert message in refused.output


def test_submit_and_retry_carry_the_options_that_were_given(gateway: ControlGateway, job: Job) -> None:
    words = ["submit", "do it", "--kind", "task", "--max-turns", "7", "--effort", "low", "--budget-usd", "1.5"]
    words += ["--job-budget-usd", "3", "--allow-command", "make test", "--allow-command", "git status *"]
    words += ["--permission-mode", "plan", "--no-network", "--test-command", "auto", "--temperature", "0"]
    submitted = quarterdeck(*words)
    assert submitted.exit_code == 0, submitted.output
    assert gateway.bodies[-1]["options"] == {
        "maxTurns": 7,
        "effort": "low",
        "runBudget": {"usd": 1.5},
        "jobBudget": {"usd": 3.0},
        "allowedCommands": ["make test", "git status *"],
        "permissionMode": "plan",
        "network": False,
        "testCommand": "auto",
        "temperature": 0.0,
    }
    retried = quarterdeck("retry", str(job.id), "--resume", "--budget-usd", "9", "--max-turns", "200")
    assert retried.exit_code == 0, retried.output
    assert gateway.sent[-1][1]["options"] == {"runBudget": {"usd": 9.0}, "maxTurns": 200}
