"""What an agent is told of what people wrote: as much of it as there is room for, between lines of its own."""

from services.contracts.rest import MAX_PROMPT_CHARACTERS
from services.contracts.v1 import vcs_pb2
from services.gateway.webhooks.happenings import Remark
from services.gateway.webhooks.payloads import Actor, RepositoryName
from services.gateway.webhooks.prompting import checks_prompt, issue_prompt, review_prompt

LONG = "\N{SNOWMAN}" * 65_536


def comments(count: int, size: int) -> list[vcs_pb2.IssueComment]:
    return [vcs_pb2.IssueComment(author="ada", body=f"number {number}." + "x" * size) for number in range(count)]


def test_of_too_many_comments_the_newest_are_told() -> None:
    issue = vcs_pb2.Issue(number=1, title="It breaks", body="Always.", comments=comments(100, 5_000))
    prompt = issue_prompt("a/one", issue)
    assert len(prompt) < MAX_PROMPT_CHARACTERS
    assert "number 99." in prompt
    assert "Always." in prompt
    assert "older comments are left out" in prompt
    assert "number 50." not in prompt


def test_whatever_the_length_a_prompt_can_be_taken_and_has_its_end() -> None:
    issue = vcs_pb2.Issue(number=1, title=LONG, body=LONG, author="ada", comments=comments(3, 65_000))
    remark = Remark(RepositoryName("a/one", ""), 1, "review:1", Actor("ada", is_bot=False), LONG, hunk=LONG)
    checks = [vcs_pb2.FailedCheck(name="test", conclusion="failure", summary=LONG) for _ in range(50)]
    for prompt, end in (
        (issue_prompt("a/one", issue), "in Markdown."),
        (review_prompt("a/one", issue, remark, task=LONG), "whoever made it."),
        (checks_prompt("a/one", 1, "a" * 40, checks, task=LONG), "in Markdown."),
    ):
        assert len(prompt) <= MAX_PROMPT_CHARACTERS
        assert prompt.endswith(end)
        assert prompt.count("\n=====") == 2
