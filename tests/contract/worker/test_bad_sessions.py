"""Bad input on every route of sessions: always the document's own 4xx, never a 5xx, and nothing is started."""

import re
from typing import Any

import httpx
import pytest

from tests.contract.worker.conftest import BASE_URL, Worker
from tests.contract.worker.stage import START

JSON = {"Content-Type": "application/json"}
DEEP = b'{"prompt": ' + b"[" * 10_000 + b"]" * 10_000 + b"}"
STATUS = "/interactive/status"
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def refused(answer: httpx.Response, status: int = 400, code: str = "VALIDATION_ERROR") -> str:
    """The message of an error in the shape of the document."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    body = answer.json()
    assert list(body) == ["error", "message", "timestamp"]
    assert body["error"] == code
    assert TIMESTAMP.fullmatch(body["timestamp"])
    return str(body["message"])


@pytest.fixture(params=["alone", "mounted"])
def api(request: pytest.FixtureRequest, shared_worker: Worker) -> httpx.AsyncClient:
    return shared_worker.api.alone if request.param == "alone" else shared_worker.api.mounted


BAD_IDS = ("", " ", "x" * 201, "a/b", "a\nb", "a\tb", " a", "a ", "a\u2028b", ".", "..", "a\0b")
FIELDS: dict[str, list[Any]] = {
    "prompt": [None, "", " \n", 5, ["x"], "a\0b", "x" * 200_000],
    "sessionId": [*BAD_IDS, 5, {}],
    "repository": [5, {}, {"branch": "main"}, [], "owner", "", "a b/c", {"name": "a"}],
    "repository.name": ["a/b/c", "../x y", "", 5, "../..", "owner/..", "./repo", "x/y" * 100],
    "repository.url": [5, "-x", "ftp://a/b/c", "a\0b", "https://github.com"],
    "repository.branch": ["-x", "a b", 5, ""],
    "anthropicApiKey": [5, "", "a b", "ä", "x" * 5_000],
    "githubToken": [5, "", "a\nb", {}],
    "anthropicBaseUrl": [5, "", "http://elsewhere.example", "x"],
    "options": [5, [], "x"],
    "options.maxTurns": [0, -1, 1.5, "5", 10**9, True],
    "options.permissionMode": ["x", 5, ""],
    "options.createPR": ["x", 5],
    "options.onDisconnect": ["x", 5, True],
}


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in FIELDS.items() for value in values])
async def test_a_bad_field_is_named(shared_worker: Worker, path: str, value: Any) -> None:
    name, _, inner = path.partition(".")
    answer = await shared_worker.api.alone.post(START, json={"prompt": "x", name: {inner: value} if inner else value})
    assert path in refused(answer)


async def test_a_bad_secret_is_not_repeated(shared_worker: Worker) -> None:
    for name in ("anthropicApiKey", "githubToken"):
        answer = await shared_worker.api.alone.post(START, json={"prompt": "x", name: "sk-ant secret"})
        assert "secret" not in refused(answer)
    answer = await shared_worker.api.alone.post(
        START, json={"prompt": "x", "repository": {"url": "https://ghp_secret@github.com/a/b"}}
    )
    message = refused(answer)
    assert message.startswith("repository.url: ")
    assert "ghp_secret" not in message


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'"x"', b"5", b"\xff\xfe", b'{"prompt": "\xff"}', b"{}", DEEP),
        *(b'{"prompt": "\\ud800"}', b'{"prompt": NaN}', b'{"prompt": "x"'),
    ],
)
async def test_what_is_no_body_is_refused(api: httpx.AsyncClient, body: bytes) -> None:
    refused(await api.post(START, content=body, headers=JSON))


async def test_a_pull_request_needs_a_repository(api: httpx.AsyncClient) -> None:
    answer = await api.post(START, json={"prompt": "x", "options": {"createPR": True}})
    assert refused(answer).startswith("options.createPR: ")


async def test_a_body_that_is_no_json_is_refused(api: httpx.AsyncClient) -> None:
    refused(await api.post(START, content=b"prompt=x", headers={"Content-Type": "application/x-www-form-urlencoded"}))
    refused(await api.post(START, content=b'{"prompt": "x"}', headers=JSON | {"Content-Encoding": "gzip"}))


@pytest.mark.parametrize("session_id", [each for each in BAD_IDS if each])
async def test_an_odd_id_is_refused_everywhere(shared_worker: Worker, session_id: str) -> None:
    api = shared_worker.api.alone
    for path in (STATUS, START):
        assert "sessionId" in refused(await api.get(path, params={"sessionId": session_id}))
    if session_id not in (".", ".."):
        escaped = "".join(f"%{byte:02X}" for byte in session_id.encode())
        assert "sessionId" in refused(await api.delete(f"/interactive/{escaped}"))


async def test_an_id_is_needed(api: httpx.AsyncClient) -> None:
    for path in (STATUS, START):
        assert refused(await api.get(path)) == "sessionId: is required"
        assert "only once" in refused(await api.get(path, params={"sessionId": ["a", "b"]}))
    answer = await api.post(START, json={"prompt": "x"}, headers={"Last-Event-ID": "1:-:0"})
    assert refused(answer).startswith("sessionId: ")


async def test_an_unknown_session_is_not_found(api: httpx.AsyncClient) -> None:
    for path in (STATUS, START):
        refused(await api.get(path, params={"sessionId": "nobody's"}), 404, "NOT_FOUND")
    refused(await api.delete("/interactive/nobody's"), 404, "NOT_FOUND")
    body = {"prompt": "x", "sessionId": "nobody's"}
    refused(await api.post(START, json=body, headers={"Last-Event-ID": "1:-:0"}), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    "place", ["x", "1", "99:-:0:0", "1:-:0", "1:-:0:0:0", "-1:-:0:0", "1:a b:0:0", "1:-:0:x", "9" * 99]
)
async def test_a_place_that_was_not_given_out_is_refused(shared_worker: Worker, place: str) -> None:
    api, session_id = shared_worker.api.alone, f"for place {place}"
    async with api.stream("POST", START, json={"prompt": "x", "sessionId": session_id}) as answer:
        assert answer.status_code == 200
    for asked in (
        api.get(START, params={"sessionId": session_id}, headers={"Last-Event-ID": place}),
        api.post(START, json={"prompt": "x", "sessionId": session_id}, headers={"Last-Event-ID": place}),
    ):
        assert refused(await asked).startswith("Last-Event-ID: ")
    answer = await api.get(START, params={"sessionId": session_id, "lastEventId": place})
    assert refused(answer).startswith("lastEventId: ")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", "/nothing", 404), ("GET", "/interactive", 404), ("DELETE", "/interactive/", 404)),
        *(("PUT", START, 405), ("GET", "/interactive/x", 405), ("POST", STATUS, 405)),
    ],
)
async def test_what_is_not_there(api: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    refused(await api.request(method, path), status, "NOT_FOUND" if status == 404 else "VALIDATION_ERROR")


async def test_a_body_that_is_too_large(api: httpx.AsyncClient) -> None:
    refused(await api.post(START, json={"prompt": "x", "more": "x" * 5_000_000}), 413)


async def test_what_the_document_does_not_have_is_ignored(shared_worker: Worker) -> None:
    api, body = (
        shared_worker.api.alone,
        {"prompt": "x", "sessionId": "ignores", "more": 1, "anthropicBaseUrl": BASE_URL},
    )
    async with api.stream("POST", f"{START}?more=1", json=body) as answer:
        assert answer.status_code == 200
    found = await api.get(STATUS, params={"sessionId": "ignores", "more": "1"})
    assert found.json()["status"] == "processing"
    assert (await api.delete("/interactive/ignores?more=1")).status_code == 200
