"""What the client and the commands send about budgets and usage, and what they show."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import BaseModel
from typer.testing import CliRunner, Result

from quarterdeck import Client, UnauthorizedError
from quarterdeck.cli.app import app
from services.contracts.agents import Budget
from services.contracts.spending import Amount, Budgets, DayUsage, UsageReport
from tests.integration.fake_gateway import API_KEY, FakeGateway, problem, running

REPORT = UsageReport(
    client="default",
    first_day=date(2026, 1, 1),
    last_day=date(2026, 1, 31),
    days=[DayUsage(day=date(2026, 1, 2), tokens=1_234_567, usd=1.5), DayUsage(day=date(2026, 1, 3), tokens=1, usd=0)],
    total=Amount(tokens=1_234_568, usd=1.5),
    left_today=Budget(usd=8.5),
)


@dataclass
class SpendingGateway(FakeGateway):
    """The fake gateway with budgets and usage; ``asked``: the queries that came for usage."""

    budgets: dict[str, Any] = field(default_factory=lambda: {"day": {"usd": 100.0}})
    asked: list[dict[str, str]] = field(default_factory=list)

    def application(self) -> web.Application:
        application = super().application()
        application.add_routes(
            [
                web.get("/v1/budgets", self._get_budgets),
                web.put("/v1/budgets", self._put_budgets),
                web.get("/v1/usage", self._get_usage),
            ]
        )
        return application

    async def _get_budgets(self, _: web.Request) -> web.Response:
        return _answer(Budgets.model_validate(self.budgets))

    async def _put_budgets(self, request: web.Request) -> web.Response:
        self.budgets = await request.json()
        return _answer(Budgets.model_validate(self.budgets))

    async def _get_usage(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        return _answer(REPORT)


def _answer(model: BaseModel) -> web.Response:
    return web.json_response(text=model.model_dump_json(by_alias=True))


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SpendingGateway]:
    monkeypatch.setenv("QUARTERDECK_DATA_DIR", str(tmp_path / "no-stack"))
    served = SpendingGateway()
    with running(served):
        monkeypatch.setenv("QUARTERDECK_ADDRESS", served.address)
        monkeypatch.setenv("QUARTERDECK_API_KEY", API_KEY)
        yield served


def quarterdeck(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


async def test_the_client_replaces_budgets_and_reads_usage(gateway: SpendingGateway) -> None:
    async with Client(gateway.address, API_KEY) as client:
        assert (await client.budgets()).day == Budget(usd=100)
        wanted = Budgets(day=Budget(tokens=5))
        assert await client.set_budgets(wanted) == wanted
        assert await client.usage() == REPORT
        await client.usage(first_day=date(2026, 1, 1), last_day=date(2026, 1, 31), client="other")
        assert gateway.asked == [{}, {"from": "2026-01-01", "to": "2026-01-31", "client": "other"}]

        gateway.faults = [problem(403, "Forbidden", "only an operator's key may change the budgets")]
        with pytest.raises(UnauthorizedError, match="operator"):
            await client.set_budgets(wanted)


def test_budgets_set_changes_what_is_named(gateway: SpendingGateway) -> None:
    shown = quarterdeck(
        "budgets", "set", "--client", "default=20,5000tokens", "--client", "a=none", "--client-day", "b=2"
    )
    assert shown.exit_code == 0, shown.output
    assert gateway.budgets == {
        "day": {"usd": 100.0, "tokens": None},
        "client": {"default": {"usd": 20.0, "tokens": 5_000}, "byName": {"a": {"usd": None, "tokens": None}}},
        "clientDay": {"default": None, "byName": {"b": {"usd": 2.0, "tokens": None}}},
    }
    lines = [line.split("  ") for line in shown.stdout.splitlines()]
    assert [line[0].strip() for line in lines if "client a" in line[0]] == ["client a, in all"]
    assert json.loads(quarterdeck("budgets", "--json").stdout) == gateway.budgets


def test_usage_shows_days_their_sum_and_what_is_left(gateway: SpendingGateway) -> None:
    shown = quarterdeck("usage", "--from", "2026-01-01", "--client", "default")
    assert shown.exit_code == 0, shown.output
    assert gateway.asked == [{"from": "2026-01-01", "client": "default"}]
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert ["2026-01-02", "1.5000", "1,234,567"] in rows
    assert ["total", "1.5000", "1,234,568"] in rows
    assert "left today: 8.5 USD, no limit of tokens" in shown.stderr
    assert json.loads(quarterdeck("usage", "--json").stdout)["leftToday"] == {"usd": 8.5, "tokens": None}
    assert quarterdeck("usage", "--from", "yesterday").exit_code == 2
