"""Who is let in where the API has a key, and what is open all the same."""

import httpx
from pydantic import SecretStr

from services.gateway.dialects.dialect import Dialect
from tests.contract.cody_batch.conftest import dialect
from tests.contract.serving import running_api
from tests.integration.gateway.vcs_nodes import TOKEN

KEY = "a-key-of-cody"


async def test_with_a_key_only_its_holder_is_let_in(database_url: str, nats_url: str) -> None:
    def keyed(port: int) -> Dialect:
        return dialect(port, api_key=SecretStr(KEY))

    async with running_api(database_url, nats_url, keyed, key=KEY, vcs_token=TOKEN) as api:
        assert (await api.alone.get("/jobs")).status_code == 200
        async with httpx.AsyncClient(base_url=api.address, trust_env=False) as other:
            assert (await other.get("/health")).status_code == 200
            assert (await other.get("/jobs", headers={"X-API-Key": KEY})).status_code == 200
            for headers in ({}, {"Authorization": "Bearer x"}, {"X-API-Key": f"{KEY}x"}):
                refused = await other.get("/jobs", headers=headers)
                assert refused.status_code == 401
                assert list(refused.json()) == ["error"]
            page = "/changesets/01a1ff0c-c951-702a-8fe0-51e94902143e"
            assert (await other.get(page)).headers["WWW-Authenticate"].startswith("Basic")
            assert (await other.get(page, auth=("", KEY))).status_code == 404
