"""Bad input on every route: always the dialect's own 4xx, never a 5xx, and nothing is created."""

from typing import Any

import httpx
import orjson
import pytest

from tests.contract.cody_batch.conftest import Cody
from tests.contract.cody_batch.document import CREATE, ENCODED

JSON = {"Content-Type": "application/json"}
DEEP = b'{"name": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"
DEEP_OBJECT = b'{"a":' * 10_000 + b"1" + b"}" * 10_000
UNKNOWN = "job-0190b7e4-0000-7000-8000-000000000000"


def refused(answer: httpx.Response, *statuses: int) -> str:
    """The message of an error in the shape of the document."""
    assert answer.status_code in statuses, answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["X-Request-Id"]
    assert list(answer.json()) == ["error"]
    error = answer.json()["error"]
    assert list(error) in (["message"], ["message", "details"])
    assert all(list(each) == ["field", "message"] for each in error.get("details", []))
    return str(error["message"])


FIELDS: list[tuple[str, Any]] = [
    *[(name, 5) for name in CREATE],
    *[(name, {"a": 1}) for name in CREATE],
    *[(name, None) for name in CREATE],
    *[(name, "x" * 200_000) for name in ("name", "description", "type", "prompt")],
    *[(name, "") for name in ("name", "type", "prompt")],
    *[(name, " \n" * 8) for name in ("name", "type", "prompt")],
    *[(name, "a\0b" * 4) for name in ("name", "description", "type", "prompt")],
    ("name", "x" * 101),
    ("description", "x" * 501),
    ("type", "x" * 51),
    ("prompt", "x" * 9),
    ("prompt", "x" * 5_001),
    ("createPullRequests", "true"),
    ("createPullRequests", 1),
    ("repositories", []),
    ("repositories", "liamzdenek/repo1"),
    ("repositories", [f"liamzdenek/repo{number}" for number in range(6)]),
    ("repositories", ["liamzdenek/repo"] * 10_000),
    ("repositories", ["liamzdenek/repo1", "LIAMZDENEK/REPO1"]),
    *[
        ("repositories", [name])
        for name in (
            *("", " ", "x", "a/b/c", "/", "liamzdenek/", "/repo1", "liamzdenek/..", "../repo1", "liamzdenek//repo1"),
            *("liamzdenek/re po", "liamzdenek/repo\n", "liamzdenek/\0", "liamzdenek%2Frepo1", "liamzdenek/*", "*"),
            *("https://github.com/liamzdenek/repo1", "git@github.com:liamzdenek/repo1", "-o/x", "liamzdenek/rép"),
            *("somebody/else", "liamzdenek2/repo1", "/etc/passwd", "file:///etc", "x" * 300, None, 5, ["a"], {"a": 1}),
        )
    ],
]


@pytest.mark.parametrize(("name", "value"), FIELDS)
async def test_a_bad_field_is_named(cody: Cody, name: str, value: Any) -> None:
    answer = await cody.api.alone.post("/jobs", json=CREATE | {name: value})
    message = refused(answer, 400)
    assert name in message
    assert any(detail["field"].startswith(name) for detail in answer.json()["error"]["details"])


@pytest.mark.parametrize("name", ["name", "type", "prompt", "repositories"])
async def test_a_missing_field_is_named(cody: Cody, name: str) -> None:
    body = {field: value for field, value in CREATE.items() if field != name}
    answer = await cody.api.alone.post("/jobs", json=body)
    assert refused(answer, 400) == f"{name}: is required"
    assert answer.json()["error"]["details"] == [{"field": name, "message": "is required"}]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'"x"', b"5", b"\xff\xfe", b'{"name": "\xff"}', b"{}", DEEP, DEEP_OBJECT),
        *(b'{"name": "\\ud800"}', b'{"name": NaN}', orjson.dumps(CREATE)[:-1], orjson.dumps([CREATE])),
    ],
)
async def test_a_bad_body(client: httpx.AsyncClient, body: bytes) -> None:
    refused(await client.post("/jobs", content=body, headers=JSON), 400)


async def test_a_body_that_is_too_large(client: httpx.AsyncClient) -> None:
    refused(await client.post("/jobs", json=CREATE | {"prompt": "x" * 5_000_000}), 413)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "nonsense"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_another_content_type(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    refused(await client.post("/jobs", content=orjson.dumps(CREATE), headers=headers), 415)


JOB_IDS = [
    *("x", "1", "job-", "job-123", "job-1%2F2", "%2e%2e", "%00", "%FF", "..%2f..", "x" * 5_000, "%F0%9F%98%80"),
    *(UNKNOWN, UNKNOWN.removeprefix("job-"), UNKNOWN.upper(), f"{UNKNOWN}%0A", f"job-{UNKNOWN}", "'; DROP TABLE jobs"),
]


@pytest.mark.parametrize("job_id", JOB_IDS)
async def test_an_unknown_job(cody: Cody, job_id: str) -> None:
    client = cody.api.alone
    refused(await client.get(f"/jobs/{job_id}"), 404)
    refused(await client.post(f"/jobs/{job_id}/cancel"), 404)
    for suffix in ("", "/diff", "/claude-thread"):
        refused(await client.get(f"/jobs/{job_id}/repositories/{ENCODED}{suffix}"), 404)


@pytest.mark.parametrize(
    "name",
    [
        *("x", "liamzdenek", "repo1", "liamzdenek%252Frepo1", "liamzdenek%2Frepo2", "liamzdenek%5Crepo1", "%2F", "%00"),
        *("..%2f..%2fetc", "%2e%2e%2F%2e%2e", "liamzdenek%2F..%2Frepo1", "liamzdenek%2Frepo1%00", "%FF%2F%FE"),
        *("liamzdenek%2Frepo1%2F", "x" * 5_000, "%F0%9F%98%80", "liamzdenek/repo1/x", "a/b", "liamzdenek//repo1"),
    ],
)
async def test_an_unknown_repository(cody: Cody, name: str) -> None:
    job_id = await _any_job(cody)
    for client in (cody.api.alone, cody.api.mounted):
        for suffix in ("", "/diff", "/claude-thread"):
            refused(await client.get(f"/jobs/{job_id}/repositories/{name}{suffix}"), 404)


async def _any_job(cody: Cody) -> str:
    """Of the one repository `liamzdenek/repo1`; any that is there."""
    jobs = (await cody.get("/jobs", perPage=100))["jobs"]
    alone = [job["jobId"] for job in jobs if job["name"] == "any"]
    return str(alone[0]) if alone else await cody.create(name="any")


@pytest.mark.parametrize(
    ("path", "query"),
    [
        *[
            (path, query)
            for path in ("/jobs", "/repositories")
            for query in (
                *("page=0", "page=-1", "page=one", "page=1.5", "page=%00", f"page={10**40}", "page=1&page=2"),
                *("perPage=0", "perPage=-1", "perPage=ten", "perPage=%FF", "perPage=1&perPage=2"),
            )
        ],
        *[("/jobs", query) for query in ("status=done", "status=PENDING", "status=%00", "status=pending,failed")],
        ("/repositories", f"filter={'x' * 300}"),
        ("/repositories", "filter=%00"),
    ],
)
async def test_bad_parameters(cody: Cody, path: str, query: str) -> None:
    assert query.partition("=")[0] in refused(await cody.api.alone.get(f"{path}?{query}"), 400)


@pytest.mark.parametrize(
    "query", ["view=raw", "view=", "view=STANDARD", "view=%00", "includeTool=maybe", "includeTool="]
)
async def test_bad_parameters_of_a_thread(cody: Cody, query: str) -> None:
    job_id = await _any_job(cody)
    answer = await cody.api.alone.get(f"/jobs/{job_id}/repositories/{ENCODED}/claude-thread?{query}")
    assert query.partition("=")[0] in refused(answer, 400)


async def test_what_is_not_known_is_ignored(client: httpx.AsyncClient) -> None:
    for path in ("/jobs?limit=5&status=&page=&perPage=", "/repositories?sort=name&filter=", "/health?verbose=1"):
        assert (await client.get(path)).status_code == 200
    answer = await client.post("/jobs?dry=1", json=CREATE | {"priority": "high"})
    assert answer.status_code == 201


@pytest.mark.parametrize("path", ["/", "/job", "/jobs/", "/jobs/x/y", "/jobs//cancel", "/repositories/x", "/%FF%00"])
async def test_an_unknown_path(client: httpx.AsyncClient, path: str) -> None:
    assert "openapi.json" in refused(await client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("DELETE", "/jobs"), ("PUT", "/jobs"), ("POST", "/health"), ("POST", "/repositories")),
        *(("DELETE", f"/jobs/{UNKNOWN}"), ("GET", f"/jobs/{UNKNOWN}/cancel")),
        ("POST", f"/jobs/{UNKNOWN}/repositories/{ENCODED}/diff"),
    ],
)
async def test_a_method_that_is_not_there(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path)
    refused(answer, 405)
    assert answer.headers["Allow"]


async def test_a_head_is_answered(client: httpx.AsyncClient) -> None:
    answer = await client.head("/jobs")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_another_host_than_this_machine_is_refused(cody: Cody) -> None:
    answer = await cody.api.alone.get("/jobs", headers={"Host": "evil.example"})
    assert "this machine" in refused(answer, 403)
