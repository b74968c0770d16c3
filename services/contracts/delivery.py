"""What a job says of its checkouts, commits and pull requests."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from services.contracts.model import Both, Text, refuse_blank

TEMPLATE = "with `{name}`, `{prompt}` (its first line), `{repository}`, `{branch}`, `{job}` and `{run}` filled in"


class Checkout(Both):
    """How a repository is checked out for a run."""

    path: Annotated[Text, Field(min_length=1, max_length=1_000)] | None = Field(
        None,
        description="a folder of the repository, `services/billing`: only it is checked out, with the files "
        "directly in the folders on the way down; default: everything",
    )
    lfs: bool = Field(default=False, description="with the content of files in Git LFS; default: their pointers")
    submodules: bool = Field(default=False, description="with its submodules, for reading; default: without")

    @property
    def is_plain(self) -> bool:
        return self == Checkout.model_validate({})


Login = Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,99})(?:\[bot\])?$")]
Label = Annotated[Text, Field(min_length=1, max_length=50), AfterValidator(refuse_blank)]


class PullRequestOptions(Both):
    """How a pull request is opened; what a forge cannot do is told in the run's log."""

    title: Annotated[Text, Field(min_length=1, max_length=250), AfterValidator(refuse_blank)] | None = Field(
        None, description=f"{TEMPLATE}; default: the commit message's first line"
    )
    body: Annotated[Text, Field(min_length=1, max_length=50_000)] | None = Field(
        None, description=f"Markdown, {TEMPLATE}, and `{{summary}}`; default: the agent's summary"
    )
    labels: Annotated[list[Label], Field(max_length=100)] = Field(default_factory=list)
    reviewers: Annotated[list[Login], Field(max_length=15)] = Field(default_factory=list)
    team_reviewers: Annotated[list[Login], Field(max_length=15)] = Field(default_factory=list)
    assignees: Annotated[list[Login], Field(max_length=10)] = Field(default_factory=list)


class CommitAuthor(Both):
    name: Annotated[
        Text,
        Field(
            min_length=1, max_length=200, pattern=r"^[^<>\x00-\x1f\x7f]*[^<>\x00-\x20\x7f.,:;\"'\\][^<>\x00-\x1f\x7f]*$"
        ),
    ]
    email: Annotated[Text, Field(min_length=3, max_length=200, pattern=r"^[^<>\s@]+@[^<>\s@]+$")]
