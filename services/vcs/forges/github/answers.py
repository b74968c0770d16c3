"""What is read of GitHub's answers: the few members that are used, so that an older Enterprise server will do."""

from datetime import UTC, datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Account(_Answer):
    login: str
    id: int = 0


class Team(_Answer):
    slug: str


class Label(_Answer):
    name: str


class NamedRepository(_Answer):
    full_name: str


class End(_Answer):
    """The head or the base of a pull request. ``repo``: None where the fork was deleted."""

    ref: str
    sha: str
    repo: NamedRepository | None = None


class Pull(_Answer):
    """``mergeable``: None while GitHub is finding out, and in lists."""

    number: int
    html_url: str
    node_id: str = ""
    state: str
    draft: bool = False
    title: str = ""
    body: str | None = None
    merged_at: str | None = None
    merge_commit_sha: str | None = None
    mergeable: bool | None = None
    head: End
    base: End
    labels: tuple[Label, ...] = ()
    requested_reviewers: tuple[Account, ...] = ()
    requested_teams: tuple[Team, ...] = ()
    assignees: tuple[Account, ...] = ()

    @property
    def is_open(self) -> bool:
        return self.state == "open"

    @property
    def is_merged(self) -> bool:
        return self.merged_at is not None

    def merged(self, sha: str) -> "Pull":
        """As it is once it was merged as ``sha``."""
        now = datetime.now(UTC).isoformat()
        return self.model_copy(update={"state": "closed", "merged_at": now, "merge_commit_sha": sha})


class Merge(_Answer):
    sha: str


class Assigned(_Answer):
    """An issue, as far as to whom it is assigned."""

    assignees: tuple[Account, ...] = ()


class Issue(_Answer):
    """What a pull request is too. ``user``: None where the account was deleted."""

    number: int
    title: str = ""
    body: str | None = None
    state: str
    user: Account | None = None
    labels: tuple[Label | str, ...] = ()
    pull_request: dict[str, Any] | None = None
    html_url: str


class App(_Answer):
    id: int


class Comment(_Answer):
    """``user``: None where the account was deleted. ``performed_via_github_app``: None for a person's."""

    id: int
    html_url: str
    body: str | None = None
    user: Account | None = None
    created_at: AwareDatetime | None = None
    performed_via_github_app: App | None = None


class Review(_Answer):
    """``user``: None where the account was deleted."""

    state: str
    user: Account | None = None


class CheckOutput(_Answer):
    title: str | None = None
    summary: str | None = None


class CheckRun(_Answer):
    status: str
    conclusion: str | None = None
    name: str = ""
    html_url: str | None = None
    output: CheckOutput = CheckOutput()


class CommitStatus(_Answer):
    state: str
    context: str = ""
    description: str | None = None
    target_url: str | None = None


class CombinedStatus(_Answer):
    """``state`` is `pending` also where there are no statuses."""

    state: str
    total_count: int = 0


class RefTarget(_Answer):
    sha: str


class Ref(_Answer):
    object: RefTarget


class Permission(_Answer):
    permission: str = "none"


class Installation(_Answer):
    id: int
    account: Account | None = None
    suspended_at: str | None = None


class InstallationToken(_Answer):
    token: str = Field(repr=False)
    expires_at: AwareDatetime


class ListedRepository(_Answer):
    full_name: str
    clone_url: str
    default_branch: str | None = None
    description: str | None = None
    private: bool = False
    archived: bool = False
    fork: bool = False
    topics: tuple[str, ...] = ()
    language: str | None = None
    size: int = 0


class GraphqlAnswer(_Answer):
    data: dict[str, Any] | None = None
    errors: tuple[dict[str, Any], ...] = ()
