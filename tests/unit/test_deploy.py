"""The container files: what compose.yaml sets is what the services read, and nothing starts without its secrets."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet
from pydantic import AliasChoices, SecretStr
from pydantic_settings import BaseSettings

from quarterdeck.offline_model.__main__ import ENVIRONMENT_PREFIX as OFFLINE_PREFIX
from quarterdeck.offline_model.__main__ import _parser as offline_parser
from services.agent.settings import AgentSettings
from services.agent.worker import ALL_CONTROLS
from services.contracts import subjects
from services.contracts.words import Queue
from services.gateway.dialects.codebot.settings import CodebotSettings
from services.gateway.dialects.cody_batch.settings import CodySettings
from services.gateway.dialects.orchestrator.settings import OrchestratorSettings
from services.gateway.dialects.worker.service_settings import ServiceSettings as WorkerServiceSettings
from services.gateway.dialects.worker.settings import WorkerSettings
from services.gateway.settings import GatewaySettings
from services.jobs.migrate import MigrateSettings
from services.runtime.sealing import VARIABLE as SEALING_KEY
from services.runtime.sealing import Sealer
from services.runtime.settings import split_address
from services.scheduler.settings import SchedulerSettings
from services.vcs.settings import VcsSettings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SETTINGS: dict[str, type[BaseSettings]] = {
    "migrate": MigrateSettings,
    "gateway": GatewaySettings,
    "scheduler": SchedulerSettings,
    "agent": AgentSettings,
    "vcs": VcsSettings,
}
BESIDE: dict[str, list[type[BaseSettings]]] = {
    "gateway": [CodebotSettings, CodySettings, WorkerSettings, WorkerServiceSettings, OrchestratorSettings]
}
"""What a service reads besides its own: the settings of the published APIs."""
OURS = [*SETTINGS, "offline-model"]
ONE_SHOT = "migrate"
# Read by libraries, not by settings of ours; logs are set up by services alone.
UNCHECKED = {"HTTPS_PROXY", "http_proxy", "NO_PROXY", "no_grpc_proxy"}
IGNORED_BY_MIGRATE = {"QUARTERDECK_LOG_FORMAT", "QUARTERDECK_LOG_LEVEL"}

REFERENCE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[?-])(?P<rest>[^}]*))?\}")
ASSIGNMENT = re.compile(r"(?P<comment>#?)(?P<name>[A-Z_]+)=(?P<value>.*)")

COMPOSE_TEXT = (DEPLOY / "compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE_TEXT)["services"]
EXAMPLE = [
    found for line in (DEPLOY / ".env.example").read_text().splitlines() if (found := ASSIGNMENT.fullmatch(line))
]
SECRETS = {found["name"] for found in REFERENCE.finditer(COMPOSE_TEXT) if found["kind"] == "?"}


def variables_of(settings: type[BaseSettings]) -> set[str]:
    names: set[str] = set()
    for name, field in settings.model_fields.items():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices):
            names |= {str(choice) for choice in alias.choices}
        else:
            names.add(str(alias or f"{settings.model_config['env_prefix']}{name}".upper()))
    return names


def environment_of(service: str) -> dict[str, str]:
    """As a container gets it where .env holds no more than the secrets, each being ``secret`` where it may be."""

    def value(found: re.Match[str]) -> str:
        if found["name"] == SEALING_KEY:
            return Fernet.generate_key().decode()
        return found["rest"] if found["kind"] == "-" else "secret"

    given = SERVICES[service]["environment"]
    return {name: REFERENCE.sub(value, text) for name, text in given.items() if text is not None}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch):
    for name in set(os.environ) - {"PATH"}:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("service", SETTINGS)
def test_each_variable_that_a_container_is_given_is_one_that_its_service_reads(service):
    beside = {name for each in BESIDE.get(service, []) for name in variables_of(each)}
    known = (
        variables_of(SETTINGS[service]) | beside | UNCHECKED | (IGNORED_BY_MIGRATE if service == ONE_SHOT else set())
    )
    assert set(SERVICES[service]["environment"]) <= known


@pytest.mark.parametrize("service", SETTINGS)
def test_the_secrets_are_all_that_a_service_needs_to_start(service, monkeypatch):
    for name, value in environment_of(service).items():
        monkeypatch.setenv(name, value)
    loaded = SETTINGS[service]().model_dump()
    assert "secret" in loaded["database_url"].get_secret_value()
    assert all(value.get_secret_value() for value in loaded.values() if isinstance(value, SecretStr))


def test_the_offline_model_reads_what_it_is_given(monkeypatch):
    environment = environment_of("offline-model")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = vars(offline_parser().parse_args([]))
    expected = {name.removeprefix(OFFLINE_PREFIX).lower(): value for name, value in environment.items()}
    assert {name: str(options[name]) for name in expected} == expected


@pytest.mark.parametrize("service", SERVICES)
def test_each_container_has_a_first_process_a_restart_policy_and_a_health_check(service):
    container = SERVICES[service]
    assert container["init"] is True
    if service == ONE_SHOT:
        assert (container["restart"], container["healthcheck"]) == ("no", {"disable": True})
    else:
        assert container["restart"] == "unless-stopped"
        assert container["healthcheck"]["test"][0] == "CMD"
        assert {"interval", "timeout", "retries", "start_period"} <= set(container["healthcheck"])


@pytest.mark.parametrize("service", OURS)
def test_our_containers_are_one_image_that_may_do_no_more_than_it_must(service):
    container = SERVICES[service]
    assert container["image"] == SERVICES["gateway"]["image"]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    module = ROOT / container["command"][0].replace(".", "/")
    assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()


@pytest.mark.parametrize("service", ["scheduler", "agent", "vcs"])
def test_health_is_asked_where_it_is_served(service):
    _, port = split_address(environment_of(service)["QUARTERDECK_HEALTH_ADDRESS"])
    assert f"http://127.0.0.1:{port}/health" in SERVICES[service]["healthcheck"]["test"][-1]


def test_agents_find_vcs_and_its_worktrees_under_the_same_path():
    agent, vcs = environment_of("agent"), environment_of("vcs")
    assert SERVICES["agent"]["volumes"] == SERVICES["vcs"]["volumes"]
    target = SERVICES["vcs"]["volumes"][0].split(":")[1]
    assert Path(vcs["QUARTERDECK_VCS_ROOT"]).is_relative_to(target)
    assert split_address(agent["QUARTERDECK_VCS_ADDRESS"])[1] == split_address(vcs["QUARTERDECK_VCS_LISTEN"])[1]


def test_whatever_the_files_refer_to_exists():
    for container in SERVICES.values():
        assert set(container["networks"]) <= {"inside", "outside"}
        assert set(container.get("depends_on", {})) <= set(SERVICES)
    assert (ROOT / SERVICES["gateway"]["build"]["dockerfile"]).is_file()
    assert (DEPLOY / SERVICES["nats"]["volumes"][1].split(":")[0]).is_file()


def test_a_secret_has_no_default_and_its_absence_is_told_by_name():
    assert {name for name in SECRETS if re.search(r"PASSWORD|TOKEN|KEY", name)} == SECRETS
    for found in REFERENCE.finditer(COMPOSE_TEXT):
        if re.search(r"PASSWORD|TOKEN|KEY", found["name"]):
            assert found["kind"] == "?"
            assert found["rest"].startswith(f"{found['name']} is not set, ")
            assert "deploy/" in found["rest"]


def test_the_example_leaves_each_secret_empty_and_names_every_other_variable():
    live = {found["name"]: found["value"] for found in EXAMPLE if not found["comment"]}
    assert {name for name, value in live.items() if not value} == SECRETS
    passed_on = {
        name for service in OURS for name, value in SERVICES[service]["environment"].items() if value is None
    } - UNCHECKED
    used = passed_on | {found["name"] for found in REFERENCE.finditer(COMPOSE_TEXT)}
    assert used <= {found["name"] for found in EXAMPLE}


@pytest.mark.parametrize(
    ("variable", "default"),
    [
        ("QUARTERDECK_AGENT_CAPACITY", AgentSettings.model_fields["agent_capacity"].default),
        ("QUARTERDECK_MAX_RUNS", SchedulerSettings.model_fields["max_runs"].default),
        ("QUARTERDECK_LOG_LEVEL", AgentSettings.model_fields["log_level"].default),
        ("CLAUDE_MODEL", AgentSettings.model_fields["model"].default),
        ("CLAUDE_MAX_TOKENS", AgentSettings.model_fields["max_tokens"].default),
        ("QUARTERDECK_MAX_TURNS", AgentSettings.model_fields["max_turns"].default),
        ("QUARTERDECK_RUN_BUDGET_USD", AgentSettings.model_fields["run_budget_usd"].default),
        ("QUARTERDECK_PERMISSION_MODE", AgentSettings.model_fields["permission_mode"].default),
        ("SANDBOX", AgentSettings.model_fields["sandbox"].default),
        *((found["name"], found["rest"]) for found in REFERENCE.finditer(COMPOSE_TEXT) if found["kind"] == "-"),
    ],
)
def test_the_example_tells_the_defaults_as_they_are(variable, default):
    assert str(default) in {found["value"] for found in EXAMPLE if found["name"] == variable}


def test_nats_lets_each_service_reach_its_own_consumers_and_no_others():
    users = dict(re.findall(r"user: (\w+)\n(.*?)subscribe:", (DEPLOY / "nats.conf").read_text(), re.DOTALL))
    assert set(users) == set(SETTINGS) - {ONE_SHOT} | {"subscriber"}
    for queue in Queue:
        owners = ["vcs"] if queue is Queue.PUBLISH else []
        stream, consumer = subjects.WORK_STREAM, subjects.work_consumer(queue)
        for subject in (
            f"$JS.API.CONSUMER.CREATE.{stream}.{consumer}.{subjects.work(queue)}",
            f"$JS.API.CONSUMER.INFO.{stream}.{consumer}",
            f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}",
            f"$JS.ACK.{stream}.{consumer}.>",
        ):
            assert [user for user, rules in users.items() if f'"{subject}"' in rules] == owners
    assert f"CREATE.{subjects.COMMANDS_STREAM}.scheduler.{subjects.ALL_COMMANDS}" in users["scheduler"]
    assert f"CREATE.{subjects.EVENTS_STREAM}.*.{subjects.ALL_EVENTS}" in users["gateway"]
    assert [user for user, rules in users.items() if f'"{ALL_CONTROLS}"' in rules] == ["scheduler"]
    for user, rules in users.items():
        variable = f"NATS_{user.upper()}_PASSWORD"
        assert f"password: ${variable}\n" in rules
        assert variable in SERVICES["nats"]["environment"]


def test_the_image_is_made_from_what_is_not_ignored_and_runs_as_nobody_special():
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set(re.findall(r"^COPY (?!--from)(\S+)", dockerfile, re.MULTILINE))
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert f"BASE_IMAGE: ${{BASE_IMAGE:-{base_image(dockerfile)}}}\n" in COMPOSE_TEXT
    assert re.findall(r"^USER (.*)", dockerfile, re.MULTILINE) == ["10001:10001"]
    assert "--require-hashes" in dockerfile
    assert "GRPC_ENABLE_FORK_SUPPORT=0" in dockerfile


def base_image(dockerfile: str) -> str:
    (default,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", dockerfile, re.MULTILINE)
    return str(default)


def make_env(folder: Path, *arguments: str, key: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "ANTHROPIC_API_KEY": key}
    command = ["sh", str(folder / "make-env"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def folder(tmp_path):
    for name in (".env.example", "make-env"):
        shutil.copy(DEPLOY / name, tmp_path)
    return tmp_path


def assigned(folder: Path) -> dict[str, str]:
    lines = (folder / ".env").read_text().splitlines()
    return {found["name"]: found["value"] for line in lines if (found := ASSIGNMENT.fullmatch(line)) and not found[1]}


def test_make_env_fills_every_secret_with_one_of_its_own_for_nobody_else_to_read(folder):
    assert make_env(folder, key="sk-mine").returncode == 0
    env = assigned(folder)
    assert env["ANTHROPIC_API_KEY"] == "sk-mine"
    made = {env[name] for name in SECRETS}
    assert len(made) == len(SECRETS)
    Sealer(env[SEALING_KEY])
    assert all(re.fullmatch(r"(qd_)?[0-9a-f]{48}", secret) for secret in made - {"sk-mine", env[SEALING_KEY]})
    assert "COMPOSE_PROFILES" not in env
    assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600


def test_make_env_sets_the_offline_model_up(folder):
    assert make_env(folder, "--offline").returncode == 0
    env = assigned(folder)
    port = environment_of("offline-model")["QUARTERDECK_OFFLINE_PORT"]
    assert env["COMPOSE_PROFILES"] in SERVICES["offline-model"]["profiles"]
    assert env["ANTHROPIC_BASE_URL"] == f"http://offline-model:{port}"
    assert env["ANTHROPIC_API_KEY"]


def test_make_env_never_overwrites_and_refuses_what_it_does_not_know(folder):
    (folder / ".env").write_text("MINE=1\n")
    again = make_env(folder)
    assert again.returncode == 1
    assert "is there already" in again.stderr
    assert (folder / ".env").read_text() == "MINE=1\n"
    assert make_env(folder, "--ofline").returncode == 2
