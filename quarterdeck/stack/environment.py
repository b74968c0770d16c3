"""What of our own environment a child process may see: enough to run, no secret."""

import os
from collections.abc import Mapping
from pathlib import Path

BASE = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")
NETWORK = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)
"""For the processes that talk to the outside: the model's API and Git remotes."""

AGENT = (
    "CLAUDE_MAX_TOKENS",
    "CLAUDE_TEMPERATURE",
    "QUARTERDECK_EFFORT",
    "QUARTERDECK_MAX_TURNS",
    "QUARTERDECK_SYSTEM_PROMPT",
    "QUARTERDECK_PERMISSION_MODE",
    "QUARTERDECK_ALLOWED_COMMANDS",
    "QUARTERDECK_NETWORK",
    "QUARTERDECK_RUN_BUDGET_USD",
    "QUARTERDECK_RUN_BUDGET_TOKENS",
    "QUARTERDECK_ALLOW_UNPRICED",
    "QUARTERDECK_ALLOW_PRIVATE_ADDRESSES",
    "SANDBOX",
    "SANDBOX_PATHS",
)
"""What agents are told of how to work, where somebody has set it."""

VCS = (
    "GITHUB_TOKEN",
    "GITHUB_APP_ID",
    "GITHUB_APP_PRIVATE_KEY",
    "GITHUB_APP_PRIVATE_KEY_PATH",
    "GITHUB_APP_INSTALLATION_ID",
    "GITHUB_API_URL",
    "GITHUB_SERVER_URL",
    "QUARTERDECK_PULL_REQUESTS_PER_MINUTE",
    "QUARTERDECK_FORGE_POLL_SECONDS",
    "QUARTERDECK_GIT_ALLOWED_REMOTES",
    "QUARTERDECK_GIT_ALLOW_INSECURE_HTTP",
    "QUARTERDECK_GIT_CREDENTIALS_FILE",
    "QUARTERDECK_GIT_KNOWN_HOSTS",
    "QUARTERDECK_GIT_MAX_FILE_BYTES",
    "QUARTERDECK_GIT_LFS",
    "QUARTERDECK_CLONE_FILTER",
    "QUARTERDECK_CLONE_DEPTH",
    "QUARTERDECK_DISK_BUDGET_BYTES",
    "QUARTERDECK_SPARE_WORKTREES",
    "QUARTERDECK_DISK_LEAST_FREE_SHARE",
    "QUARTERDECK_MIRRORS_KEPT_DAYS",
    "QUARTERDECK_RESCUED_KEPT_DAYS",
    "QUARTERDECK_PUBLICATIONS",
    "QUARTERDECK_VCS_ROOT",
    "SSH_AUTH_SOCK",
)
"""Which forges and remotes vcs reaches, and as whom, where somebody has set it. Nobody else is told."""

GATEWAY = (
    "GITHUB_WEBHOOK_SECRET",
    "QUARTERDECK_WEBHOOK_ISSUES",
    "QUARTERDECK_WEBHOOK_REVIEWS",
    "QUARTERDECK_WEBHOOK_CHECK_FIXES",
    "QUARTERDECK_WORKER_ISSUES",
    "QUARTERDECK_WORKER_REVIEWS",
    "QUARTERDECK_WORKER_CHECK_FIXES",
    "QUARTERDECK_CODEBOT_ISSUES",
    "QUARTERDECK_CODEBOT_REVIEWS",
    "QUARTERDECK_CODEBOT_CHECK_FIXES",
    "QUARTERDECK_WEBHOOK_ACTORS",
    "QUARTERDECK_WEBHOOK_REPOSITORIES",
    "QUARTERDECK_BOT_LOGIN",
    "QUARTERDECK_SYNC_WAIT_SECONDS",
    "CODEBOT_API_KEYS",
    "CODEBOT_MAX_WORKERS",
    "CODEBOT_MAX_QUEUE_SIZE",
    "CODEBOT_TASK_RETENTION",
    "CODEBOT_WORK_DIR",
    "QUARTERDECK_CODEBOT_PORT",
    "QUARTERDECK_CODY_PORT",
    "QUARTERDECK_CODY_API_KEY",
    "QUARTERDECK_CODY_NO_AUTH",
    "CODY_MAX_REPOSITORIES",
    "CODY_MAX_WORKERS",
    "CODY_MAX_QUEUE_SIZE",
    "ALLOWED_REPOSITORIES",
    "GITHUB_API_URL",
    "QUARTERDECK_WORKER_PORT",
    "QUARTERDECK_WORKER_API_KEY",
    "QUARTERDECK_WORKER_NO_AUTH",
    "QUARTERDECK_WORKER_MAX_SESSIONS",
    "WORKER_RATE_LIMIT_PER_MINUTE",
    "WORKER_RATE_LIMIT_PER_HOUR",
    "WORKER_RATE_LIMIT_PER_DAY",
    "WORKER_MAX_DAILY_TOKENS",
    "WORKER_MAX_DAILY_COST_USD",
    "WORKER_CORS_ORIGINS",
    "WORKER_TRUSTED_PROXIES",
    "ENVIRONMENT",
    "NODE_ENV",
    "QUARTERDECK_PUBLIC_URL",
    "QUARTERDECK_AGENTS_HAVE_KEY",
    "GITHUB_APP_ID",
    "GITHUB_APP_INSTALLATION_ID",
    "AGENT_API_SECRET",
    "MAX_CONCURRENT_JOBS",
    "QUARTERDECK_VCS_ROOT",
    "WORKTREES_DIR",
    "QUARTERDECK_ORCHESTRATOR_PORT",
    "GITHUB_SERVER_URL",
)
"""What the gateway is told of webhooks and of the published APIs, where somebody has set it."""

SERVICE = ("QUARTERDECK_LOG_LEVEL",)
"""What every service is told, where somebody has set it."""


PATHS = (
    "GITHUB_APP_PRIVATE_KEY_PATH",
    "QUARTERDECK_GIT_CREDENTIALS_FILE",
    "QUARTERDECK_GIT_KNOWN_HOSTS",
    "QUARTERDECK_VCS_ROOT",
    "CODEBOT_WORK_DIR",
    "WORKTREES_DIR",
)
"""Files and folders, which are meant from where the stack is started; its processes run elsewhere."""


def passed_on(*names: str, source: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Those of the variables that are set."""
    found = {name: source[name] for name in names if source.get(name)}
    return found | {name: str(Path(found[name]).expanduser().absolute()) for name in PATHS if name in found}


# gRPC's fork handlers complain at each subprocess; nothing here forks without an exec.
GRPC = {"GRPC_ENABLE_FORK_SUPPORT": "0"}


def base_environment() -> dict[str, str]:
    """What every process gets."""
    return passed_on(*BASE) | GRPC
