"""As whom a server without credentials of its own publishes: with the token that a job brought, and as an App."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from cryptography.fernet import Fernet

from quarterdeck.stack.ports import free_ports
from services.contracts.v1 import vcs_pb2 as pb
from services.jobs.forge_apps import ForgeApps
from services.jobs.submission import Submissions
from services.runtime.grpc import make_channel
from services.runtime.sealing import Sealer
from tests.integration.git_server import Fault
from tests.integration.publishing.forge_git import FETCH
from tests.integration.publishing.secrecy import assert_no_token, found_in
from tests.integration.publishing.site import PATIENCE_SECONDS, Site, logs_of
from tests.integration.publishing.test_secrecy import shown_by_children
from tests.integration.vcs.github.emulated import APP_ID, OTHER_TOKEN
from tests.integration.vcs.rpc_serving import Stub, refusal
from tests.integration.waiting import until

KEY = Fernet.generate_key().decode()
WITHOUT_CREDENTIALS = {"GITHUB_TOKEN": "", "QUARTERDECK_SECRET_KEY": KEY, "QUARTERDECK_LOG_LEVEL": "debug"}
PAGE = "https://github.com/apps/quarterdeck"
CODE, WEBHOOK_SECRET, CLIENT_SECRET = "a-code-of-the-manifest", "what-deliveries-are-signed-with", "of-the-client"
TAKEN_UP = "GitHub is asked as the App that was set up"


@pytest.fixture
async def sealing(site: Site) -> Site:
    """With a scheduler, and jobs that may bring secrets."""
    site.domain.submissions = Submissions(site.domain.units, Sealer(KEY))
    await site.start_scheduler()
    return site


async def test_a_job_s_token_publishes_and_follows_what_came_of_it(sealing: Site) -> None:
    vcs = await sealing.start_vcs(**WITHOUT_CREDENTIALS, QUARTERDECK_DRAIN_SECONDS="0")
    name, hanging = [await sealing.repository(token=OTHER_TOKEN) for _ in range(2)]
    sealing.git.plan(hanging, FETCH, Fault(hang=True))
    shown_before = len(sealing.git.logins)
    change = await sealing.store(name, token=OTHER_TOKEN)
    await sealing.store(hanging, token=OTHER_TOKEN)

    (row,) = await sealing.settle(change)
    assert (row["state"], row["forge"], row["error"]) == ("open", "github", None)
    await sealing.assert_delivered_once(change)
    (pull,) = await sealing.pulls(name)
    assert pull["user"]["login"] == "grace"
    await until(lambda: bool(sealing.git.count(hanging, FETCH)))
    children = [child async for child in shown_by_children(vcs.process.pid)]
    assert b"git-remote-http" in b" ".join(cmdline for cmdline, _ in children)
    assert not any(found_in(shown) for child in children for shown in child)

    await sealing.emulate.ada.ask("PATCH", f"/repos/{name}/pulls/{pull['number']}", {"state": "closed"})
    await sealing.domain.execute("UPDATE changesets SET observe_at = now() WHERE id = $1", change.id)
    await sealing.settle(change, states={"closed"})
    assert {login.partition(":")[2] for login in sealing.git.logins[shown_before:]} == {OTHER_TOKEN}
    assert {request.headers["Authorization"] for request in sealing.proxy.requests} == {f"Bearer {OTHER_TOKEN}"}

    # The mirror is there, and its remote lets nobody in who brings no token.
    (row,) = await sealing.settle(await sealing.store(name, text="two"))
    assert (row["state"], row["url"]) == ("failed", None)
    assert "no credentials are set up" in row["error"]
    await assert_no_token(sealing)


async def test_an_app_that_is_set_up_is_used_by_every_vcs_without_a_restart(sealing: Site) -> None:
    ports = free_ports(2)
    first, second = [
        await sealing.start_vcs(**WITHOUT_CREDENTIALS, QUARTERDECK_VCS_LISTEN=f"127.0.0.1:{port}") for port in ports
    ]
    name = await sealing.repository()
    del sealing.git.tokens[name]  # its Git half lets everybody in: tokens of installations are the emulated half's
    made = {
        "id": APP_ID,
        "slug": "quarterdeck",
        "name": "Quarterdeck of Acme",
        "owner": {"login": "acme"},
        "html_url": PAGE,
        "client_secret": CLIENT_SECRET,
        "webhook_secret": WEBHOOK_SECRET,
        "pem": sealing.emulate.app_key,
    }
    sealing.proxy.answer("POST", f"^/app-manifests/{CODE}/conversions$", 201, made)
    async with make_channel(f"127.0.0.1:{ports[0]}") as channel:
        stub = Stub(channel, "of-this-site")
        await asyncio.wait_for(channel.channel_ready(), PATIENCE_SECONDS)
        info = await stub.SetUpApp(pb.SetUpAppRequest(code=CODE))
        refused = [await refusal(stub.SetUpApp(pb.SetUpAppRequest(code=code))) for code in ("not/one", "another")]
    assert info == pb.AppInfo(app_id=APP_ID, slug="quarterdeck", name="Quarterdeck of Acme", owner="acme", url=PAGE)
    assert [error.code() for error in refused] == [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND]
    assert "code: is no code of a manifest" in (refused[0].details() or "")

    await first.stop()
    await until(lambda: TAKEN_UP in second.log.read_text())
    change = await sealing.store(name)
    await sealing.settle(change)
    await sealing.assert_delivered_once(change)
    assert [pull["user"]["login"] for pull in await sealing.pulls(name)] == ["quarterdeck[bot]"]
    apps = ForgeApps(sealing.domain.database, Sealer(KEY))
    assert await apps.webhook_secret() == WEBHOOK_SECRET
    (row,) = await sealing.domain.rows("SELECT a::text AS line FROM forge_apps a")
    told = await logs_of(sealing.services) + row["line"]
    for secret in (CODE, WEBHOOK_SECRET, CLIENT_SECRET, *sealing.emulate.app_key.splitlines()[1:-1]):
        assert secret not in told
        assert secret.encode().hex() not in told
