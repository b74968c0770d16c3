"""A client's settings and everybody's secrets: what goes in as a secret is nowhere to be read again."""

import asyncio
from typing import Any
from uuid import UUID

import grpc
import httpx
import pytest
from cryptography.fernet import Fernet

from quarterdeck.stack.ports import free_ports
from services.contracts.agents import SET
from services.contracts.v1 import jobs_pb2 as pb
from services.contracts.words import ExitReason
from services.jobs.sealed import client_owner, job_owner
from services.runtime.postgres import Database
from services.runtime.sealing import Sealer, WrongOwnerError
from tests.integration.gateway.conftest import OTHER_KEY, Scheduler, StartGateway, client_of, is_healthy
from tests.integration.gateway.rpc.conftest import refusal, stub_at
from tests.integration.jobs.domain import Domain
from tests.integration.waiting import until_async

SECRET_KEY = Fernet.generate_key().decode()
LISTED = "https://models.example/v1"
TASK = {"prompt": "say hello", "kind": "task"}
JOB_KEY, CLIENT_KEY, RPC_KEY = "sk-ant-job-5e5c4e7", "sk-ant-client-5e5c4e7", "sk-ant-rpc-5e5c4e7"
TOKEN, BEARER = "t0ken-5e5c4e7", "Bearer b-5e5c4e7"
MCP: dict[str, Any] = {
    "files": {"type": "stdio", "command": ["serve", "--here"], "env": {"TOKEN": TOKEN}},
    "web": {"type": "http", "url": "https://mcp.example/", "headers": {"Authorization": BEARER}},
}


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_ports(1)[0]}"


@pytest.fixture
async def keeper(database_url: str, nats_url: str, start_gateway: StartGateway, address: str) -> httpx.AsyncClient:
    """A gateway that keeps secrets and lists an address; it serves gRPC too."""
    client = await start_gateway(
        database_url, nats_url, secret_key=SECRET_KEY, model_base_urls=LISTED, grpc_listen=address
    )
    await until_async(lambda: is_healthy(client))
    return client


@pytest.fixture
async def domain(database: Database, keeper: httpx.AsyncClient) -> Domain:
    """The domain beside the gateway, for its client."""
    domain = Domain(database)
    client = await domain.submissions.client_of(keeper.headers["Authorization"].removeprefix("Bearer "))
    assert client is not None
    domain.client = client
    return domain


async def dump(database: Database) -> bytes:
    """Every row of every table, as text; what is bytes as it is, and not in hexadecimal."""
    async with database.connection() as connection:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        assert len(tables) > 15
        rows = [row for table in tables for row in await connection.fetch(f"SELECT * FROM {table['tablename']}")]
    return b"\n".join(
        value if isinstance(value, bytes) else repr(value).encode() for row in rows for value in row.values()
    )


async def put(client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response:
    return await client.put("/v1/settings", json=body)


async def submit(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post("/v1/jobs", json={**TASK, **body})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_settings_are_shown_as_they_were_put(keeper: httpx.AsyncClient):
    assert {value for value in (await keeper.get("/v1/settings")).json().values() if value} == set()
    wanted = {"model": "m", "effort": "high", "runBudget": {"usd": 0.5}, "allowedCommands": [], "baseUrl": LISTED}
    answer = await put(keeper, wanted)
    assert answer.status_code == 200
    shown = (await keeper.get("/v1/settings")).json()
    assert shown == answer.json()
    assert {name: shown[name] for name in wanted} == wanted | {"runBudget": {"usd": 0.5, "tokens": None}}
    assert (await put(keeper, shown)).json() == shown
    assert (await put(keeper, {"maxTurns": 3})).json()["model"] is None
    assert (await keeper.delete("/v1/settings")).json()["maxTurns"] is None


async def test_nobody_sees_or_changes_anothers_settings(keeper: httpx.AsyncClient, domain: Domain):
    await domain.submissions.ensure_client("other", OTHER_KEY)
    await put(keeper, {"model": "mine", "mcpServers": MCP})
    async with client_of(keeper.base_url.port or 0, OTHER_KEY) as other:
        assert (await other.get("/v1/settings")).json()["model"] is None
        await put(other, {"model": "theirs"})
        refused = await put(other, {"mcpServers": MCP | {"files": MCP["files"] | {"env": {"TOKEN": SET}}}})
        assert refused.json()["errors"][0]["field"] == "mcpServers.files.env.TOKEN"
    assert (await keeper.get("/v1/settings")).json()["model"] == "mine"


async def test_a_secret_that_is_sent_back_as_shown_stays(keeper: httpx.AsyncClient, domain: Domain):
    await put(keeper, {"mcpServers": MCP})
    await keeper.put("/v1/settings/anthropic-key", json={"anthropicApiKey": CLIENT_KEY})
    shown = (await keeper.get("/v1/settings")).json()
    assert shown["anthropicApiKey"] == SET
    assert shown["mcpServers"]["files"]["env"] == {"TOKEN": SET}

    assert (await put(keeper, shown | {"model": "m"})).status_code == 200
    assert await client_secrets(domain) == {
        "anthropicApiKey": CLIENT_KEY,
        "mcpServers": {"files": {"TOKEN": TOKEN}, "web": {"Authorization": BEARER}},
    }
    await keeper.delete("/v1/settings/anthropic-key")
    await put(keeper, {"mcpServers": {"files": shown["mcpServers"]["files"]}})
    assert await client_secrets(domain) == {"anthropicApiKey": None, "mcpServers": {"files": {"TOKEN": TOKEN}}}
    await put(keeper, {})
    (row,) = await domain.rows("SELECT settings, sealed FROM client_settings")
    assert (row["settings"], row["sealed"]) == ({"mcpServers": {}}, None)


async def client_secrets(domain: Domain) -> Any:
    (row,) = await domain.rows("SELECT sealed FROM client_settings WHERE client_id = $1", domain.client.id)
    return Sealer(SECRET_KEY).open(row["sealed"], owners=[client_owner(domain.client.id)]).secrets


@pytest.mark.parametrize(
    ("server", "field"),
    [
        ({"type": "http", "url": "https://evil.example/", "headers": {"Authorization": SET}}, "headers.Authorization"),
        ({"type": "stdio", "command": ["sh", "-c", "leak"], "env": {"TOKEN": SET}}, "env.TOKEN"),
        ({"type": "http", "url": "https://mcp.example/", "headers": {"X-Other": SET}}, "headers.X-Other"),
    ],
)
async def test_a_kept_secret_goes_nowhere_else(keeper: httpx.AsyncClient, server: dict[str, Any], field: str):
    await put(keeper, {"mcpServers": MCP})
    name = "web" if server["type"] == "http" else "files"
    refused = await put(keeper, {"mcpServers": {name: server}})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, f"mcpServers.{name}.{field}")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"baseUrl": "https://evil.example"}, "baseUrl"),
        ({"baseUrl": "http://169.254.169.254/latest"}, "baseUrl"),
        ({"temperature": 1.5}, "temperature"),
        ({"effort": "utmost"}, "effort"),
        ({"unknown": 1}, "unknown"),
        ({"anthropicApiKey": JOB_KEY}, "anthropicApiKey"),
        ({"mcpServers": {"Bad Name": MCP["web"]}}, "mcpServers.Bad Name.[key]"),
        ({"mcpServers": {"a": {"type": "http", "url": "file:///etc/passwd"}}}, "mcpServers.a.http.url"),
        ({"mcpServers": {"a": {"type": "http", "url": "https://u:p@mcp.example"}}}, "mcpServers.a.http.url"),
        (
            {"mcpServers": {"a": {"type": "http", "url": "https://a.example", "headers": {"X": f"{TOKEN}\r\nY: z"}}}},
            "mcpServers.a.http.headers.X",
        ),
        (
            {"mcpServers": {"a": {"type": "stdio", "command": ["x"], "env": {"A=B": TOKEN}}}},
            "mcpServers.a.stdio.env.A=B.[key]",
        ),
    ],
)
async def test_what_cannot_be_is_named_and_no_secret_is_repeated(
    keeper: httpx.AsyncClient, body: dict[str, Any], field: str
):
    refused = await put(keeper, body)
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, field), refused.text
    assert JOB_KEY not in refused.text
    assert TOKEN not in refused.text
    assert not (await keeper.get("/v1/settings")).json()["mcpServers"]


@pytest.mark.parametrize("key", ["", "with space", "with\nline", "ümlaut", "x" * 4_001, None, 7])
async def test_a_key_that_can_be_none_is_refused_and_not_repeated(keeper: httpx.AsyncClient, key: Any):
    path, field = "/v1/settings/anthropic-key", "anthropicApiKey"
    refused = await keeper.put(path, json={field: key})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, field)
    if key is not None:
        of_job = await keeper.post("/v1/jobs", json={**TASK, "credentials": {field: key}})
        assert (of_job.status_code, of_job.json()["errors"][0]["field"]) == (400, f"credentials.{field}")
    assert key in (None, "", 7) or key not in refused.text
    assert (await keeper.put(path, json={field: "x" * 4_000})).json()[field] == SET


async def test_an_address_that_is_not_listed_is_refused_when_a_job_names_it(
    keeper: httpx.AsyncClient, address: str, database: Database
):
    refused = await keeper.post("/v1/jobs", json={**TASK, "options": {"baseUrl": "https://evil.example"}})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (400, "options.baseUrl")
    assert "MODEL_BASE_URLS" in refused.json()["detail"]
    async with stub_at(address) as stub:
        options = pb.JobOptions(base_url="https://evil.example")
        code, problem = await refusal(stub.SubmitJob(pb.SubmitJobRequest(prompt="x", kind="task", options=options)))
        assert (code, problem) == (grpc.StatusCode.INVALID_ARGUMENT, refused.json())
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM jobs") == 0
    assert (await submit(keeper, options={"baseUrl": LISTED}))["options"]["baseUrl"] == LISTED


async def test_grpc_takes_every_option_that_rest_takes(keeper: httpx.AsyncClient, address: str):
    options = pb.JobOptions(
        max_tokens=1_000,
        temperature=0.0,
        effort="low",
        max_turns=3,
        system_prompt="be brief",
        base_url=LISTED,
        permission_mode="plan",
        allowed_commands=["make test"],
        network=False,
        run_budget=pb.Budget(usd=0.5),
        job_budget=pb.Budget(usd=2, tokens=10**10),
        allow_unpriced=True,
        test_command="auto",
        test_timeout_seconds=5,
        max_fix_attempts=0,
        on_unverified="draft",
        max_identical_calls=5,
        max_malformed_turns=1,
        max_cut_offs=0,
    )
    async with stub_at(address) as stub:
        job = (await stub.SubmitJob(pb.SubmitJobRequest(prompt="x", kind="task", options=options))).job
    set_fields = {field.json_name: value for field, value in options.ListFields()}
    shown = (await keeper.get(f"/v1/jobs/{job.id}")).json()["options"]
    assert {name: shown[name] for name in set_fields} == set_fields | {
        "allowedCommands": ["make test"],
        "runBudget": {"usd": 0.5, "tokens": None},
        "jobBudget": {"usd": 2.0, "tokens": 10**10},
    }
    assert {field.json_name for field in pb.JobOptions.DESCRIPTOR.fields} == set(shown)


async def test_no_secret_is_anywhere_to_be_read(
    keeper: httpx.AsyncClient,
    domain: Domain,
    address: str,
    scheduler: Scheduler,
    capfd: pytest.CaptureFixture[str],
):
    answers = [await put(keeper, {"mcpServers": MCP})]
    answers.append(await keeper.put("/v1/settings/anthropic-key", json={"anthropicApiKey": CLIENT_KEY}))
    body = {**TASK, "credentials": {"anthropicApiKey": JOB_KEY}}
    headers = {"Idempotency-Key": "mine"}
    answers += [await keeper.post("/v1/jobs", json=body, headers=headers) for _ in ("first", "replayed")]
    assert [answer.status_code for answer in answers] == [200, 200, 201, 200]
    job_id = answers[-1].json()["id"]
    async with stub_at(address) as stub:
        credentials = pb.Credentials(anthropic_api_key=RPC_KEY)
        request = pb.SubmitJobRequest(prompt="x", kind="task", credentials=credentials, idempotency_key="its")
        replies = [await stub.SubmitJob(request) for _ in range(2)]
        assert [reply.replayed for reply in replies] == [False, True]
    run = await ended_run(domain, UUID(job_id))
    await scheduler.publish()
    answers += [
        await keeper.get(path)
        for path in (
            *("/v1/jobs", f"/v1/jobs/{job_id}", f"/v1/jobs/{job_id}/runs", f"/v1/jobs/{job_id}/events"),
            *(f"/v1/runs/{run}", f"/v1/runs/{run}/logs", f"/v1/runs/{run}/transcript", "/v1/settings"),
        )
    ]
    answers.append(await keeper.post(f"/v1/jobs/{job_id}/retry", json={}))
    assert {answer.status_code for answer in answers} <= {200, 201}, [answer.text for answer in answers]
    read = b"".join(answer.content for answer in answers) + repr(replies).encode()
    logged = "".join(capfd.readouterr()).encode()
    stored = await dump(domain.database)
    assert b"say hello" in read
    assert b"say hello" in stored
    for secret in (JOB_KEY, CLIENT_KEY, RPC_KEY, TOKEN, BEARER):
        for where, found in {"answers": read, "logs": logged, "tables": stored}.items():
            assert secret.encode() not in found, (secret, where)


async def ended_run(domain: Domain, job_id: UUID) -> UUID:
    """Admit whatever waits, and see the job's one run through to a failure."""
    (order,) = [order for order in await domain.admit() if order.job_id == job_id]
    run = await domain.claimed(order)
    await domain.running.fail(run.hold, ExitReason.BUDGET_EXHAUSTED, error="all is spent")
    return run.hold.run_id


async def test_an_agent_gets_the_secrets_and_a_retry_keeps_them(keeper: httpx.AsyncClient, domain: Domain):
    job_id = UUID((await submit(keeper, credentials={"anthropicApiKey": JOB_KEY}))["id"])
    (order,) = await domain.admit()
    run = await domain.claimed(order)
    (sealed,) = run.sealed
    assert Sealer(SECRET_KEY).open(sealed, owners=[job_owner(job_id)]).secrets == {"anthropicApiKey": JOB_KEY}
    await domain.running.fail(run.hold, ExitReason.BUDGET_EXHAUSTED, error="all is spent")

    changes = {"runBudget": {"usd": 9.5}, "maxTurns": 200, "model": "other"}
    answer = await keeper.post(f"/v1/jobs/{job_id}/retry", json={"resume": True, "options": changes})
    assert answer.status_code == 201, answer.text
    new = answer.json()
    assert {name: new["options"][name] for name in ("maxTurns", "model")} == {"maxTurns": 200, "model": "other"}
    assert (new["options"]["runBudget"]["usd"], new["options"]["deadlineSeconds"]) == (9.5, 1_800)
    row = await domain.row("jobs", UUID(new["id"]))
    opened = Sealer(SECRET_KEY).open(row["sealed"], owners=[job_owner(row["id"])])
    assert opened.secrets == {"anthropicApiKey": JOB_KEY}


async def test_grpc_retries_with_other_options_too(keeper: httpx.AsyncClient, domain: Domain, address: str):
    job_id = UUID((await submit(keeper, options={"maxTurns": 5, "runBudget": {"usd": 1.0}}))["id"])
    await ended_run(domain, job_id)
    options = pb.RetryOptions(run_budget=pb.Budget(usd=2), deadline_seconds=60)
    async with stub_at(address) as stub:
        retried = await stub.RetryJob(pb.RetryJobRequest(job_id=str(job_id), resume=True, options=options))
    found = retried.job.options
    assert (found.run_budget.usd, found.deadline_seconds, found.max_turns) == (2, 60, 5)


async def test_a_sealed_row_that_was_moved_is_noticed(keeper: httpx.AsyncClient, domain: Domain):
    """Each in another's place: of jobs and of clients."""
    await keeper.put("/v1/settings/anthropic-key", json={"anthropicApiKey": CLIENT_KEY})
    jobs = [UUID((await submit(keeper, credentials={"anthropicApiKey": key}))["id"]) for key in (JOB_KEY, RPC_KEY)]
    await domain.submissions.ensure_client("other", OTHER_KEY)
    other = await domain.submissions.client_of(OTHER_KEY)
    assert other is not None
    await domain.rows(
        "INSERT INTO client_settings (client_id, settings, sealed) SELECT $1, settings, sealed FROM client_settings",
        other.id,
    )
    await domain.rows(
        "UPDATE jobs SET sealed = (SELECT o.sealed FROM jobs o WHERE o.id <> jobs.id AND o.sealed IS NOT NULL)"
    )
    async with client_of(keeper.base_url.port or 0, OTHER_KEY) as thief:
        refused = await put(thief, {"model": "m"})
        assert (refused.status_code, "belongs to somebody else" in refused.json()["detail"]) == (409, True)
        assert (await thief.delete("/v1/settings")).status_code == 200
        assert (await put(thief, {"model": "m"})).status_code == 200
    for order in await domain.admit():
        run, job_id = await domain.claimed(order), order.job_id
        assert job_id in jobs
        with pytest.raises(WrongOwnerError):
            Sealer(SECRET_KEY).open(run.sealed[0], owners=[job_owner(job_id), client_owner(domain.client.id)])
        await domain.running.fail(run.hold, ExitReason.MODEL_REJECTED, error="no key")
        retried = await keeper.post(f"/v1/jobs/{job_id}/retry", json={})
        assert (retried.status_code, "belongs to somebody else" in retried.json()["detail"]) == (409, True)


async def test_without_a_key_of_its_own_a_gateway_keeps_no_secrets_and_says_so(
    gateway: httpx.AsyncClient, database: Database
):
    tries = [
        await gateway.post("/v1/jobs", json={**TASK, "credentials": {"anthropicApiKey": JOB_KEY}}),
        await gateway.put("/v1/settings/anthropic-key", json={"anthropicApiKey": CLIENT_KEY}),
        await put(gateway, {"mcpServers": MCP}),
    ]
    for refused in tries:
        assert refused.status_code == 409
        assert "QUARTERDECK_SECRET_KEY is not set" in refused.json()["detail"]
    assert (await put(gateway, {"model": "m"})).status_code == 200
    assert (await gateway.get("/v1/settings")).json()["model"] == "m"
    assert (await gateway.post("/v1/jobs", json={**TASK, "credentials": {}})).status_code == 201
    assert JOB_KEY.encode() not in await dump(database)


async def test_a_new_key_before_the_old_one_loses_nothing_and_a_lost_one_can_be_got_over(
    keeper: httpx.AsyncClient, start_gateway: StartGateway, database_url: str, nats_url: str, domain: Domain
):
    await put(keeper, {"mcpServers": MCP})
    await keeper.put("/v1/settings/anthropic-key", json={"anthropicApiKey": CLIENT_KEY})
    shown = (await keeper.get("/v1/settings")).json()
    new = Fernet.generate_key().decode()

    lost = await start_gateway(database_url, nats_url, secret_key=new)
    await until_async(lambda: is_healthy(lost))
    assert (await lost.get("/v1/settings")).json() == shown
    for refused in (await put(lost, shown), await lost.delete("/v1/settings/anthropic-key")):
        assert (refused.status_code, "cannot be opened" in refused.json()["detail"]) == (409, True)

    rotated = await start_gateway(database_url, nats_url, secret_key=f"{new},{SECRET_KEY}")
    await until_async(lambda: is_healthy(rotated))
    assert (await put(rotated, shown)).status_code == 200
    (row,) = await domain.rows("SELECT sealed FROM client_settings")
    assert Sealer(new).open(row["sealed"], owners=[client_owner(domain.client.id)]).secrets["mcpServers"]
    assert (await put(lost, shown)).status_code == 200

    assert (await keeper.delete("/v1/settings")).status_code == 200
    answer = await keeper.put("/v1/settings/anthropic-key", json={"anthropicApiKey": CLIENT_KEY})
    assert answer.json()["anthropicApiKey"] == SET


async def test_changes_at_once_lose_nothing(keeper: httpx.AsyncClient, domain: Domain):
    await put(keeper, {"mcpServers": MCP})
    shown = (await keeper.get("/v1/settings")).json()
    changes = [put(keeper, shown | {"maxTurns": turns}) for turns in range(1, 6)]
    key = keeper.put("/v1/settings/anthropic-key", json={"anthropicApiKey": CLIENT_KEY})
    answers = await asyncio.gather(*changes, key)
    assert {answer.status_code for answer in answers} == {200}
    assert await client_secrets(domain) == {
        "anthropicApiKey": CLIENT_KEY,
        "mcpServers": {"files": {"TOKEN": TOKEN}, "web": {"Authorization": BEARER}},
    }


async def test_one_key_stands_for_a_request_whatever_its_secret(keeper: httpx.AsyncClient):
    """The hash of a body with a secret would let it be guessed: so the secret is no part of it."""
    headers = {"Idempotency-Key": "mine"}

    async def post(**body: Any) -> int:
        return (await keeper.post("/v1/jobs", json={**TASK, **body}, headers=headers)).status_code

    assert await post(credentials={"anthropicApiKey": JOB_KEY}) == 201
    assert await post(credentials={"anthropicApiKey": CLIENT_KEY}) == 200
    assert await post(credentials={"anthropicApiKey": JOB_KEY}, name="another") == 422
    assert await post() == 422
