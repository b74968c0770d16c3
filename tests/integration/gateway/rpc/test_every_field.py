"""Every field of SubmitJob, sent with a value that is no default, is what the job has: none is refused or forgotten."""

from typing import Any
from uuid import UUID

import grpc
import pytest
from cryptography.fernet import Fernet
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from services.contracts.v1 import jobs_pb2 as pb
from services.jobs.sealed import job_owner
from services.runtime.postgres import Database
from services.runtime.sealing import Sealer
from tests.integration.gateway.conftest import StartGateway, is_healthy
from tests.integration.gateway.rpc.conftest import Stub, refusal, stub_at
from tests.integration.waiting import until_async

SECRET_KEY = Fernet.generate_key().decode()
BASE_URL = "https://models.example"
CHECKOUT = {"path": "services/billing", "lfs": True, "submodules": True}
REPOSITORY = {"url": "https://forge.example/you/one.git", "baseRef": "main", "branch": "mine/fix", "checkout": CHECKOUT}
SECRETS = {"anthropicApiKey": "key-of-the-job", "githubToken": "token-of-the-job"}
SHOWN: dict[str, Any] = {
    "prompt": "Fix the typo",
    "kind": "code",
    "name": "typos",
    "priority": -7,
    "notBefore": "2030-01-31T12:00:00Z",
    "metadata": {"ticket": "T-1", "team": "büro"},
    "options": {
        "publish": "draft",
        "model": "a-model",
        "maxTurns": 7,
        "maxParallel": 2,
        "maxAttempts": 4,
        "deadlineSeconds": 600,
        "queueDeadlineSeconds": 700,
        "idleLimitSeconds": 800,
        "commitMessage": "Fix {name}",
        "maxTokens": 4_096,
        "temperature": 0.25,
        "effort": "high",
        "systemPrompt": "Be brief.",
        "baseUrl": BASE_URL,
        "permissionMode": "bypassPermissions",
        "allowedCommands": ["make *", "git status"],
        "network": True,
        "runBudget": {"usd": 1.5, "tokens": 5_000_000_000},
        "allowUnpriced": True,
        "jobBudget": {"usd": 2.5, "tokens": 6_000_000_000},
        "testCommand": "make test",
        "testTimeoutSeconds": 90,
        "maxFixAttempts": 1,
        "onUnverified": "draft",
        "onExisting": "replace",
        "pullRequest": {
            "title": "{name}",
            "body": "{summary}",
            "labels": ["typo"],
            "reviewers": ["ann"],
            "teamReviewers": ["writers"],
            "assignees": ["bob"],
        },
        "commitAuthor": {"name": "Ann", "email": "ann@forge.example"},
        "signOff": True,
        "keepWorktreeSeconds": 900,
        "maxIdenticalCalls": 5,
        "maxMalformedTurns": 6,
        "maxCutOffs": 7,
    },
}
REQUEST = {**SHOWN, "repositories": [REPOSITORY], "credentials": SECRETS, "idempotencyKey": "once"}


def unset(message: Message, path: str = "") -> list[str]:
    """The fields of ``message``, and of the messages in it, that have no value or their default one."""
    present = {field.name for field, _ in message.ListFields()}
    missing = [f"{path}{field.name}" for field in message.DESCRIPTOR.fields if field.name not in present]
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        for part in value if field.is_repeated else [value]:
            if isinstance(part, Message) and part.DESCRIPTOR.full_name.startswith("quarterdeck."):
                missing += unset(part, f"{path}{field.name}.")
    return missing


@pytest.fixture
def request_with_all() -> pb.SubmitJobRequest:
    request = ParseDict(REQUEST, pb.SubmitJobRequest())
    assert unset(request) == []
    return request


async def test_all_that_submit_job_says_is_what_the_job_has(
    request_with_all: pb.SubmitJobRequest,
    database_url: str,
    nats_url: str,
    start_gateway: StartGateway,
    address: str,
    database: Database,
) -> None:
    gateway = await start_gateway(
        database_url, nats_url, secret_key=SECRET_KEY, model_base_urls=BASE_URL, grpc_listen=address
    )
    await until_async(lambda: is_healthy(gateway))
    async with stub_at(address) as stub:
        job = (await stub.SubmitJob(request_with_all)).job
        assert (await stub.SubmitJob(request_with_all)).replayed

    shown = (await gateway.get(f"/v1/jobs/{job.id}")).json()
    assert {name: shown[name] for name in SHOWN} == SHOWN
    assert shown == answered_by_rest(job, shown)
    (run,) = (await gateway.get(f"/v1/jobs/{job.id}/runs")).json()["items"]
    assert (run["repository"], run["baseRef"], run["branch"]) == (
        REPOSITORY["url"],
        REPOSITORY["baseRef"],
        REPOSITORY["branch"],
    )
    # What REST shows of neither surface's jobs.
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT checkout FROM runs") == CHECKOUT
        sealed = await connection.fetchval("SELECT sealed FROM jobs")
    assert Sealer(SECRET_KEY).open(sealed, owners=[job_owner(UUID(job.id))]).secrets == SECRETS


def answered_by_rest(job: pb.Job, shown: dict[str, Any]) -> dict[str, Any]:
    """``shown`` with the values that the message ``job`` has in their place, as far as it says them."""
    told: dict[str, Any] = MessageToDict(job)
    for budget in (told["options"]["runBudget"], told["options"]["jobBudget"]):
        budget["tokens"] = int(budget["tokens"])  # text in proto3 JSON, a number in REST's
    return shown | told | {"runs": shown["runs"] | told["runs"], "options": shown["options"] | told["options"]}


async def test_a_wrong_entry_of_a_map_is_named(stub: Stub) -> None:
    for metadata in ({"not a name": "x"}, {"long": "x" * 2_001}, {str(number): "x" for number in range(33)}):
        code, problem = await refusal(stub.SubmitJob(pb.SubmitJobRequest(prompt="x", kind="task", metadata=metadata)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert problem["errors"][0]["field"].startswith("metadata")
