"""The local stack's pure parts: back-off, options, what each process gets to see, its files."""

import os
import stat
from dataclasses import replace
from typing import Any

import psutil
import pytest
from cryptography.fernet import Fernet

from quarterdeck.stack.__main__ import read_options
from quarterdeck.stack.environment import AGENT, GATEWAY, VCS
from quarterdeck.stack.errors import StackError, StackStartError
from quarterdeck.stack.files import kept_secret, write_private
from quarterdeck.stack.identity import KEEP, Identity, check_reach, launch_command
from quarterdeck.stack.options import DataFolder, StackOptions, default_data_dir
from quarterdeck.stack.orphans import ProcessRecord, end_recorded, living, read_records, write_records
from quarterdeck.stack.postgres import STOP as POSTGRES_STOP
from quarterdeck.stack.processes import ProcessSpec, how_ended
from quarterdeck.stack.services import STOP_SECONDS, ServiceSpecs, reachable
from quarterdeck.stack.supervisor import Backoff, Notice
from services.agent.settings import AgentSettings
from services.runtime.sealing import Sealer
from services.vcs.settings import VcsSettings

SECRETS = {
    "DATABASE_URL",
    "NATS_URL",
    "QUARTERDECK_VCS_TOKEN",
    "QUARTERDECK_API_KEY",
    "QUARTERDECK_SECRET_KEY",
    "ANTHROPIC_API_KEY",
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("QUARTERDECK_", "ANTHROPIC_", "CLAUDE_", "XDG_")) or name in SECRETS:
            monkeypatch.delenv(name)


@pytest.fixture
def specs(tmp_path):
    options = StackOptions(data_dir=tmp_path, anthropic_api_key="sk-real", claude_model="some-model")
    return ServiceSpecs(options, "postgresql://db", "nats://n")


def test_backoff_doubles_to_its_ceiling_and_starts_over_after_a_healthy_while():
    backoff = Backoff()
    assert [backoff.next_seconds(1) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert backoff.next_seconds(59.9) == 30
    assert [backoff.next_seconds(60), backoff.next_seconds(0)] == [0.5, 1]


def test_notice_says_who_how_and_when_or_that_it_is_over():
    again = Notice("vcs", how_ended(-9), 0.5, "")
    over = Notice("vcs", how_ended(2), None, "QUARTERDECK_VCS_ROOT: no such folder")
    assert str(again) == "vcs was ended by SIGKILL; starting it again in 0.5 s"
    assert str(over).splitlines() == [
        "vcs ended with exit code 2: wrong configuration, not started again.",
        "QUARTERDECK_VCS_ROOT: no such folder",
    ]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"QUARTERDECK_DATA_DIR": "/told"}, "/told"),
        ({"XDG_DATA_HOME": "/xdg"}, "/xdg/quarterdeck"),
        ({"XDG_DATA_HOME": "relative", "HOME": "/home/me"}, "/home/me/.local/share/quarterdeck"),
        ({"HOME": "/home/me"}, "/home/me/.local/share/quarterdeck"),
    ],
)
def test_default_data_dir(monkeypatch, variables, expected):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(default_data_dir()) == expected


def test_options_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("DATABASE_URL", "postgresql://theirs")
    monkeypatch.setenv("CLAUDE_API_KEY", "sk-other-name")
    options = StackOptions(data_dir=tmp_path)
    assert (options.database_url, options.nats_url) == ("postgresql://theirs", None)
    assert options.anthropic_api_key == "sk-other-name"
    assert not options.offline
    assert "sk-other-name" not in repr(options)


@pytest.mark.parametrize(("name", "value"), [("agents", 0), ("agent_capacity", 257), ("port", 65_536)])
def test_impossible_options_are_named(tmp_path, name, value):
    with pytest.raises(StackError, match=f"{name} is {value}; it must be from"):
        StackOptions(data_dir=tmp_path, **{name: value})


def test_a_command_line_gives_the_same_options_back(tmp_path, monkeypatch):
    options = StackOptions(
        data_dir=tmp_path, agents=3, agent_capacity=5, port=8080, allow_local_repositories=False, nats_url="nats://n"
    )
    for name, value in options.variables().items():
        monkeypatch.setenv(name, value or "")
    assert read_options(options.arguments()) == options
    assert "nats://n" not in options.arguments()


def secrets_of(spec: ProcessSpec) -> set[str]:
    return {name for name in spec.environment if name in SECRETS}


def test_each_process_gets_the_secrets_that_it_needs_and_no_others(specs, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "theirs")
    servers = {"DATABASE_URL", "NATS_URL"}
    agent = specs.agent(1, 9001, vcs_address="127.0.0.1:9000", model_url=None)
    assert secrets_of(specs.gateway(9002, model_url=None)) == servers | {
        "QUARTERDECK_API_KEY",
        "QUARTERDECK_SECRET_KEY",
        "QUARTERDECK_VCS_TOKEN",
    }
    assert secrets_of(specs.scheduler(9003)) == servers
    assert secrets_of(specs.vcs(9000, 9004)) == servers | {"QUARTERDECK_VCS_TOKEN", "QUARTERDECK_SECRET_KEY"}
    assert secrets_of(agent) == servers | {"QUARTERDECK_VCS_TOKEN", "QUARTERDECK_SECRET_KEY", "ANTHROPIC_API_KEY"}
    assert secrets_of(specs.migrate()) == {"DATABASE_URL"}
    assert secrets_of(specs.offline_model(9005)) == set()
    assert "AWS_SECRET_ACCESS_KEY" not in agent.environment


def test_the_agent_gets_the_real_model_or_the_offline_one(specs):
    real = specs.agent(2, 9001, vcs_address="v", model_url=None).environment
    offline = specs.agent(2, 9001, vcs_address="v", model_url="http://127.0.0.1:9").environment
    assert (real["ANTHROPIC_API_KEY"], real["CLAUDE_MODEL"]) == ("sk-real", "some-model")
    assert "ANTHROPIC_BASE_URL" not in real
    assert offline["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:9"
    assert offline["ANTHROPIC_API_KEY"] != "sk-real"
    assert real["QUARTERDECK_AGENT_NAME"] == "agent-2"


def test_gateway_and_agent_know_the_same_keys_and_addresses(specs, monkeypatch):
    monkeypatch.setenv("SANDBOX", "none")
    specs = replace(specs, options=replace(specs.options, model_base_urls="https://m.example"))
    for model_url in (None, "http://127.0.0.1:9"):
        agent = specs.agent(1, 9001, vcs_address="v", model_url=model_url).environment
        gateway = specs.gateway(9002, model_url=model_url).environment
        vcs = specs.vcs(9000, 9004).environment
        assert vcs["QUARTERDECK_SECRET_KEY"] == gateway["QUARTERDECK_SECRET_KEY"]
        assert "ANTHROPIC_BASE_URL" not in vcs
        for name in ("QUARTERDECK_SECRET_KEY", "ANTHROPIC_BASE_URL", "MODEL_BASE_URLS"):
            assert gateway.get(name) == agent.get(name), name
        assert (agent["SANDBOX"], "SANDBOX" in gateway) == ("none", False)


def test_the_key_to_secrets_is_kept_and_another_one_goes_before_it(specs):
    def keys(specs: ServiceSpecs) -> str:
        return specs.gateway(9002, model_url=None).environment["QUARTERDECK_SECRET_KEY"]

    kept, told = keys(specs), Fernet.generate_key().decode()
    sealed = Sealer(kept).seal({"a": "b"}, owner="x")
    assert keys(specs) == kept
    both = Sealer(keys(replace(specs, options=replace(specs.options, secret_key=told))))
    assert both.open(sealed, owners=["x"]).secrets == {"a": "b"}
    assert Sealer(told).open(both.seal({}, owner="x"), owners=["x"]).secrets == {}


def test_a_gateway_that_listens_everywhere_is_reached_on_loopback(specs):
    gateway = replace(specs, options=replace(specs.options, host="0.0.0.0")).gateway(9002, model_url=None)
    assert gateway.environment["QUARTERDECK_HOST"] == "0.0.0.0"
    assert gateway.health_address == "127.0.0.1:9002"
    assert reachable("192.0.2.1") == "192.0.2.1"


def test_all_stops_together_stay_within_ten_seconds(tmp_path):
    nats = 1.0
    services = sum(seconds for name, seconds in STOP_SECONDS.items() if name != "migrate")
    assert services + nats + sum(seconds for _, seconds in POSTGRES_STOP) < 10


def test_secrets_are_made_once_and_private(tmp_path):
    path = DataFolder(tmp_path).secret("api_key")
    first = kept_secret(path, prefix="qd_")
    assert first.startswith("qd_")
    assert len(first) > 40
    assert kept_secret(path, prefix="qd_") == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_private_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "stack.json"
    write_private(path, "old")

    def fail(_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_private(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", ["", "{", '[{"name": "of another version"}]', '{"a": 1}'])
def test_an_unreadable_record_counts_as_none(tmp_path, content):
    path = tmp_path / "processes.json"
    path.write_text(content)
    assert read_records(path) == []


def me(**changes: Any) -> ProcessRecord:
    process = psutil.Process()
    record = ProcessRecord("me", process.pid, process.create_time(), process.cmdline(), "running", 0, 15)
    return replace(record, **changes)


def test_only_a_process_of_the_same_start_and_command_is_taken_for_the_recorded_one(tmp_path):
    assert living(me()) is not None
    strangers = [me(created=me().created - 60), me(command=["python", "-m", "other"]), me(pid=2**22 + 1)]
    assert [living(stranger) for stranger in strangers] == [None, None, None]
    write_records(tmp_path / "processes.json", strangers)
    assert end_recorded(tmp_path / "processes.json", seconds=1) == []


def test_another_account_must_be_able_to_enter_every_folder_on_the_way(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    stranger = Identity("user", uid=os.geteuid() + 4242, gid=os.getegid() + 4242)
    first_closed = next(
        folder for folder in reversed((closed / "postgres").parents) if not folder.stat().st_mode & stat.S_IXOTH
    )
    with pytest.raises(
        StackStartError, match=rf"cannot enter {first_closed} on the way to .*choose another --data-dir"
    ):
        check_reach(closed / "postgres", stranger)
    check_reach(closed / "postgres", KEEP)


def test_a_launched_command_comes_last():
    words = launch_command(("program", "argument"), identity=Identity("namespace", 7, 8), death_signal=15)
    assert words[-5:] == [str(os.getpid()), "15", "namespace:7:8", "program", "argument"]


TLS = {f"QUARTERDECK_GRPC_{name}" for name in ("CA", "CERTIFICATE", "KEY", "INSECURE")}
"""Not needed between processes of one machine."""


def test_every_setting_of_forges_and_remotes_reaches_vcs_and_nobody_else(specs, monkeypatch):
    for name in VCS:
        monkeypatch.setenv(name, "told" if name in GATEWAY else "told to vcs alone")
    vcs = specs.vcs(8091, 9001)
    aliases = {name: field.validation_alias for name, field in VcsSettings.model_fields.items()}
    variables = {str(alias or f"QUARTERDECK_{name.upper()}") for name, alias in aliases.items()}
    given_by_default = {"QUARTERDECK_DATABASE_POOL", "QUARTERDECK_LOG_LEVEL", "QUARTERDECK_NODE_NAME"}
    assert variables - set(vcs.environment) - TLS == given_by_default | {"QUARTERDECK_VCS_ADVERTISE"}
    for other in (specs.scheduler(9002), specs.gateway(8080), specs.agent(1, 9003, vcs_address="v", model_url=None)):
        assert "told to vcs alone" not in other.environment.values()


def test_every_setting_of_how_agents_work_reaches_them(specs, monkeypatch):
    """Those that the stack does not give itself are passed on."""
    told = {name: alias for name, field in AgentSettings.model_fields.items() if (alias := field.validation_alias)}
    variables = {str(told.get(name, f"QUARTERDECK_{name.upper()}")) for name in AgentSettings.model_fields}
    of_their_own = {"QUARTERDECK_AUTHOR_NAME", "QUARTERDECK_AUTHOR_EMAIL", "QUARTERDECK_DATABASE_POOL"} | TLS
    agent = specs.agent(1, 9001, vcs_address="v", model_url="http://127.0.0.1:9")
    missing = variables - set(agent.environment) - set(AGENT) - of_their_own
    assert {name for name in missing if "choices" not in name} == {"MODEL_BASE_URLS", "QUARTERDECK_LOG_LEVEL"}
