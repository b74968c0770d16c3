"""What the gateway is told of webhooks: what may become work at each of their three addresses, and who may start it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from services.gateway.webhooks.rules import ActorRule, IssueRule, Rules, Surface
from services.runtime.settings import ServiceSettings


def _refuse_odd_rule(told: str) -> str:
    IssueRule.parse(told)
    return told


def _refuse_odd_actors(told: str) -> str:
    ActorRule.parse(told)
    return told


Issues = Annotated[str, AfterValidator(_refuse_odd_rule)]
CheckFixes = Annotated[int, Field(ge=0, le=100)]

NATIVE = "github"
WORKER = "worker"
CODEBOT = "codebot"
_NATIVE_CLIENT = "default"


class WebhookSettings(ServiceSettings):
    """Of each address: which issues become jobs (`all`, `off`, `label:NAME`, `mention:@NAME`), whether remarks on pull
    requests of ours become runs, and how many runs there may be for failed checks of one pull request.
    """

    github_webhook_secret: Annotated[SecretStr | None, Field(validation_alias="GITHUB_WEBHOOK_SECRET")] = None
    """What GitHub signs its deliveries with; none: those of an App that was set up here alone are taken."""
    webhook_issues: Issues = "off"
    webhook_reviews: bool = False
    webhook_check_fixes: CheckFixes = 0
    worker_issues: Issues = "all"
    worker_reviews: bool = False
    worker_check_fixes: CheckFixes = 0
    codebot_issues: Issues = "off"
    codebot_reviews: bool = True
    codebot_check_fixes: CheckFixes = 0
    webhook_actors: Annotated[str, AfterValidator(_refuse_odd_actors)] = "write"
    """Who may start work: with which permission in the repository (`write`, `read`, `anyone`), or which logins."""
    webhook_repositories: str = ""
    """Patterns of the names of repositories, `owner/*`, separated by commas; none: all that the credentials reach."""
    bot_login: Annotated[str, Field(max_length=100)] = ""
    """Under which name we act on GitHub; what it says there starts nothing."""

    @property
    def _surfaces(self) -> tuple[Surface, ...]:
        return (
            Surface(
                NATIVE,
                _NATIVE_CLIENT,
                IssueRule.parse(self.webhook_issues),
                self.webhook_reviews,
                self.webhook_check_fixes,
                asks_for_headers=True,
            ),
            Surface(WORKER, WORKER, IssueRule.parse(self.worker_issues), self.worker_reviews, self.worker_check_fixes),
            Surface(
                CODEBOT, CODEBOT, IssueRule.parse(self.codebot_issues), self.codebot_reviews, self.codebot_check_fixes
            ),
        )

    @property
    def webhook_rules(self) -> Rules:
        actors = ActorRule.parse(self.webhook_actors, bot_login=self.bot_login.strip().removeprefix("@"))
        names = (name.strip() for name in self.webhook_repositories.split(","))
        return Rules(self._surfaces, actors, tuple(name for name in names if name))
