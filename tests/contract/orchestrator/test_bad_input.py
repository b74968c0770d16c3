"""Bad input on every route: always the dialect's own 4xx in its own shape, never a 5xx, and nothing is made."""

from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from tests.contract.orchestrator import document
from tests.contract.orchestrator.conftest import SECRET, Kept, Orchestrator

JSON = {"Content-Type": "application/json"}
DEEP = b'{"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"
SOME_ID = str(UUID(int=1))
JOB = {"clientId": SOME_ID, "prompt": "Do it", "branchName": "x"}
BODIES: dict[str, dict[str, Any]] = {
    "/jobs": JOB,
    "/clients": {"name": "x"},
    "/clients/{id}/repository": document.ADD_REPOSITORY,
    "/jobs/{id}/message": document.MESSAGE,
}


def refused(answer: httpx.Response, *statuses: int) -> str:
    """The message of an error in the shape of the document."""
    assert answer.status_code in statuses, answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["X-Request-Id"]
    assert list(answer.json()) == ["error"]
    return str(answer.json()["error"])


@pytest.fixture(params=["alone", "mounted"])
def api(request: pytest.FixtureRequest, orchestrator: Orchestrator) -> httpx.AsyncClient:
    return orchestrator.served.alone if request.param == "alone" else orchestrator.served.mounted


@pytest.fixture(scope="module")
async def task(orchestrator: Orchestrator) -> str:
    """The id of a task that waits in the queue."""
    created = await orchestrator.job(await orchestrator.client(), jobType="task")
    return str(created["id"])


@pytest.fixture(scope="module")
async def kept_once(orchestrator: Orchestrator) -> Kept:
    return await orchestrator.client()


WORDS: list[Any] = [5, True, ["x"], {"a": 1}, "a\0b"]
IDS: list[Any] = [5, ["x"], "x", "a\0b", "123", "x" * 5_000]
OF_JOBS: list[tuple[str, Any]] = [
    *[("prompt", value) for value in (*WORDS, None, "", " \n", "x" * 200_000)],
    *[(name, value) for name in ("clientId", "featureId", "repositoryId", "createdByTeamMemberId") for value in IDS],
    *[("branchName", value) for value in (*WORDS, "-x", "a b", "a..b", "a.lock", "/x", "x/", "é", "x" * 201)],
    *[("jobType", value) for value in (*WORDS, "review", "CODE")],
    *[(name, value) for name in ("title", "featureTitle") for value in (*WORDS, "x" * 201)],
    *[(name, value) for name in ("githubOrg", "githubRepo") for value in (*WORDS, "a/b", "..", "a b", "x" * 101)],
]


@pytest.mark.parametrize(("name", "value"), OF_JOBS)
async def test_a_bad_field_of_a_job_is_named(orchestrator: Orchestrator, name: str, value: Any) -> None:
    assert name in refused(await orchestrator.api.post("/jobs", json=JOB | {name: value}), 400)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            (name, value)
            for name in ("githubOrg", "githubRepo")
            for value in (*WORDS, None, "", "a/b", "..", "x" * 101)
        ],
        *[("defaultBranch", value) for value in (*WORDS, "-x", "a b", "x" * 201)],
        *[("cloneUrl", value) for value in (*WORDS, "x", "http://", "https://a:b@c/d", "x" * 2_001)],
    ],
)
async def test_a_bad_field_of_a_repository_is_named(
    orchestrator: Orchestrator, kept_once: Kept, name: str, value: Any
) -> None:
    body = document.ADD_REPOSITORY | {name: value}
    assert name in refused(await orchestrator.api.post(f"/clients/{kept_once.id}/repository", json=body), 400)


@pytest.mark.parametrize(("name", "value"), [*[("name", each) for each in (*WORDS, None, "", " ")], ("id", "x")])
async def test_a_bad_field_of_a_client_is_named(orchestrator: Orchestrator, name: str, value: Any) -> None:
    assert name in refused(await orchestrator.api.post("/clients", json={"name": "x"} | {name: value}), 400)


@pytest.mark.parametrize("value", [*WORDS, None, "", "  ", "x" * 200_000])
async def test_a_bad_message_is_named(orchestrator: Orchestrator, task: str, value: Any) -> None:
    assert "message" in refused(await orchestrator.api.post(f"/jobs/{task}/message", json={"message": value}), 400)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"{}", DEEP, b'{"prompt": NaN}', b'{"name": "\\ud800"}']
)
async def test_a_bad_body(orchestrator: Orchestrator, task: str, kept_once: Kept, path: str, body: bytes) -> None:
    path = path.format(id=kept_once.id if path.startswith("/clients") else task)
    refused(await orchestrator.api.post(path, content=body, headers=JSON), 400)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_another_content_type(api: httpx.AsyncClient, headers: dict[str, str]) -> None:
    refused(await api.post("/jobs", content=orjson.dumps(JOB), headers=headers), 400)


async def test_a_body_that_is_too_large(api: httpx.AsyncClient) -> None:
    refused(await api.post("/jobs", json=JOB | {"prompt": "x" * 5_000_000}), 413)


@pytest.mark.parametrize("odd", ["x", "1", "None", "a%2Fb", "%2e%2e", "%00", "%FF", "x" * 5_000, f"{SOME_ID}%0A"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", path) for path in ("/clients/{id}", "/jobs/{id}")),
        *(("POST", f"/jobs/{{id}}/{verb}") for verb in ("cancel", "retry", "message", "complete")),
        *(("POST", path) for path in ("/clients/{id}/repository", "/repos/{id}/clone")),
    ],
)
async def test_an_odd_id(orchestrator: Orchestrator, method: str, path: str, odd: str) -> None:
    refused(await orchestrator.api.request(method, path.format(id=odd), json=BODIES.get(path, {})), 404)


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=-1", "limit=ten", "limit=1.5", "limit=%00"),
        *("offset=-1", "offset=x", f"offset={10**40}", "status=done", "status=QUEUED", "status=%00", "status=queued,x"),
        *("clientId=x", "clientId=%00", "featureId=5", "limit=1&limit=2", f"clientId={SOME_ID}&clientId={SOME_ID}"),
    ],
)
async def test_bad_parameters(api: httpx.AsyncClient, query: str) -> None:
    assert query.partition("=")[0] in refused(await api.get(f"/jobs?{query}"), 400)


@pytest.mark.parametrize("value", ["x", "2", "", "%00"])
async def test_a_bad_word_for_yes(orchestrator: Orchestrator, task: str, value: str) -> None:
    assert "includeMessages" in refused(await orchestrator.api.get(f"/jobs/{task}?includeMessages={value}"), 400)


async def test_what_is_not_known_is_ignored(orchestrator: Orchestrator, kept_once: Kept) -> None:
    for path in ("/jobs?page=2", "/health?verbose=1", "/queue?x=1", "/clients?x=1"):
        assert (await orchestrator.api.get(path)).status_code == 200
    await orchestrator.job(kept_once, jobType="task", more=[1], title=None, featureId="")


@pytest.mark.parametrize("path", ["/", "/jobs/", "/jobs/x/y", "/clients//x", "/repos", "/%ED%A0%80/%FF%00"])
async def test_an_unknown_path(api: httpx.AsyncClient, path: str) -> None:
    assert "openapi.json" in refused(await api.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/jobs"), ("DELETE", f"/jobs/{SOME_ID}"), ("POST", "/queue"), ("POST", "/health"), ("GET", "/sync")],
)
async def test_a_method_that_is_not_there(api: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await api.request(method, path)
    refused(answer, 405)
    assert answer.headers["Allow"]


@pytest.mark.parametrize("key", ["x", "x" * 300, "a b", SECRET[:-1], f"{SECRET}x", "ü"])
async def test_odd_secrets(orchestrator: Orchestrator, key: str) -> None:
    refused(await orchestrator.api.get("/jobs", headers=[(b"Authorization", f"Bearer {key}".encode())]), 401)


async def test_a_head_is_answered(api: httpx.AsyncClient) -> None:
    answer = await api.head("/jobs")
    assert (answer.status_code, answer.content) == (200, b"")
