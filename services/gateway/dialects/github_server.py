"""Where repositories are that a published API names by owner and name alone: the GitHub that the vcs service uses."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from services.gateway.dialects.settings import DialectSettings

_PUBLIC_SERVER = "https://github.com"
_ENTERPRISE_PATH = "/api/v3"
_DATA_RESIDENCY_DOMAIN = ".ghe.com"


def _refuse_bad_address(address: str) -> str:
    parts = urlsplit(address)
    if parts.scheme not in ("https", "http") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise ValueError("must be a URL such as https://github.com, without a user name")
    return address.rstrip("/")


class GitHubServerSettings(DialectSettings):
    github_api_url: Annotated[str, Field(validation_alias="GITHUB_API_URL")] = ""
    github_server_url: Annotated[
        Annotated[str, AfterValidator(_refuse_bad_address)] | None, Field(validation_alias="GITHUB_SERVER_URL")
    ] = None
    """None: taken from the API's address where that tells, else GitHub.com."""

    @property
    def server_url(self) -> str:
        """Without a slash at its end."""
        if self.github_server_url is not None:
            return self.github_server_url
        api = urlsplit(self.github_api_url.rstrip("/"))
        if api.hostname and api.path == _ENTERPRISE_PATH:
            return f"{api.scheme}://{api.netloc}"
        if api.netloc.startswith("api.") and api.netloc.endswith(_DATA_RESIDENCY_DOMAIN):
            return f"{api.scheme}://{api.netloc.removeprefix('api.')}"
        return _PUBLIC_SERVER
