"""The endpoints that set GitHub and Claude up: pages for people, and what they and programs send."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from urllib.parse import parse_qsl, quote, urlsplit

import orjson
from aiohttp import web
from pydantic import Field, SecretStr, ValidationError

from services.gateway.auth import CLIENT
from services.gateway.body import read_body, read_bytes
from services.gateway.context import gateway_of
from services.gateway.credentials import bearer_key
from services.gateway.dialects.dialect import Admit, LooseQuery
from services.gateway.dialects.keys import KEY_HEADER, ApiKeys
from services.gateway.dialects.serving import ROOT
from services.gateway.dialects.worker import app_manifest, pages
from services.gateway.dialects.worker.app_manifest import STATE_SECONDS, State, States
from services.gateway.dialects.worker.service_models import KEY_BEGINNING, ClaudeSetupDone, ClaudeSetupRequest
from services.gateway.dialects.worker.service_settings import ServiceSettings, origin_of
from services.gateway.fields import refused
from services.gateway.operations import Answer, Operation, json_response
from services.gateway.problems import FieldProblemError, ProblemError
from services.gateway.query import read_query
from services.jobs.errors import SecretsError

COOKIE = "quarterdeck_gh_setup"
_FORM = "application/x-www-form-urlencoded"
_KEY_FIELD = "anthropicApiKey"
_MOST_FORM_FIELDS = 20


class SetupQuery(LooseQuery):
    redirect_url: Annotated[str, Field(max_length=2_000)] | None = Field(
        None, alias="redirect_url", description="where to go at the end; ignored unless its origin is allowed"
    )
    organization: str | None = Field(None, description="for which the App is made; default: the user's own account")


class CallbackQuery(LooseQuery):
    code: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,200}$", description="of GitHub, good once")]
    state: Annotated[str, Field(min_length=1, max_length=8_000, description="as it was given to GitHub")]


class Setup:
    """``server``: GitHub's pages. ``key``: what the API's requests bear, if anything; ``admit``: lets those in."""

    def __init__(self, settings: ServiceSettings, *, server: str, key: SecretStr, admit: Admit) -> None:
        self._origins = settings.origins
        self._public_url = settings.public_url
        self._server = server.rstrip("/")
        self._states = States(settings.state_key())
        self._admit = _from_browsers(key, admit)

    async def begin(self, request: web.Request) -> web.StreamResponse:
        """A page that posts the manifest to GitHub."""
        self._admit(request)
        query = read_query(request, SetupQuery)
        address, notes = self._address(request), []
        redirect_url = query.redirect_url if self._may_lead_to(query.redirect_url) else None
        if query.redirect_url and redirect_url is None:
            notes.append("The redirect_url is not used: its origin is none that WORKER_CORS_ORIGINS allows.")
        if not app_manifest.is_reachable(address):
            notes.append(
                f"GitHub cannot reach {address}: have QUARTERDECK_PUBLIC_URL name an address that it can, or it will "
                "refuse the manifest."
            )
        if urlsplit(address).hostname != request.url.host:
            notes.append(f"Open this page at {address}/gh-setup: GitHub leads back to there, in this same browser.")
        state = self._states.new(redirect_url)
        action = app_manifest.posted_to(self._server, query.organization, self._states.sign(state))
        described = orjson.dumps(app_manifest.manifest(address)).decode()
        response = pages.github_setup(action, described, server=origin_of(self._server), notes=notes)
        self._remember(request, response, state)
        return response

    async def finish(self, request: web.Request) -> web.StreamResponse:
        """Where GitHub sends the browser: the code is exchanged by a vcs, which stores the App's secrets."""
        self._admit(request)
        if request.method == "HEAD":
            raise ProblemError(
                HTTPStatus.METHOD_NOT_ALLOWED, "use GET: the code is good once", headers={"Allow": "GET"}
            )
        query = read_query(request, CallbackQuery)
        state = self._states.read(query.state, nonce=request.cookies.get(COOKIE, ""))
        app = await gateway_of(request).vcs.set_up_app(query.code)
        installation_url = f"{app.url.rstrip('/')}/installations/new"
        if state.redirect_url is not None:
            response = web.Response(
                status=HTTPStatus.SEE_OTHER, headers={"Location": _led_to(state.redirect_url, installation_url)}
            )
        else:
            response = pages.github_done(app.name or app.slug, installation_url)
        response.del_cookie(COOKIE, path=self._cookie_path(request))
        return response

    async def ask_for_key(self, request: web.Request) -> web.StreamResponse:
        self._admit(request)
        return pages.claude_setup(action=f"{request.app[ROOT]}/claude-setup", beginning=KEY_BEGINNING)

    async def store_key(self, request: web.Request) -> web.StreamResponse:
        """From a program as JSON, from the page as its form."""
        self._admit(request)
        is_form = request.content_type.lower() == _FORM
        self._refuse_strangers(request, is_form=is_form)
        wanted = await _from_form(request) if is_form else (await read_body(request, ClaudeSetupRequest))[0]
        try:
            await gateway_of(request).client_settings.set_key(
                request[CLIENT], wanted.anthropic_api_key.get_secret_value()
            )
        except SecretsError as error:
            raise ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, f"the key is not stored: {error}") from error
        return pages.claude_done() if is_form else json_response(request, ClaudeSetupDone())

    def _refuse_strangers(self, request: web.Request, *, is_form: bool) -> None:
        """Pages of others: a browser sends a form anywhere, with what it knows of whoever sits before it."""
        origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
        is_own = origin in (None, str(request.url.origin())) if site is None else site in ("same-origin", "none")
        if not is_own and (is_form or origin not in self._origins):
            raise ProblemError(HTTPStatus.FORBIDDEN, "Origin: a page of another site may not set this server up")

    def _address(self, request: web.Request) -> str:
        """Where this API is reached from outside, without a slash at its end."""
        return (self._public_url or str(request.url.origin())) + request.app[ROOT]

    def _may_lead_to(self, url: str | None) -> bool:
        try:
            return url is not None and url.isprintable() and "\\" not in url and origin_of(url) in self._origins
        except ValueError:
            return False

    def _remember(self, request: web.Request, response: web.Response, state: State) -> None:
        """Lax: GitHub leads the browser back, which is another site's doing."""
        response.set_cookie(
            COOKIE,
            state.nonce,
            max_age=STATE_SECONDS,
            path=self._cookie_path(request),
            httponly=True,
            samesite="Lax",
            secure=self._address(request).startswith("https:"),
        )

    def _cookie_path(self, request: web.Request) -> str:
        """As the browser sees it, which may come by way of a proxy with a folder of its own."""
        return f"{urlsplit(self._address(request)).path}/gh-setup"


def _from_browsers(key: SecretStr, admit: Admit) -> Admit:
    """A browser cannot bear a key, but asks its user for a password."""
    if not key.get_secret_value():
        return admit
    keys = ApiKeys([key.get_secret_value()], realm="worker")

    def admitted(request: web.Request) -> None:
        is_borne = KEY_HEADER in request.headers or bearer_key(request.headers.get("Authorization", "")) is not None
        if is_borne:
            admit(request)
        else:
            keys.admit_browser(request)

    return admitted


def _led_to(url: str, installation_url: str) -> str:
    """``url`` with where the App is installed as one more parameter."""
    address, mark, fragment = url.partition("#")
    joint = "&" if "?" in address else "?"
    return f"{address}{joint}installation_url={quote(installation_url, safe='')}{mark}{fragment}"


async def _from_form(request: web.Request) -> ClaudeSetupRequest:
    body = await read_bytes(request)
    try:
        fields = dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FORM_FIELDS))
    except ValueError as error:
        raise FieldProblemError("body", "is no form as browsers send it") from error
    try:
        # Spaces around it are a hand's, in copying.
        return ClaudeSetupRequest.model_validate({_KEY_FIELD: fields.get(_KEY_FIELD, "").strip()})
    except ValidationError as error:
        raise refused(error) from error


_PAGE = (Answer(200, "a page", media_type="text/html"),)


def operations(setup: Setup) -> tuple[Operation, ...]:
    """They are public here, since they admit by themselves: browsers have ways of their own to send a key."""
    return (
        Operation(
            method="GET",
            path="/gh-setup",
            name="beginGitHubSetup",
            summary="A page that has GitHub make an App for this server",
            handler=setup.begin,
            query=SetupQuery,
            is_public=True,
            answers=_PAGE,
        ),
        Operation(
            method="GET",
            path="/gh-setup/callback",
            name="finishGitHubSetup",
            summary="Where GitHub leads the browser once the App is made",
            handler=setup.finish,
            query=CallbackQuery,
            is_public=True,
            answers=(*_PAGE, Answer(303, "the `redirect_url`, with `installation_url` as a parameter")),
        ),
        Operation(
            method="GET",
            path="/claude-setup",
            name="askForClaudeKey",
            summary="A page that takes the Anthropic API key",
            handler=setup.ask_for_key,
            query=LooseQuery,
            is_public=True,
            answers=_PAGE,
        ),
        Operation(
            method="POST",
            path="/claude-setup",
            name="storeClaudeKey",
            summary="Store the Anthropic API key, encrypted; also as the page's form",
            handler=setup.store_key,
            query=LooseQuery,
            body=ClaudeSetupRequest,
            is_public=True,
            answers=(Answer(200, "it is stored", ClaudeSetupDone),),
        ),
    )
