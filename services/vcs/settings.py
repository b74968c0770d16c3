"""The vcs service's settings, and what is made of them. Whatever cannot be used is refused at the start."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from services.runtime.grpc import GrpcAddress
from services.runtime.settings import GrpcSettings, SealingSettings, refuse
from services.vcs.disk.usage import DiskLimits
from services.vcs.errors import CredentialsError
from services.vcs.forges.github import CREATES_PER_MINUTE, GitHubAddress, GitHubConfig, GitHubConfigError
from services.vcs.forges.github.config import PUBLIC_API
from services.vcs.git.addresses import AllowedRemotes, RemoteAccess
from services.vcs.git.credentials import StaticCredentials
from services.vcs.git.runner import MAX_FILE_BYTES
from services.vcs.mirrors.options import MirrorOptions


def _remotes(text: str) -> str:
    AllowedRemotes.parse(text)
    return text


def _filter(text: str) -> str:
    MirrorOptions(filter=text)
    return text


class GitHubSettings(GrpcSettings):
    """Which GitHub, and as whom: by a token, or as an App; by neither, as the App that was set up here."""

    github_token: Annotated[SecretStr | None, Field(validation_alias="GITHUB_TOKEN")] = None
    github_app_id: Annotated[str, Field(validation_alias="GITHUB_APP_ID", pattern=r"^\d*$")] = ""
    github_app_private_key: Annotated[SecretStr | None, Field(validation_alias="GITHUB_APP_PRIVATE_KEY")] = None
    """PEM; `\\n` may stand for its line ends."""
    github_app_private_key_path: Annotated[Path | None, Field(validation_alias="GITHUB_APP_PRIVATE_KEY_PATH")] = None
    github_app_installation_id: Annotated[int | None, Field(validation_alias="GITHUB_APP_INSTALLATION_ID", ge=1)] = None
    """None: found for each owner."""
    github_api_url: Annotated[str, Field(validation_alias="GITHUB_API_URL")] = PUBLIC_API
    """https://HOST/api/v3 for GitHub Enterprise Server."""
    github_server_url: Annotated[str, Field(validation_alias="GITHUB_SERVER_URL")] = ""
    """Where people and Git go; taken from the API's address where it tells."""
    pull_requests_per_minute: Annotated[float, Field(gt=0, le=1_000)] = CREATES_PER_MINUTE
    """Most pull requests that the whole fleet opens in a minute."""
    forge_poll_seconds: Annotated[float, Field(ge=1, le=86_400)] = 60
    """How often a forge is asked about each open changeset, where no webhook tells of it."""

    @property
    def github_address(self) -> GitHubAddress:
        try:
            return GitHubAddress(self.github_api_url, self.github_server_url)
        except GitHubConfigError as error:
            refuse("GITHUB_*", str(error))

    @property
    def github(self) -> GitHubConfig | None:
        """None: no credentials are set."""
        if self.github_token is None and not self.github_app_id:
            return None
        try:
            return GitHubConfig(
                token=self.github_token.get_secret_value() if self.github_token else "",
                app_id=self.github_app_id,
                private_key=self._private_key(),
                installation_id=self.github_app_installation_id,
                api_url=self.github_api_url,
                server_url=self.github_server_url,
            )
        except GitHubConfigError as error:
            refuse("GITHUB_*", str(error))

    def _private_key(self) -> str:
        if self.github_app_private_key is not None:
            return self.github_app_private_key.get_secret_value()
        if self.github_app_private_key_path is None:
            return ""
        try:
            return self.github_app_private_key_path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            refuse("GITHUB_APP_PRIVATE_KEY_PATH", f"cannot be read: {type(error).__name__}")


class RemoteSettings(GrpcSettings):
    """Which remotes Git may ask, with what, and how much it takes from them."""

    allow_local_repositories: bool = False
    """Whether a repository may be a path on this machine. Only where every client may read what this process can."""
    git_allow_insecure_http: bool = False
    """Whether a remote may be asked over http, where everybody between can read and change what is said."""
    git_allowed_remotes: Annotated[str, AfterValidator(_remotes)] = ""
    """Hosts, host:port or networks beyond the public internet that may be asked, such as git.internal,10.0.0.0/8."""
    git_credentials_file: Path | None = None
    """TOML (or .json) with a table a host: `username` and `password` or `token`. For nobody else to read."""
    git_known_hosts: Path | None = None
    """The only host keys that are accepted over ssh; none: a host's first key is accepted and remembered."""
    git_max_file_bytes: Annotated[int, Field(ge=1024**2)] = MAX_FILE_BYTES
    """The largest file that Git may write, a pack or a checked-out file."""
    git_lfs: bool = False
    """Whether runs may ask for what is in Git LFS. Its program resolves and follows addresses by itself, unchecked."""
    clone_filter: Annotated[str, AfterValidator(_filter)] = ""
    """`blob:none` or `blob:limit=1m`: mirrors leave file contents at the remote until they are needed."""
    clone_depth: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Most commits of each branch that mirrors hold; 0: all."""

    @property
    def remotes(self) -> RemoteAccess:
        return RemoteAccess(
            allowed=AllowedRemotes.parse(self.git_allowed_remotes),
            allow_insecure_http=self.git_allow_insecure_http,
            known_hosts=self.git_known_hosts,
        )

    @property
    def static_credentials(self) -> StaticCredentials:
        if self.git_credentials_file is None:
            return StaticCredentials({})
        try:
            return StaticCredentials.load(self.git_credentials_file)
        except CredentialsError as error:
            refuse("QUARTERDECK_GIT_CREDENTIALS_FILE", str(error))


class DiskSettings(GrpcSettings):
    """How much of the disk mirrors and worktrees may take, and for how long what nobody uses is kept."""

    disk_budget_bytes: Annotated[int, Field(ge=0)] = 0
    """Of mirrors and worktrees together; mirrors nobody used for longest go first. 0: no limit."""
    disk_least_free_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Of the disk, to be left free by the same means."""
    mirrors_kept_days: Annotated[float, Field(gt=0, le=3_650)] = 30
    """For mirrors that nobody used."""
    rescued_kept_days: Annotated[float, Field(gt=0, le=3_650)] = 14
    """For work that nobody released."""
    spare_worktrees: Annotated[int, Field(ge=0, le=100)] = 4
    """Most worktrees that are kept, for some hours, for the next run of one client on one repository. 0: none."""

    @property
    def disk(self) -> DiskLimits:
        return DiskLimits(
            budget_bytes=self.disk_budget_bytes,
            least_free_share=self.disk_least_free_share,
            mirrors_kept=timedelta(days=self.mirrors_kept_days),
            rescued_kept=timedelta(days=self.rescued_kept_days),
        )


class VcsSettings(GitHubSettings, RemoteSettings, DiskSettings, SealingSettings):
    vcs_listen: GrpcAddress = "127.0.0.1:8091"
    """Where the gRPC server listens, `host:port` or `unix:/path`; the agents of this node reach it here."""
    vcs_advertise: GrpcAddress | None = None
    """Where gateways reach it; none: where it listens."""
    vcs_token: SecretStr
    """The bearer token that callers give."""
    vcs_root: Path
    """Folder of mirrors and worktrees, on the volume that the node's agents share."""
    publications: Annotated[int, Field(ge=1, le=64)] = 4
    """Most publications at once."""
    node_name: str = "vcs"
