"""Setting GitHub and Claude up as a browser does it: the manifest, the way by GitHub and back, the key's form."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
import httpx
import orjson
import pytest
from pydantic import SecretStr

from services.contracts.v1 import vcs_pb2
from services.gateway.dialects.worker.setup import COOKIE
from services.jobs.sealed import client_owner
from services.runtime.sealing import Sealer
from tests.contract.worker.conftest import SECRET_KEY, running_worker
from tests.contract.worker.service.conftest import APP, KEY, Service
from tests.contract.worker.service.document import ERROR, shape
from tests.integration.gateway.vcs_nodes import Refusal
from tests.unit.gateway.test_worker_setup import Forms

GITHUB = "https://github.example"
INSTALLATION = f"{APP.url}/installations/new"
PAGE_OF_OURS = "http://localhost:3000"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def begin(api: httpx.AsyncClient, **query: str) -> tuple[str, dict[str, Any], str]:
    """Where the page posts the manifest, the manifest, and the state in it."""
    answer = await api.get("/gh-setup", params=query)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    forms = Forms(answer.text)
    (action,) = forms.actions
    (state,) = parse_qs(urlsplit(action).query)["state"]
    return action.partition("?")[0], orjson.loads(forms.fields["manifest"]), state


def is_refused(answer: httpx.Response, field: str) -> bool:
    """As the document has its errors, naming ``field``."""
    told = answer.json()
    is_said = told["error"] == "VALIDATION_ERROR" and field in told["message"]
    return answer.status_code == 400 and shape(told) == shape(ERROR) and is_said


async def test_an_app_is_set_up(service: Service) -> None:
    action, manifest, state = await begin(service.api)
    assert action == f"{GITHUB}/settings/apps/new"
    assert manifest["hook_attributes"]["url"] == f"{service.worker.api.address}/webhooks/github"
    assert manifest["redirect_url"] == f"{service.worker.api.address}/gh-setup/callback"
    answer = await service.api.get("/gh-setup/callback", params={"code": "a1b2", "state": state})
    assert answer.status_code == 200, answer.text
    assert f'href="{INSTALLATION}"' in answer.text
    assert service.plan.requests(vcs_pb2.SetUpAppRequest) == [vcs_pb2.SetUpAppRequest(code="a1b2")]
    assert COOKIE not in service.api.cookies


async def test_the_cookie_is_of_this_page_alone_and_read_by_no_script(service: Service) -> None:
    answer = await service.api.get("/gh-setup")
    words = {word.strip().lower() for word in answer.headers["Set-Cookie"].split(";")}
    assert {"httponly", "samesite=lax", "path=/gh-setup", "max-age=3600"} <= words
    assert answer.headers["Cache-Control"] == "no-store"
    assert f"form-action 'self' {GITHUB};" in answer.headers["Content-Security-Policy"]


async def test_in_its_folder_and_for_an_organization(service: Service) -> None:
    action, manifest, state = await begin(service.worker.api.mounted, organization="my-org")
    assert action == f"{GITHUB}/organizations/my-org/settings/apps/new"
    callback = f"{service.worker.api.mounted.base_url}gh-setup/callback"
    assert manifest["redirect_url"] == callback
    answer = await service.worker.api.mounted.get(f"{callback}?code=a1b2&state={state}")
    assert answer.status_code == 200, answer.text
    assert is_refused(await service.api.get("/gh-setup", params={"organization": "a/../b"}), "organization")


async def test_a_redirect_url_is_honoured_where_its_origin_is_allowed(service: Service) -> None:
    wanted = f"{PAGE_OF_OURS}/done?step=2#end"
    _, _, state = await begin(service.api, redirect_url=wanted)
    answer = await service.api.get("/gh-setup/callback", params={"code": "a1b2", "state": state})
    assert answer.status_code == 303
    to = urlsplit(answer.headers["Location"])
    assert (f"{to.scheme}://{to.netloc}{to.path}", to.fragment) == (f"{PAGE_OF_OURS}/done", "end")
    assert parse_qs(to.query) == {"step": ["2"], "installation_url": [INSTALLATION]}


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/",
        "//evil.example",
        "http://localhost:3000@evil.example/",
        "http://localhost:3000\\@evil.example/",
        "http://localhost:3000.evil.example/",
        "javascript:alert(1)",
        "http://localhost:3000/\r\nSet-Cookie: a=b",
        "http://localhost:99999/",
        "/claude-setup",
    ],
)
async def test_no_other_redirect_url_is_followed(service: Service, url: str) -> None:
    answer = await service.api.get("/gh-setup", params={"redirect_url": url})
    assert answer.status_code == 200
    assert "redirect_url is not used" in answer.text
    assert "evil" not in answer.text
    (state,) = parse_qs(urlsplit(Forms(answer.text).actions[0]).query)["state"]
    answer = await service.api.get("/gh-setup/callback", params={"code": "a1b2", "state": state})
    assert (answer.status_code, answer.headers.get("Location")) == (200, None)


async def test_a_callback_that_nobody_here_began_is_refused(service: Service) -> None:
    _, _, state = await begin(service.api)
    nonce = service.api.cookies[COOKIE]
    service.api.cookies.clear()
    good = {"code": "a1b2", "state": state}
    assert is_refused(await service.api.get("/gh-setup/callback", params=good), "state")
    service.api.cookies.set(COOKIE, nonce)
    for query, field in (
        ({"state": state}, "code"),
        ({"code": "", "state": state}, "code"),
        ({"code": "a/../b", "state": state}, "code"),
        ({"code": "a1b2"}, "state"),
        ({"code": "a1b2", "state": state[:-4] + "AAAA"}, "state"),
        ({"code": "a1b2", "state": "ü"}, "state"),
    ):
        assert is_refused(await service.api.get("/gh-setup/callback", params=query), field)
    answer = await service.api.head("/gh-setup/callback", params=good)
    assert answer.status_code == 405
    assert not service.plan.requests(vcs_pb2.SetUpAppRequest)
    service.plan.refusals["SetUpApp"] = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "code: GitHub does not know it")
    answer = await service.api.get("/gh-setup/callback", params=good)
    assert (answer.status_code, answer.json()["message"]) == (400, "code: GitHub does not know it")


async def test_a_key_is_stored_and_used_by_this_apis_client_alone(service: Service) -> None:
    answer = await service.api.post("/claude-setup", json={"anthropicApiKey": KEY, "more": 1})
    assert (answer.status_code, answer.json()["success"]) == (200, True)
    (row,) = await service.domain.rows("SELECT client_id, settings, sealed FROM client_settings")
    assert row["client_id"] == service.domain.client.id
    assert KEY.encode() not in row["sealed"] + orjson.dumps(row["settings"])
    opened = Sealer(SECRET_KEY).open(row["sealed"], owners=[client_owner(row["client_id"])])
    assert opened.secrets["anthropicApiKey"] == KEY


async def test_the_form_stores_a_key_too(service: Service) -> None:
    page = await service.api.get("/claude-setup")
    forms = Forms(page.text)
    assert forms.actions == ["/claude-setup"]
    assert Forms((await service.worker.api.mounted.get("/claude-setup")).text).actions == ["/worker/claude-setup"]
    body = dict.fromkeys(forms.fields, f" {KEY} ")
    answer = await service.api.post("/claude-setup", data=body, headers={"Origin": service.worker.api.address})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert KEY not in answer.text
    assert (await service.api.get("/gh-status")).json()["claudeConfigured"] is True


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": PAGE_OF_OURS, "Sec-Fetch-Site": "same-site"},
    ],
)
async def test_no_page_of_another_site_may_send_the_form(service: Service, headers: dict[str, str]) -> None:
    answer = await service.api.post("/claude-setup", data={"anthropicApiKey": KEY}, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (403, "UNAUTHORIZED")
    assert not await service.domain.rows("SELECT 1 FROM client_settings")


async def test_pages_of_allowed_origins_may_send_json_and_others_may_not(service: Service) -> None:
    for origin, status in ((PAGE_OF_OURS, 200), ("https://evil.example", 403)):
        headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
        answer = await service.api.post("/claude-setup", json={"anthropicApiKey": KEY}, headers=headers)
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"anthropicApiKey": "sk-a"}', {}),
        (b'{"anthropicApiKey": 7}', {}),
        (b'{"anthropicApiKey": null}', {}),
        (b'{"anthropicApiKey": "sk-ant-with spaces"}', {}),
        (b'{"anthropicApiKey": "sk-ant-\\u0000"}', {}),
        (b'{"anthropicApiKey": "' + b"sk-ant-" * 1_000 + b'"}', {}),
        (b"{}", {}),
        (b"[]", {}),
        (b"", {}),
        (b"\xff", {}),
        (b"[" * 10_000, {}),
        (b"anthropicApiKey=sk-b", FORM),
        (b"", FORM),
        (b"\xff", FORM),
        (b"&".join([b"a=b"] * 100), FORM),
        (b"anthropicApiKey=sk-ant-%00", FORM),
        (b'{"anthropicApiKey": "sk-ant-x"}', {"Content-Type": "text/plain"}),
        (b"--x--", {"Content-Type": "multipart/form-data; boundary=x"}),
        (b"x", {"Content-Encoding": "gzip"}),
    ],
)
async def test_whatever_is_no_key_is_refused(service: Service, body: bytes, headers: dict[str, str]) -> None:
    answer = await service.api.post(
        "/claude-setup", content=body, headers={"Content-Type": "application/json"} | headers
    )
    assert (answer.status_code, answer.json()["error"]) == (400, "VALIDATION_ERROR"), answer.text
    assert "sk-a" not in answer.json()["message"].replace("sk-ant-", "")
    assert not await service.domain.rows("SELECT 1 FROM client_settings")


async def test_without_a_secret_key_nothing_is_stored_and_with_a_key_browsers_are_asked_for_it(
    database_url: str, nats_url: str
) -> None:
    settings = {"api_key": SecretStr("a-key")}
    async with running_worker(database_url, nats_url, settings=settings, key="a-key", secret_key=None) as worker:
        answer = await worker.api.alone.post("/claude-setup", json={"anthropicApiKey": KEY})
        assert (answer.status_code, answer.json()["error"]) == (500, "INTERNAL_ERROR")
        assert "QUARTERDECK_SECRET_KEY" in answer.json()["message"]
        assert KEY not in answer.text
        async with httpx.AsyncClient(base_url=worker.api.address, trust_env=False) as api:
            for path in ("/gh-setup", "/gh-setup/callback", "/claude-setup"):
                answer = await api.get(path)
                assert (answer.status_code, answer.headers["WWW-Authenticate"][:5]) == (401, "Basic")
                answer = await api.get(path, headers={"Authorization": "Bearer another"})
                assert (answer.status_code, answer.json()["error"]) == (401, "UNAUTHORIZED")
            assert (await api.get("/claude-setup", auth=("me", "a-key"))).status_code == 200
            assert (await api.post("/claude-setup", json={"anthropicApiKey": KEY})).status_code == 401
            assert (await api.get("/metrics")).status_code == 401
            assert (await api.get("/health")).status_code == 200
