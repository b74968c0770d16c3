"""How each process of the stack is run: its command, its environment and no more, its health, its end.

The seconds that each may take to stop add up to less than the 10 that the whole stack may take.
"""

import base64
import os
import sys
from dataclasses import dataclass
from signal import Signals

from quarterdeck.offline_model.wire import MODEL_NAME
from quarterdeck.stack.environment import AGENT, GATEWAY, NETWORK, SERVICE, VCS, base_environment, passed_on
from quarterdeck.stack.files import kept_secret
from quarterdeck.stack.options import DataFolder, StackOptions
from quarterdeck.stack.probes import http_health
from quarterdeck.stack.processes import Probe, ProcessSpec

HOST = "127.0.0.1"
READY_SECONDS = 30.0
DRAIN_SECONDS = {"gateway": 0.8, "scheduler": 0.5, "agent": 1.8, "vcs": 0.5}
"""What a service is told to take for what it is at; the rest of its stop goes into closing its connections."""
STOP_SECONDS = {"gateway": 1.5, "scheduler": 1.0, "agent": 2.5, "vcs": 1.0, "offline-model": 0.4, "migrate": 2.0}
EXIT_MISCONFIGURED = 2
WORKTREES = "worktrees"
"""Where the vcs has its worktrees within its folder."""
OFFLINE_KEY = "offline-model"
"""The SDK wants a key; the offline model takes any."""


@dataclass(frozen=True)
class ServiceSpecs:
    """Makes the specs. ``database_url`` and ``nats_url`` carry their credentials."""

    options: StackOptions
    database_url: str
    nats_url: str

    @property
    def _folder(self) -> DataFolder:
        return DataFolder(self.options.data_dir)

    @property
    def api_key(self) -> str:
        """The bootstrap key of the client ``default``; the same at every start."""
        return kept_secret(self._folder.secret("api_key"), prefix="qd_")

    @property
    def grpc_address(self) -> str | None:
        """Where this machine reaches the gateway's gRPC; None where it is not served."""
        port = self.options.grpc_port
        return f"{reachable(self.options.host)}:{port}" if port is not None else None

    def migrate(self) -> ProcessSpec:
        """Bring the database up to date; it ends by itself."""
        return self._spec("migrate", "services.jobs.migrate", environment={"DATABASE_URL": self.database_url})

    def offline_model(self, port: int) -> ProcessSpec:
        module = ("quarterdeck.offline_model", "--port", str(port))
        own = passed_on(*(name for name in os.environ if name.startswith("QUARTERDECK_OFFLINE_")))
        return self._spec("offline-model", *module, environment=own, probe=http_health(f"{HOST}:{port}"))

    def vcs(self, port: int, health_port: int) -> ProcessSpec:
        own = {
            "QUARTERDECK_VCS_LISTEN": f"{HOST}:{port}",
            "QUARTERDECK_VCS_ROOT": str(self._folder.vcs),
            "QUARTERDECK_VCS_TOKEN": self._vcs_token,
            "QUARTERDECK_ALLOW_LOCAL_REPOSITORIES": str(self.options.allow_local_repositories).lower(),
            "QUARTERDECK_SECRET_KEY": self._secret_keys,
        }
        return self._service("vcs", health_port, own | passed_on(*NETWORK, *VCS))

    def scheduler(self, health_port: int) -> ProcessSpec:
        return self._service("scheduler", health_port, {})

    def agent(self, number: int, health_port: int, *, vcs_address: str, model_url: str | None) -> ProcessSpec:
        """``model_url``: the offline model's, where there is one."""
        own = {
            "QUARTERDECK_AGENT_NAME": f"agent-{number}",
            "QUARTERDECK_AGENT_CAPACITY": str(self.options.agent_capacity),
            "QUARTERDECK_VCS_ADDRESS": vcs_address,
            "QUARTERDECK_VCS_TOKEN": self._vcs_token,
        }
        model = self._model(model_url) | self._secrets(model_url)
        return self._service("agent", health_port, own | model | passed_on(*NETWORK, *AGENT), number=number)

    def gateway(self, port: int, *, model_url: str | None = None) -> ProcessSpec:
        """It serves its health at its own address. ``model_url``: as for an agent."""
        own = {
            "QUARTERDECK_HOST": self.options.host,
            "QUARTERDECK_PORT": str(port),
            "QUARTERDECK_API_KEY": self.api_key,
            "QUARTERDECK_VCS_TOKEN": self._vcs_token,
            "CODEBOT_WORK_DIR": str(self._folder.vcs / WORKTREES),
        }
        if self.options.grpc_port is not None:
            own["QUARTERDECK_GRPC_LISTEN"] = f"{self.options.host}:{self.options.grpc_port}"
        if model_url is None:  # agents do not start without one
            own["QUARTERDECK_AGENTS_HAVE_KEY"] = "true"
        own |= self._secrets(model_url) | passed_on(*GATEWAY)
        return self._connected("gateway", own, health=f"{reachable(self.options.host)}:{port}")

    @property
    def _vcs_token(self) -> str:
        return kept_secret(self._folder.secret("vcs_token"))

    @property
    def _secret_keys(self) -> str:
        """What seals secrets; the kept key goes on opening what it sealed where another was told since."""
        told, kept = self.options.secret_key, self._folder.secret("secret_key")
        if told is not None and not kept.exists():
            return told
        made = kept_secret(kept, form=lambda secret: base64.urlsafe_b64encode(secret).decode())
        return made if told is None else f"{told},{made}"

    def _model(self, model_url: str | None) -> dict[str, str]:
        if model_url:  # which costs nothing: a budget in USD has no use for its price
            return {
                "ANTHROPIC_API_KEY": OFFLINE_KEY,
                "CLAUDE_MODEL": self.options.claude_model or MODEL_NAME,
                "QUARTERDECK_ALLOW_UNPRICED": "true",
            }
        return _given({"ANTHROPIC_API_KEY": self.options.anthropic_api_key, "CLAUDE_MODEL": self.options.claude_model})

    def _secrets(self, model_url: str | None) -> dict[str, str]:
        """What both who takes secrets and who uses them must know alike."""
        return _given(
            {
                "ANTHROPIC_BASE_URL": model_url or self.options.anthropic_base_url,
                "MODEL_BASE_URLS": self.options.model_base_urls,
                "QUARTERDECK_SECRET_KEY": self._secret_keys,
            }
        )

    def _service(
        self, service: str, health_port: int, own: dict[str, str], *, number: int | None = None
    ) -> ProcessSpec:
        health = f"{HOST}:{health_port}"
        return self._connected(service, own | {"QUARTERDECK_HEALTH_ADDRESS": health}, health=health, number=number)

    def _connected(self, service: str, own: dict[str, str], *, health: str, number: int | None = None) -> ProcessSpec:
        shared = {
            "DATABASE_URL": self.database_url,
            "NATS_URL": self.nats_url,
            "QUARTERDECK_DRAIN_SECONDS": str(DRAIN_SECONDS[service]),
            **passed_on(*SERVICE),
        }
        return self._spec(
            service,
            f"services.{service}",
            environment=shared | own,
            probe=http_health(health),
            number=number,
            health_address=health,
        )

    def _spec(
        self,
        kind: str,
        *module: str,
        environment: dict[str, str],
        probe: Probe | None = None,
        number: int | None = None,
        health_address: str | None = None,
    ) -> ProcessSpec:
        name = kind if number is None else f"{kind}-{number}"
        return ProcessSpec(
            name=name,
            # -P: the data folder, where it runs, must not shadow modules.
            command=(sys.executable, "-P", "-m", *module),
            environment=base_environment() | {"QUARTERDECK_LOG_FORMAT": "json"} | environment,
            log=self._folder.log(name),
            folder=self.options.data_dir,
            probe=probe,
            ready_seconds=READY_SECONDS,
            stop=((Signals.SIGTERM, STOP_SECONDS[kind]),),
            health_address=health_address,
            misconfigured_exit=EXIT_MISCONFIGURED,
        )


def _given(variables: dict[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if value}


def reachable(host: str) -> str:
    """Where this machine reaches a server that listens on ``host``."""
    return HOST if host in {"0.0.0.0", "::", ""} else host  # noqa: S104 (compared, not bound)
