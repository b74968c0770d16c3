"""What is known of a running stack: ``stack.json``, for people, the CLI and tests. It holds secrets."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from quarterdeck.stack.files import write_private


@dataclass(frozen=True, kw_only=True)
class StackInfo:
    """``address``: the gateway, as a URL. ``model``: the name asked for, None for the agent's default.
    ``model_url``: where the offline model listens. ``subscriber_nats_url``: NATS with credentials that only read the
    events, None where the server is not ours. ``grpc_address``: the gateway's gRPC as `host:port`, None where it is not
    served. ``processes``: pids by name. ``started_at``: ISO 8601, UTC.
    """

    address: str
    api_key: str = field(repr=False)
    model: str | None
    offline_model: bool
    model_url: str | None
    database_url: str = field(repr=False)
    nats_url: str = field(repr=False)
    subscriber_nats_url: str | None = field(default=None, repr=False)
    grpc_address: str | None = None
    vcs_address: str
    data_dir: str
    pid: int
    processes: dict[str, int]
    started_at: str
    version: str


def write_info(path: Path, info: StackInfo) -> None:
    write_private(path, json.dumps(asdict(info), indent=2) + "\n")


def read_info(path: Path) -> StackInfo | None:
    """None where no stack is up, or a stack of another version wrote it."""
    try:
        return StackInfo(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None
