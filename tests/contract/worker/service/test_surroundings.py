"""What every answer has, be it an error, a stream or a refusal: headers of rates, times and counts, and CORS."""

import httpx
import pytest

from tests.contract.worker.service.conftest import Service
from tests.contract.worker.service.document import ERROR, LIMIT_HEADERS, shape
from tests.contract.worker.stage import START

DOCUMENTED_ORIGINS = ("https://cloud-code.finhub.workers.dev", "http://localhost:8787", "http://localhost:3000")
DOCUMENTED_HEADERS = {"content-type", "authorization", "x-requested-with"}
MINUTE_LIMIT = 60
ANSWERS = (
    ("GET", "/health", 200),
    ("GET", "/openapi.json", 200),
    ("HEAD", "/metrics", 200),
    ("GET", "/nothing", 404),
    ("PUT", "/health", 405),
    ("POST", START, 400),
    ("GET", "/gh-setup/callback", 400),
    ("GET", "/singleton", 503),
    ("OPTIONS", START, 204),
)


def has_all_headers(answer: httpx.Response) -> bool:
    for name in LIMIT_HEADERS:
        int(answer.headers[name])
    assert answer.headers["X-Response-Time"].endswith("ms")
    int(answer.headers["X-Response-Time"].removesuffix("ms"))
    return int(answer.headers["X-Request-Count"]) > 0


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
async def test_every_answer_has_them(service: Service, method: str, path: str, status: int) -> None:
    origin = DOCUMENTED_ORIGINS[2]
    for api in (service.api, service.worker.api.mounted):
        answer = await api.request(method, path, headers={"Origin": origin})
        assert answer.status_code == status, answer.text
        assert has_all_headers(answer)
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "Origin" in answer.headers["Vary"]
        assert {"X-Session-Id", *LIMIT_HEADERS} <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))


async def test_streams_have_them_too(service: Service) -> None:
    body = {"prompt": "say hello", "sessionId": "one with headers"}
    headers = {"Origin": DOCUMENTED_ORIGINS[0]}
    async with service.api.stream("POST", START, json=body, headers=headers) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert has_all_headers(answer)
        assert answer.headers["Access-Control-Allow-Origin"] == DOCUMENTED_ORIGINS[0]
    await service.worker.stage.play("one with headers", turns=1)
    counted = (await service.api.get("/metrics")).json()["requests"]["byRoute"]
    assert counted[START] >= 1


@pytest.mark.parametrize("origin", DOCUMENTED_ORIGINS)
async def test_a_preflight_is_answered_for_every_route(service: Service, origin: str) -> None:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "content-type,authorization",
    }
    for path in ("/health", START, "/interactive/abc", "/claude-setup", "/nothing"):
        answer = await service.api.options(path, headers=asked)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert {"GET", "POST", "DELETE"} <= set(answer.headers["Access-Control-Allow-Methods"].split(", "))
        assert set(answer.headers["Access-Control-Allow-Headers"].lower().split(", ")) >= DOCUMENTED_HEADERS
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000.evil.example", ""])
async def test_other_origins_are_allowed_nothing(service: Service, origin: str) -> None:
    for method in ("GET", "OPTIONS"):
        answer = await service.api.request(method, "/health", headers={"Origin": origin})
        assert not [name for name in answer.headers if name.lower().startswith("access-control-allow")]
        assert answer.headers["Vary"] == "Origin"


async def test_a_client_that_asks_too_often_is_refused_and_nobody_else(service: Service) -> None:
    first = await service.api.get("/nothing")
    assert first.headers["X-RateLimit-Limit"] == str(MINUTE_LIMIT)
    # A minute of the clock may begin in between, once.
    for _ in range(2 * MINUTE_LIMIT + 1):
        answer = await service.api.get("/nothing")
        if answer.status_code != 404:
            break
    hidden = await service.api.get("/nothing", headers={"X-Forwarded-For": f"7.7.7.7, {_address(service)}"})
    assert (answer.status_code, answer.json()["error"], hidden.status_code) == (429, "RATE_LIMIT_EXCEEDED", 429)
    assert shape(answer.json()) == shape(ERROR)
    assert (answer.headers["X-RateLimit-Remaining"], has_all_headers(answer)) == ("0", True)
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert int(answer.headers["X-RateLimit-Reset"]) % 60 == 0
    assert (await service.api.get("/health")).status_code == 200
    assert (await service.api.options("/nothing")).status_code == 204
    other = await service.api.get("/nothing", headers={"X-Forwarded-For": "198.51.100.255"})
    assert other.status_code == 404


def _address(service: Service) -> str:
    return str(service.api.headers["X-Forwarded-For"])
