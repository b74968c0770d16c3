"""The REST API's models of what may be used and what was used, in tokens and USD."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field

from services.contracts.agents import Budget
from services.contracts.model import Both, Model

MICROUSD = 1_000_000
"""Of one USD: amounts are stored in whole microdollars."""


class NamedBudgets(Both):
    default: Budget | None = Field(None, description="of each that is not named; null: not limited")
    by_name: Annotated[dict[str, Budget], Field(max_length=10_000)] = Field(
        default_factory=dict, description="in place of the default, with all that it says and leaves out"
    )


class Budgets(Both):
    """What may be used over more than one job. What is null or missing is not limited. A day is one of UTC."""

    day: Budget | None = Field(None, description="of all clients together, each day")
    client: NamedBudgets = Field(
        default_factory=lambda: NamedBudgets.model_validate({}), description="of a client in all, by its name"
    )
    client_day: NamedBudgets = Field(
        default_factory=lambda: NamedBudgets.model_validate({}), description="of a client each day, by its name"
    )


class Amount(Model):
    tokens: int = Field(description="input and output together, cached input included")
    usd: float = Field(description="by list prices; models without a known price are not in it")


class DayUsage(Amount):
    day: date = Field(description="of UTC")


class UsageReport(Model):
    """What a client has used from one UTC day to another, both included."""

    client: str
    first_day: date
    last_day: date
    days: list[DayUsage] = Field(description="those on which anything was used, in order")
    total: Amount
    left_today: Budget = Field(
        description="what the tightest of its budgets leave for today, less what requests under way may come to; null: "
        "not limited"
    )


def microusd(usd: float) -> int:
    """The nearest whole number of microdollars."""
    return round(usd * MICROUSD)


def usd(microusd: int) -> float:
    return microusd / MICROUSD
