"""The tools by which the model hands over: it says that it is done, or asks its user."""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import Field

from services.agent.tools.calls import Completion, Outcome
from services.agent.tools.inputs import Input, InputTool, Text

_Words = Annotated[Text, Field(min_length=1, max_length=20_000)]


class TaskCompleteInput(Input):
    summary: _Words = Field(description="What was done and how it was checked, or what stands in the way")
    status: Literal["done", "blocked"]


class TaskComplete(InputTool[TaskCompleteInput]):
    name = "task_complete"
    description = (
        "Say that the work is over: 'done' when it is complete, 'blocked' when it cannot be completed. Call it last."
    )
    subject_fields = ("status",)
    input_model = TaskCompleteInput

    def __init__(self, complete: Callable[[Completion], None]) -> None:
        self._complete = complete

    async def execute(self, arguments: TaskCompleteInput) -> Outcome:
        self._complete(Completion(arguments.summary, arguments.status))
        return Outcome("Noted: the work ends here.")


class AskUserInput(Input):
    question: _Words = Field(description="One question that the user can answer without further context")


class AskUser(InputTool[AskUserInput]):
    name = "ask_user"
    description = "Ask the user a question and wait for the answer, which comes as the next message."
    subject_fields = ("question",)
    input_model = AskUserInput

    def __init__(self, ask: Callable[[str], None]) -> None:
        self._ask = ask

    async def execute(self, arguments: AskUserInput) -> Outcome:
        self._ask(arguments.question)
        return Outcome("The user was asked; the answer comes as the next message.")
