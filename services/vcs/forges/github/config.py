"""Which GitHub, and as whom. Pure: it is given its values, and reads neither environment nor file."""

import hashlib
import ipaddress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from services.vcs.errors import ForgeRefusedError
from services.vcs.git.repositories import Repository

PUBLIC_API: Final = "https://api.github.com"
_ENTERPRISE_PATH: Final = "/api/v3"
_DATA_RESIDENCY_DOMAIN: Final = ".ghe.com"
_SLUG_PARTS: Final = 2


class GitHubConfigError(ValueError):
    """The settings name no GitHub, or no way in to it. The message says which setting, and what to write."""


@dataclass(frozen=True, slots=True)
class Slug:
    """A repository on GitHub. Case does not tell two apart."""

    owner: str
    name: str

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


@dataclass(frozen=True, slots=True)
class GitHubAddress:
    """Which GitHub. ``server_url``: where people and Git go; empty: taken from ``api_url`` where that is GitHub.com's,
    GHE.com's, or ends in /api/v3. Raises ``GitHubConfigError``.
    """

    api_url: str = PUBLIC_API
    server_url: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "api_url", _checked_url(self.api_url, "GITHUB_API_URL"))
        server_url = self.server_url or _server_of(self.api_url)
        object.__setattr__(self, "server_url", _checked_url(server_url, "GITHUB_SERVER_URL"))

    def with_token(self, token: str, *, source: str = "") -> "GitHubConfig":
        return GitHubConfig(token=token, api_url=self.api_url, server_url=self.server_url, source=source)

    def with_app(self, app_id: int, private_key: str, *, source: str = "") -> "GitHubConfig":
        """Raises ``GitHubConfigError`` for what is no private key."""
        return GitHubConfig(
            app_id=str(app_id),
            private_key=private_key,
            api_url=self.api_url,
            server_url=self.server_url,
            source=source,
        )


@dataclass(frozen=True, slots=True)
class GitHubConfig:
    r"""Either ``token``, or ``app_id`` with ``private_key`` (PEM; ``\n`` may stand for its line ends).

    ``installation_id``: None: the App's installation is found for each owner. ``api_url``, ``server_url``: as
    ``GitHubAddress`` has them. ``source``: where the credentials are from, in words; empty: the environment.
    Raises ``GitHubConfigError``.
    """

    token: str = field(default="", repr=False)
    app_id: str = ""
    private_key: str = field(default="", repr=False)
    installation_id: int | None = None
    api_url: str = PUBLIC_API
    server_url: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        address = GitHubAddress(self.api_url, self.server_url)
        object.__setattr__(self, "api_url", address.api_url)
        object.__setattr__(self, "server_url", address.server_url)
        object.__setattr__(self, "private_key", self.private_key.replace("\\n", "\n").strip())
        if bool(self.token) == bool(self.app_id):
            raise GitHubConfigError("give GitHub either GITHUB_TOKEN or GITHUB_APP_ID with GITHUB_APP_PRIVATE_KEY")
        if self.app_id:
            _check_key(self.private_key)

    @property
    def credential_settings(self) -> str:
        """What to look at where GitHub does not accept the credentials."""
        if self.source:
            return self.source
        return "GITHUB_TOKEN" if self.token else "GITHUB_APP_ID and GITHUB_APP_PRIVATE_KEY"

    @property
    def scope(self) -> str:
        """Names address and credential without telling them: what the limits of GitHub go by."""
        parts = (self.api_url, self.token or f"app {self.app_id}")
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @property
    def graphql_url(self) -> str:
        if self.api_url.endswith(_ENTERPRISE_PATH):
            return f"{self.api_url.removesuffix('/v3')}/graphql"
        return f"{self.api_url}/graphql"

    def is_here(self, repository: Repository) -> bool:
        """Whether the repository is on this GitHub, whatever its URL's scheme."""
        return self._slug(repository) is not None

    def slug_of(self, repository: Repository) -> Slug:
        """Raises ``ForgeRefusedError`` where the repository is not on this GitHub."""
        slug = self._slug(repository)
        if slug is None:
            raise ForgeRefusedError(
                f"{repository.key} is not on {self.server_url}; use a repository there, or set GITHUB_API_URL"
            )
        return slug

    def _slug(self, repository: Repository) -> Slug | None:
        host, _, path = repository.key.partition("/")
        parts = path.split("/")
        if host != urlsplit(self.server_url).netloc or len(parts) != _SLUG_PARTS:
            return None
        return Slug(*parts)


def _server_of(api_url: str) -> str:
    if api_url == PUBLIC_API:
        return "https://github.com"
    url = urlsplit(api_url)
    if url.path == _ENTERPRISE_PATH:
        return f"{url.scheme}://{url.netloc}"
    if url.netloc.startswith("api.") and url.netloc.endswith(_DATA_RESIDENCY_DOMAIN) and not url.path:
        return f"{url.scheme}://{url.netloc.removeprefix('api.')}"
    raise GitHubConfigError(f"GITHUB_API_URL is {api_url}, which does not tell where people go; set GITHUB_SERVER_URL")


def _checked_url(address: str, setting: str) -> str:
    """Without a slash at its end and in lower case up to its path."""
    url = urlsplit(address.rstrip("/"))
    if url.scheme not in {"https", "http"} or not url.hostname or url.username or url.query or url.fragment:
        raise GitHubConfigError(f"{setting} is no plain https URL; write one such as {PUBLIC_API}")
    if url.scheme == "http" and not _is_loopback(url.hostname):
        raise GitHubConfigError(f"{setting} is http, which would show the token to the network; write https")
    netloc = url.netloc.lower().removesuffix(":443" if url.scheme == "https" else ":80")
    return f"{url.scheme}://{netloc}{url.path}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_key(pem: str) -> None:
    advice = "GITHUB_APP_PRIVATE_KEY must hold the whole .pem file that GitHub made for the App"
    if not pem:
        raise GitHubConfigError(f"GITHUB_APP_PRIVATE_KEY is empty; {advice}")
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError):
        # Not chained: the reader of the key may quote it.
        raise GitHubConfigError(f"GITHUB_APP_PRIVATE_KEY cannot be read as a key; {advice}") from None
    if not isinstance(key, RSAPrivateKey):
        raise GitHubConfigError(f"GITHUB_APP_PRIVATE_KEY is no RSA key; {advice}")
