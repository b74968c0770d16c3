"""What is stored of a job's options leaves out what is null, and is the same options when it is read."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from services.contracts.rest import JobOptions

EXAMPLES: list[dict[str, Any]] = [
    {},
    {"publish": "none", "maxParallel": 3, "queueDeadlineSeconds": 60, "keepWorktreeSeconds": 0, "network": False},
    {"runBudget": {"usd": 1.5}, "jobBudget": {"tokens": 0}, "allowedCommands": [], "systemPrompt": "Kürze!"},
    {"pullRequest": {"labels": ["a"], "reviewers": ["b"]}, "signOff": True, "testCommand": "make test"},
]


def models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for each in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(each, type) and issubclass(each, BaseModel):
                yield from models_in(each)


@pytest.mark.parametrize("said", EXAMPLES)
def test_they_are_the_same_when_they_are_read(said: dict[str, Any]) -> None:
    options = JobOptions.model_validate(said)

    assert JobOptions.model_validate(orjson.loads(orjson.dumps(options.stored()))) == options


def test_nothing_that_may_be_null_is_anything_else_by_default() -> None:
    """Else what was set to null would be the default when it is read."""
    models = set(models_in(JobOptions))
    assert len(models) > 2
    for model in models:
        for name, field in model.model_fields.items():
            may_be_null = type(None) in getattr(field.annotation, "__args__", ())
            assert not may_be_null or field.default is None, f"{model.__name__}.{name}"


def test_what_is_not_said_takes_no_room() -> None:
    assert None not in JobOptions.model_validate({}).stored().values()
