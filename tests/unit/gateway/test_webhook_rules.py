"""What deliveries ask for by the rules of their address, told from their payloads alone."""

from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from services.gateway.settings import GatewaySettings
from services.gateway.webhooks.happenings import failed_suite, issue_event, remark
from services.gateway.webhooks.installations import installation_change
from services.gateway.webhooks.payloads import Actor, moment, repository
from services.gateway.webhooks.rules import ActorRule, IssueRule, IssueTrigger, Permission

ODD: tuple[Any, ...] = (None, True, -1, 2**70, 1.5, "", "\0", [], {}, [None], {"login": 1}, "x" * 100_000)
EVENTS = (
    "issues",
    "issue_comment",
    "pull_request_review",
    "pull_request_review_comment",
    "check_suite",
    "installation",
)


@pytest.mark.parametrize("told", ["", "on", "label", "label:", "mention:@", "all:x", "off:", "ALL", "all,off"])
def test_a_rule_that_is_none_is_refused(told: str) -> None:
    if told == "off:":
        assert IssueRule.parse(told).trigger is IssueTrigger.OFF
        return
    with pytest.raises(ValueError, match="must be one of: all, off, label:NAME, mention:@NAME"):
        IssueRule.parse(told)


def test_rules_are_read() -> None:
    assert IssueRule.parse("label: good first: issue ") == IssueRule(IssueTrigger.LABEL, "good first: issue")
    assert (
        IssueRule.parse("mention:@deck") == IssueRule.parse("mention:deck") == IssueRule(IssueTrigger.MENTION, "deck")
    )
    assert ActorRule.parse("read").permission is Permission.READ
    assert ActorRule.parse("Ada, @ci[bot]", bot_login="Deck").logins == {"ada", "ci[bot]"}
    for wrong in ("", ",", "a b", "-x", "ada;grace"):
        with pytest.raises(ValueError, match="must be one of: write, read, anyone; or logins"):
            ActorRule.parse(wrong)


def test_who_is_ignored_whatever_they_may_do() -> None:
    anyone, listed = ActorRule.parse("anyone", bot_login="Deck"), ActorRule.parse("ci[bot]")
    assert not anyone.ignores(Actor("ada", is_bot=False), "hello")
    assert anyone.ignores(Actor("ada", is_bot=False), "<!-- quarterdeck:comment=1 -->")
    assert anyone.ignores(Actor("deck", is_bot=False), "hello")
    assert anyone.ignores(Actor("", is_bot=False), "hello")
    assert anyone.ignores(Actor("ci[bot]", is_bot=True), "hello")
    assert not listed.ignores(Actor("CI[bot]", is_bot=True), "hello")


def test_the_address_of_a_repository_must_be_of_its_name() -> None:
    def url(**fields: Any) -> str:
        return repository({"repository": {"full_name": "a/one", **fields}}).url

    assert url(clone_url="https://f.example/a/one.git", html_url="https://f.example/a/one").endswith(".git")
    assert url(clone_url=1, html_url="https://f.example/a/one") == "https://f.example/a/one"
    for wrong in (
        "https://f.example/a/two.git",
        "https://u:p@f.example/a/one.git",
        "ext::sh -c x/a/one",
        "file:///a/one",
        "https:///a/one",
        "https://[/a/one",
        "--upload-pack=x/a/one",
    ):
        assert url(clone_url=wrong) == "", wrong
    assert repository({"repository": {"full_name": "", "clone_url": "https://f.example/"}}).url == ""


def test_times_are_read_or_are_not_there() -> None:
    assert moment({"at": "2026-01-31T12:00:00Z"}, "at") == moment({"at": 1_769_860_800}, "at")
    for odd in (*ODD, "2026-01-31T12:00:00", "9999999-01-01T00:00:00Z"):
        if odd not in (-1, 1.5) or isinstance(odd, bool):
            assert moment({"at": odd}, "at") is None, odd


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize(
    "name",
    [
        "action",
        "issue",
        "comment",
        "review",
        "pull_request",
        "repository",
        "sender",
        "label",
        "check_suite",
        "installation",
        "repositories",
    ],
)
def test_whatever_a_payload_holds_nothing_is_raised(event: str, name: str) -> None:
    whole: dict[str, Any] = {
        "action": {"issues": "opened", "pull_request_review": "submitted", "check_suite": "completed"}.get(
            event, "created"
        ),
        "issue": {"number": 1, "title": "x", "labels": [{"name": "x"}]},
        "comment": {"id": 1, "body": "x", "user": {"login": "ada"}},
        "review": {"id": 1, "body": "x", "user": {"login": "ada"}},
        "pull_request": {"number": 1},
        "repository": {"full_name": "a/one", "clone_url": "https://f.example/a/one"},
        "sender": {"login": "ada"},
        "check_suite": {"head_sha": "a" * 40, "conclusion": "failure"},
        "installation": {"id": 1},
    }

    def found(payload: dict[str, Any]) -> list[object]:
        kinds = (issue_event, remark, failed_suite, installation_change)
        return [each for kind in kinds if (each := kind(event, payload)) is not None]

    assert len(found(whole)) == 1
    for odd in ODD:
        assert len(found(whole | {name: odd})) <= 1


def settings(**told: Any) -> GatewaySettings:
    return GatewaySettings(database_url=SecretStr("postgresql://x"), nats_url=SecretStr("nats://x"), **told)


def test_the_settings_have_the_defaults_of_their_documents() -> None:
    rules = settings().webhook_rules
    told = {
        each.name: (each.client, each.issues.trigger.value, each.reviews, each.check_fixes) for each in rules.surfaces
    }
    assert told == {
        "github": ("default", "off", False, 0),
        "worker": ("worker", "all", False, 0),
        "codebot": ("codebot", "off", True, 0),
    }
    assert (rules.actors.permission, rules.repositories) == (Permission.WRITE, ())
    told_more = settings(webhook_repositories="a/*, b/two ,", bot_login="@deck", webhook_actors="anyone").webhook_rules
    assert told_more.repositories == ("a/*", "b/two")
    assert told_more.actors.ours == {"deck"}
    assert [told_more.allows(name) for name in ("A/one", "b/TWO", "b/three")] == [True, True, False]
    for wrong in ({"worker_issues": "some"}, {"webhook_actors": "a b"}, {"codebot_check_fixes": -1}):
        with pytest.raises(ValidationError):
            settings(**wrong)
