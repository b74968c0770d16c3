"""Odd queries, headers and bodies on every route of the service: never a fault of the server's, never a hang."""

import pytest

from tests.contract.worker.service.conftest import Service
from tests.contract.worker.service.document import ERROR, shape

ROUTES = (
    "/health",
    "/healthz",
    "/metrics",
    "/metrics/prometheus",
    "/gh-status",
    "/gh-setup",
    "/gh-setup/callback",
    "/claude-setup",
    "/container",
    "/lb",
    "/singleton",
)
QUERIES = (
    "redirect_url=%00&organization=%00&code=%00&state=%00",
    "redirect_url=%ff&organization=%ff&code=%ff&state=%ff",
    "redirect_url=http%3A%2F%2F%5B&organization=a&organization=b",
    "redirect_url=" + "a" * 3_000,
    "code=a&state=%ed%a0%80",
    "code=a&state=" + "A" * 7_000,
    "&&&=&%",
)


@pytest.mark.parametrize("path", ROUTES)
async def test_odd_queries(service: Service, path: str) -> None:
    await service.tell_agents("agent-a")
    for query in QUERIES:
        answer = await service.api.get(f"{path}?{query}")
        assert answer.status_code in (200, 400), answer.text
        if answer.status_code == 400:
            assert shape(answer.json()) == shape(ERROR)


@pytest.mark.parametrize("repository", ["../..", "owner/..", "owner", {"name": "owner/."}])
async def test_the_repository_of_an_issue_is_refused_in_words(service: Service, repository: object) -> None:
    answer = await service.api.post("/container/process-issue", json={"repository": repository, "issueNumber": 1})
    assert answer.status_code == 400
    assert answer.json()["message"] == "repository.name: must be `owner/repo`, of letters, digits and `-_.`"


async def test_odd_headers(service: Service) -> None:
    odd = {
        "Origin": "http://[",
        "X-Forwarded-For": ",,;\x7f" + "1," * 500,
        "Cookie": "quarterdeck_gh_setup=\x01; a",
        "Sec-Fetch-Site": "nonsense",
        "Authorization": "Basic \xff",
    }
    for name, value in odd.items():
        for path in ("/gh-setup", "/gh-setup/callback?code=a&state=b", "/gh-status"):
            answer = await service.api.get(path, headers={name.encode(): value.encode("latin-1")})
            assert answer.status_code in (200, 400), (name, answer.text)


async def test_a_body_that_is_too_large(service: Service) -> None:
    for media_type in ("application/json", "application/x-www-form-urlencoded"):
        body = b"a" * (5 * 1024**2)
        answer = await service.api.post("/claude-setup", content=body, headers={"Content-Type": media_type})
        assert (answer.status_code, answer.json()["error"]) == (413, "VALIDATION_ERROR")


@pytest.mark.parametrize("path", ROUTES)
async def test_other_methods(service: Service, path: str) -> None:
    for method in ("PUT", "PATCH", "DELETE"):
        answer = await service.api.request(method, path)
        assert answer.status_code == 405
        assert shape(answer.json()) == shape(ERROR)
        assert "GET" in answer.headers["Allow"]
