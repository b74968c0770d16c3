"""GitHub, GitHub Enterprise Server and GHE.com as a forge; the rest of the service needs no more than these names."""

from services.vcs.forges.github.config import GitHubAddress, GitHubConfig, GitHubConfigError
from services.vcs.forges.github.credentials import GitHubCredentials, JobCredentials
from services.vcs.forges.github.forge import GitHubForge
from services.vcs.forges.github.pace import CREATES_PER_MINUTE, LocalPace, Pace

__all__ = [
    "CREATES_PER_MINUTE",
    "GitHubAddress",
    "GitHubConfig",
    "GitHubConfigError",
    "GitHubCredentials",
    "GitHubForge",
    "JobCredentials",
    "LocalPace",
    "Pace",
]
