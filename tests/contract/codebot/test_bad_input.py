"""Bad input on every route: always the dialect's own 4xx, never a 5xx."""

from typing import Any

import httpx
import orjson
import pytest

from tests.contract.codebot.conftest import Codebot
from tests.contract.codebot.document import SUBMISSION

JSON = {"Content-Type": "application/json"}
DEEP = b'{"description": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"
DEEP_OBJECT = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
SUBMIT = "/api/tasks/submit"


def refused(answer: httpx.Response, *statuses: int) -> str:
    """The message of an error in the shape of the document."""
    assert answer.status_code in statuses, answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["X-Request-Id"]
    assert list(answer.json()) == ["error", "message"]
    return str(answer.json()["message"])


@pytest.fixture(params=["alone", "mounted"])
def client(request: pytest.FixtureRequest, shared_codebot: Codebot) -> httpx.AsyncClient:
    return shared_codebot.served.alone if request.param == "alone" else shared_codebot.served.mounted


FIELDS: list[tuple[str, Any]] = [
    *[(name, 5) for name in ("repository_url", "description", "ticket_id", "ticket_summary", "test_command")],
    *[(name, ["x"]) for name in ("repository_url", "description", "ticket_id", "base_branch")],
    *[(name, {"a": 1}) for name in ("description", "ticket_summary", "test_command", "base_branch")],
    *[(name, None) for name in ("repository_url", "description")],
    *[(name, "") for name in ("repository_url", "description")],
    *[(name, "  \n") for name in ("repository_url", "description")],
    *[(name, "a\0b") for name in ("repository_url", "description", "ticket_id", "ticket_summary", "test_command")],
    *[(name, "x" * 200_000) for name in SUBMISSION],
    ("base_branch", "-x"),
    ("base_branch", "a b"),
    ("base_branch", "\0"),
    ("description", True),
    ("description", 1e308),
]


@pytest.mark.parametrize(("name", "value"), FIELDS)
async def test_a_bad_field_is_named(shared_codebot: Codebot, name: str, value: Any) -> None:
    answer = await shared_codebot.served.alone.post(SUBMIT, json=SUBMISSION | {name: value})
    assert name in refused(answer, 400)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'"x"', b"5", b"\xff\xfe", b'{"description": "\xff"}', b"{}", DEEP, DEEP_OBJECT),
        *(b'{"description": "\\ud800", "repository_url": "x"}', b'{"description": NaN, "repository_url": "x"}'),
        orjson.dumps(SUBMISSION)[:-1],
        orjson.dumps([SUBMISSION]),
    ],
)
async def test_a_bad_body(client: httpx.AsyncClient, body: bytes) -> None:
    refused(await client.post(SUBMIT, content=body, headers=JSON), 400)


async def test_a_body_that_is_too_large(client: httpx.AsyncClient) -> None:
    refused(await client.post(SUBMIT, json=SUBMISSION | {"description": "x" * 5_000_000}), 413)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "nonsense"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_another_content_type(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    refused(await client.post(SUBMIT, content=orjson.dumps(SUBMISSION), headers=headers), 415)


@pytest.mark.parametrize(
    "task_id",
    [
        *("x", "1", "None", "550e8400", "a%2Fb", "%2e%2e", "%00", "%FF", "..%2f..", "x" * 5_000, "%F0%9F%98%80"),
        *("550e8400-e29b-41d4-a716-446655440000%0A", "{550e8400-e29b-41d4-a716-446655440000}", "'; DROP TABLE jobs"),
    ],
)
async def test_an_unknown_task(client: httpx.AsyncClient, task_id: str) -> None:
    refused(await client.get(f"/api/tasks/{task_id}/status"), 404)


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=-1", "limit=1001", "limit=ten", "limit=1.5", "limit=", f"limit={10**40}", "limit=%00"),
        *("status=", "status=done", "status=PENDING", "status=%00", "status=%FF", "status=pending,failed"),
        *("limit=1&limit=2", "status=failed&status=failed"),
    ],
)
async def test_bad_parameters(client: httpx.AsyncClient, query: str) -> None:
    message = refused(await client.get(f"/api/tasks?{query}"), 400)
    assert query.partition("=")[0] in message


async def test_parameters_that_are_not_known_are_ignored(client: httpx.AsyncClient) -> None:
    for path in ("/api/tasks?page=2&limit=5", "/health?verbose=1"):
        assert (await client.get(path)).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/api", "/api/tasks/", "/api/tasks/x", "/api//tasks", "/api/tasks%2Fsubmit/x", "/%ED%A0%80/%FF%00"]
)
async def test_an_unknown_path(client: httpx.AsyncClient, path: str) -> None:
    assert "openapi.json" in refused(await client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", SUBMIT), ("DELETE", "/api/tasks"), ("POST", "/health"), ("PUT", SUBMIT), ("PATCH", "/api/tasks")],
)
async def test_a_method_that_is_not_there(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path)
    refused(answer, 405)
    assert answer.headers["Allow"]


@pytest.mark.parametrize("key", ["x", "x" * 300, "a b", "your-api-ke", "your-api-key2", "ü"])
@pytest.mark.parametrize(("header", "before"), [("Authorization", "Bearer "), ("X-API-Key", "")])
async def test_odd_keys(shared_codebot: Codebot, key: str, header: str, before: str) -> None:
    headers = [(b"Authorization", b""), (header.encode(), (before + key).encode())]
    refused(await shared_codebot.served.alone.get("/api/tasks", headers=headers), 401)


async def test_a_head_is_answered(client: httpx.AsyncClient) -> None:
    answer = await client.head("/api/tasks")
    assert (answer.status_code, answer.content) == (200, b"")
