"""Which repositories are offered and taken: the forge's, as far as they are allowed, and registered ones."""

from typing import Any

import grpc
import pytest

from services.contracts.repositories import RepositoryRegistration
from services.contracts.v1 import vcs_pb2
from services.gateway.dialects.cody_batch.discovery import Forge
from services.jobs.repositories import Repositories
from tests.contract.cody_batch.conftest import Cody, dialect
from tests.contract.cody_batch.document import CREATE
from tests.contract.serving import fleet_of, running_api
from tests.integration.gateway.vcs_nodes import TOKEN, Refusal, vcs_node

PATH = "/srv/git/one.git"


async def register(cody: Cody, name: str, url: str, **fields: Any) -> None:
    domain = cody.runs.domain
    wanted = RepositoryRegistration.model_validate({"name": name, "url": url, **fields})
    await Repositories(domain.database).add(domain.client, wanted)


async def test_the_forge_is_asked_once_for_each_owner_and_its_answer_is_remembered(cody: Cody) -> None:
    before = len(cody.plan.asked)
    for _ in range(3):
        await cody.get("/repositories")
    asked = [each for each in cody.plan.asked if isinstance(each, vcs_pb2.ListRepositoriesRequest) and each.limit > 1]
    kinds = {(each.owner, *each.patterns, each.include_forks, each.include_archived) for each in asked}
    assert kinds == {("demo", "demo/*", True, False), ("liamzdenek", "liamzdenek/*", True, False)}
    assert len(cody.plan.asked) - before <= len(kinds)


async def test_pages_and_a_filter(cody: Cody) -> None:
    found = await cody.get("/repositories", filter="REPO2")
    assert [each["name"] for each in found["repositories"]] == ["liamzdenek/repo2"]
    assert found["pagination"] == {"page": 1, "perPage": 10, "total": 1, "totalPages": 1}
    second = await cody.get("/repositories", perPage=1, page=2, filter="liamzdenek/")
    assert [each["id"] for each in second["repositories"]] == ["repo2"]
    assert second["pagination"] == {"page": 2, "perPage": 1, "total": 2, "totalPages": 2}
    nothing = await cody.get("/repositories", filter="somebody")
    assert (nothing["repositories"], nothing["pagination"]["totalPages"]) == ([], 0)


async def test_a_registered_repository_is_offered_and_taken_by_its_name(cody: Cody) -> None:
    await register(cody, "demo/one", PATH, baseRef="trunk", description="For a demo")
    found = await cody.get("/repositories", filter="demo/")
    assert found["repositories"] == [{"id": "one", "name": "demo/one", "description": "For a demo", "url": PATH}]
    job_id = await cody.create(repositories=["demo/one"])
    (run,) = await cody.runs.claim(job_id)
    assert (run.repository, run.base_ref) == (PATH, "trunk")
    assert (await cody.get(f"/jobs/{job_id}"))["repositories"][0]["name"] == "demo/one"
    assert (await cody.get(f"/jobs/{job_id}/repositories/demo%2Fone"))["repositoryName"] == "demo/one"


async def test_case_tells_no_two_registered_repositories_apart(cody: Cody) -> None:
    await register(cody, "LiamZDenek/Repo2", "/srv/git/two.git")
    found = await cody.get("/repositories", filter="repo2")
    assert [(each["name"], each["url"]) for each in found["repositories"]] == [("LiamZDenek/Repo2", "/srv/git/two.git")]
    job_id = await cody.create(repositories=["liamzdenek/REPO2"])
    (run,) = await cody.runs.claim(job_id)
    assert run.repository == "/srv/git/two.git"
    shown = await cody.get(f"/jobs/{job_id}/repositories/liamzdenek%2Frepo2")
    assert shown["repositoryName"] == "liamzdenek/REPO2"


async def test_a_registered_repository_that_is_not_allowed_is_neither(cody: Cody) -> None:
    await register(cody, "private/one", "/srv/git/private.git")
    assert (await cody.get("/repositories", filter="private"))["repositories"] == []
    answer = await cody.api.alone.post("/jobs", json=CREATE | {"repositories": ["private/one"]})
    assert (answer.status_code, answer.json()["error"]["details"][0]["field"]) == (400, "repositories[0]")


@pytest.mark.parametrize(
    ("code", "status", "github"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, 200, "not configured"),
        (grpc.StatusCode.NOT_FOUND, 200, "healthy"),
        (grpc.StatusCode.UNAVAILABLE, 503, "unhealthy"),
    ],
)
async def test_a_forge_that_lists_nothing(
    database_url: str, nats_url: str, code: grpc.StatusCode, status: int, github: str
) -> None:
    """Where none is set up registered repositories are what there is; one that is away is said to be."""
    async with fleet_of(database_url, "cody-batch") as fleet, vcs_node(fleet.domain.database) as plan:
        plan.refusals["ListRepositories"] = Refusal(code, "not now")
        async with running_api(database_url, nats_url, dialect, vcs_token=TOKEN) as api:
            listed, health = await api.alone.get("/repositories"), await api.alone.get("/health")
    assert listed.status_code == status
    if status == 200:
        assert listed.json()["repositories"] == []
    else:
        assert listed.json() == {"error": {"message": "not now"}}
        assert listed.headers["Retry-After"]
    assert health.status_code == 200
    assert health.json()["dependencies"]["github"] == github
    assert health.json()["status"] == ("degraded" if github == "unhealthy" else "healthy")


async def test_an_answer_is_asked_for_again_once_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def discover(request: vcs_pb2.ListRepositoriesRequest) -> list[Any]:
        asked.append(request.owner)
        return []

    forge = Forge()
    for seconds in (30.0, 0.0):
        monkeypatch.setattr("services.gateway.dialects.cody_batch.discovery.REMEMBERED_SECONDS", seconds)
        for _ in range(2):
            await forge.listed(discover, "one", ["one/*"], limit=5)
    assert asked == ["one", "one", "one"]
