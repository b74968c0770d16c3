"""Takes over the App that GitHub has just made by a manifest: a code, good once and for an hour, for its secrets."""

from __future__ import annotations

import asyncio
from typing import Final

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.vcs.errors import AppSetUpUnclearError, ForgeNotFoundError, ForgeRefusedError, ForgeUnavailableError
from services.vcs.forges.github.answers import Account
from services.vcs.forges.github.config import GitHubAddress

TIMEOUT_SECONDS: Final = 30.0
_CONNECT_SECONDS: Final = 10.0
_CREATED: Final = 201
_FIRST_OF_SERVER: Final = 500
UNCLEAR: Final = (
    "whether it handed out the App's secrets is not known, and the code is good only once: where the App is on GitHub"
    " already, delete it there, and set it up from the beginning"
)
_NOT_GOOD: Final = "GitHub does not know the code (any more): it is good once, for an hour; set the App up again"
_REFUSED: Final = "GitHub refuses to hand out the App ({status}); set it up again"


class MadeApp(BaseModel):
    """``pem``: the private key. ``webhook_secret``: None: it has no webhook."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: int = Field(ge=1)
    slug: str = Field(min_length=1)
    name: str
    owner: Account
    html_url: str
    pem: str = Field(min_length=1, repr=False)
    client_secret: str = Field(repr=False)
    webhook_secret: str | None = Field(default=None, repr=False)


async def converted(address: GitHubAddress, code: str) -> MadeApp:
    """``code``: of URL-safe characters. No credentials are needed for it.

    Raises ``ForgeNotFoundError`` (no such code), ``ForgeRefusedError``, ``ForgeUnavailableError`` (nothing was asked),
    ``AppSetUpUnclearError``. None of them tells the code.
    """
    timeout = httpx.Timeout(TIMEOUT_SECONDS, connect=_CONNECT_SECONDS)
    url = f"{address.api_url}/app-manifests/{code}/conversions"
    headers = {"Accept": "application/vnd.github+json", "User-Agent": "Quarterdeck"}
    try:
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            httpx.AsyncClient(timeout=timeout, follow_redirects=False) as client,
        ):
            response = await client.post(url, headers=headers)
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        words = f"GitHub could not be reached ({type(error).__name__}); try the same again within the hour"
        raise ForgeUnavailableError(words) from None
    except (httpx.HTTPError, TimeoutError) as error:
        # Not chained: its words hold the address, and so the code.
        raise _unclear(f"GitHub did not answer in full ({type(error).__name__})") from None
    return _made(response)


def _made(response: httpx.Response) -> MadeApp:
    if response.status_code == httpx.codes.NOT_FOUND:
        raise ForgeNotFoundError(_NOT_GOOD)
    if response.status_code >= _FIRST_OF_SERVER:
        raise _unclear(f"GitHub failed ({response.status_code})")
    if response.status_code != _CREATED:
        raise ForgeRefusedError(_REFUSED.format(status=response.status_code))
    try:
        return MadeApp.model_validate_json(response.content)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in wrong["loc"]) or "the body"
        raise _unclear(f"GitHub's answer cannot be read ({field})") from None


def _unclear(what: str) -> AppSetUpUnclearError:
    return AppSetUpUnclearError(f"{what}: {UNCLEAR}")
