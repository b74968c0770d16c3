"""The token that a job brought is opened for its runs and changesets, and told to nobody else."""

from uuid import UUID

import pytest
from cryptography.fernet import Fernet

from services.contracts.rest import RetryRequest
from services.contracts.words import ExitReason, Publish
from services.jobs.errors import SecretsError
from services.jobs.retrying import Renaming, Retrying
from services.jobs.run_credentials import RunCredentials
from services.jobs.submission import Submissions
from services.runtime.sealing import Sealer
from tests.integration.jobs.domain import COMMIT, Domain

KEY = Fernet.generate_key().decode()
TOKEN = "ghp_of_this_job_alone"


@pytest.fixture
def sealing(domain: Domain) -> Domain:
    domain.submissions = Submissions(domain.units, Sealer(KEY))
    domain.retrying = Retrying(domain.units, domain.submissions)
    return domain


def credentials(domain: Domain, key: str | None = KEY) -> RunCredentials:
    return RunCredentials(domain.database, Sealer(key))


async def test_a_run_and_its_changeset_have_the_token_of_their_job(sealing: Domain) -> None:
    order = await sealing.dispatch_one(credentials={"githubToken": TOKEN, "anthropicApiKey": "sk-mine"})
    run = await sealing.claimed(order)
    await sealing.running.prepared(run.hold, base_sha="b" * 40, base_branch="main", events=[])
    changeset_id = await sealing.running.deliver(run.hold, COMMIT, publish=Publish.NONE, summary="")

    found = credentials(sealing)
    assert await found.github_token_of_run(order.run_id) == TOKEN
    assert await found.github_token_of_changeset(changeset_id) == TOKEN
    (row,) = await sealing.rows("SELECT j::text AS line, sealed FROM jobs j")
    assert TOKEN.encode() not in row["line"].encode() + row["sealed"]


async def test_a_run_s_owner_is_its_client_and_the_customer_that_its_job_names(sealing: Domain) -> None:
    plain, named, again = [
        await credentials(sealing).owner_of_run((await sealing.dispatch_one(**fields)).run_id)
        for fields in ({}, {"metadata": {"clientId": "c"}}, {"metadata": {"feature": "f"}})
    ]
    assert (plain, named) == (f"{sealing.client.id}/", f"{sealing.client.id}/c")
    assert again == plain
    assert await credentials(sealing).owner_of_run(UUID(int=1)) == ""


@pytest.mark.parametrize("brought", [{}, {"credentials": {"anthropicApiKey": "sk-mine"}}])
async def test_a_job_may_bring_none(sealing: Domain, brought: dict[str, dict[str, str]]) -> None:
    order = await sealing.dispatch_one(**brought)
    assert await credentials(sealing).github_token_of_run(order.run_id) is None
    assert await credentials(sealing).github_token_of_run(UUID(int=1)) is None


async def test_without_the_key_that_sealed_it_there_is_an_error_and_no_other_credential(sealing: Domain) -> None:
    order = await sealing.dispatch_one(credentials={"githubToken": TOKEN})
    for key, words in (
        (None, "QUARTERDECK_SECRET_KEY is not set"),
        (Fernet.generate_key().decode(), "put the old key"),
    ):
        with pytest.raises(SecretsError, match=f"the credentials that the job brought: .*{words}") as caught:
            await credentials(sealing, key).github_token_of_run(order.run_id)
        assert TOKEN not in str(caught.value)


async def test_a_retry_keeps_it_sealed_for_the_new_job(sealing: Domain) -> None:
    order = await sealing.dispatch_one(credentials={"githubToken": TOKEN})
    run = await sealing.claimed(order)
    await sealing.running.fail(run.hold, ExitReason.CLONE_FAILED, error="gone")
    again = (sealing.client, order.job_id, RetryRequest())
    renaming = Renaming(lambda branch: f"{branch}-2", {"branch": "any-2"})
    for renamed, branch in ((None, run.branch), (renaming, f"{run.branch}-2")):
        retried = await sealing.retrying.retry(*again, key=None, body=b"", renaming=renamed)
        (row,) = await sealing.rows("SELECT id, branch FROM runs WHERE job_id = $1", retried.job_id)
        assert row["branch"] == branch
        assert await credentials(sealing).github_token_of_run(row["id"]) == TOKEN
    assert (await sealing.row("jobs", retried.job_id))["metadata"] == {"branch": "any-2"}
