"""What a job may say of its checkouts, commits and pull requests, and a client of changesets; what is refused."""

from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from services.contracts.changesets import CloseRequest, CommentRequest, MergeRequest, PublishRequest
from services.contracts.delivery import Checkout, CommitAuthor, PullRequestOptions
from services.contracts.rest import JobOptions, RepositoryRequest
from services.contracts.words import MergeMethod, OnExisting, Publish

AUTHOR = {"name": "Ada", "email": "ada@forge.example"}


def refusal(model: type[BaseModel], document: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(document)
    return str(caught.value)


def test_a_checkout_is_plain_where_nothing_is_asked_for() -> None:
    assert RepositoryRequest.model_validate({"url": "https://a/b"}).checkout.is_plain
    assert Checkout.model_validate({"path": None, "lfs": False}).is_plain
    for asked in ({"path": "services/billing"}, {"lfs": True}, {"submodules": True}):
        assert not Checkout.model_validate(asked).is_plain


def test_a_job_updates_its_pull_request_unless_it_says_otherwise() -> None:
    options = JobOptions.model_validate({})
    assert (options.publish, options.on_existing) == (Publish.PULL_REQUEST, OnExisting.UPDATE)
    assert options.pull_request == PullRequestOptions.model_validate({})
    asked = JobOptions.model_validate({"publish": "branch", "onExisting": "replace", "commitAuthor": AUTHOR})
    assert (asked.publish, asked.on_existing) == (Publish.BRANCH, OnExisting.REPLACE)
    assert JobOptions.model_validate(asked.model_dump(mode="json", by_alias=True)) == asked


@pytest.mark.parametrize("login", ["ada", "a", "Ada-L", "dependabot[bot]", "user_corp", "a.b", "9" * 100])
def test_a_login_may_be_a_persons_or_a_bots(login: str) -> None:
    assert PullRequestOptions.model_validate({"reviewers": [login]}).reviewers == [login]


@pytest.mark.parametrize(
    "login", ["", "-ada", "ada lovelace", "@ada", "ada\n", "ada[bot]x", "[bot]", "a/b", "é", "9" * 101]
)
@pytest.mark.parametrize("field", ["reviewers", "teamReviewers", "assignees"])
def test_what_no_login_looks_like_is_refused(field: str, login: str) -> None:
    assert f"{field}.0" in refusal(PullRequestOptions, {field: [login]})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("title", ""),
        ("title", " \n"),
        ("title", "x" * 251),
        ("title", "a\0"),
        ("body", ""),
        ("body", "x" * 50_001),
        ("labels", ["ok"] * 101),
        ("labels", ["x" * 51]),
        ("labels", [" "]),
        ("reviewers", ["ada"] * 16),
        ("assignees", ["ada"] * 11),
        ("milestone", "1"),
        ("labels", "one"),
    ],
)
def test_a_pull_request_takes_no_more_than_a_forge_does(field: str, value: object) -> None:
    assert field in refusal(PullRequestOptions, {field: value})


@pytest.mark.parametrize("name", ["Ada Lovelace", "Ada L.", "李 明", "O'Brien", "quarterdeck[bot]", "x"])
def test_an_author_has_a_name_that_git_keeps(name: str) -> None:
    assert CommitAuthor.model_validate({**AUTHOR, "name": name}).name == name


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("name", name) for name in ("", " ", ".", ",;:", "a <b>", "a\nb", "a\x7f", "x" * 201, "a\0", "\\", "\\.")),
        *(("email", email) for email in ("", "ada", "a b@c", "a@b>", "<a@b", "a@", "@b", "a@b\n", "a@b@c")),
    ],
)
def test_an_author_that_git_would_change_is_refused(field: str, value: str) -> None:
    assert field in refusal(CommitAuthor, {**AUTHOR, field: value})


def test_a_publication_is_asked_for_in_every_way_but_none() -> None:
    assert PublishRequest.model_validate({}).publish is None
    for publish in ("pull_request", "draft", "branch"):
        assert PublishRequest.model_validate({"publish": publish}).publish == publish
    assert "choose `pull_request`" in refusal(PublishRequest, {"publish": "none"})
    assert "publish" in refusal(PublishRequest, {"publish": "later"})


def test_a_merge_keeps_the_branch_unless_asked() -> None:
    merge = MergeRequest.model_validate({})
    assert (merge.method, merge.delete_branch) == (MergeMethod.MERGE, False)
    asked = MergeRequest.model_validate({"method": "squash", "deleteBranch": True})
    assert (asked.method, asked.delete_branch) == (MergeMethod.SQUASH, True)
    for refused in ({"method": "octopus"}, {"deleteBranch": "yes"}, {"delete_branch": True}):
        assert next(iter(refused)) in refusal(MergeRequest, refused)


def test_a_comment_says_something() -> None:
    assert CloseRequest.model_validate({}).comment is None
    for text in ("", " \n", "x" * 65_001, "a\0b"):
        assert "comment" in refusal(CloseRequest, {"comment": text})
        assert "body" in refusal(CommentRequest, {"body": text})
    assert "body" in refusal(CommentRequest, {})


@pytest.mark.parametrize("identifier", ["1", "9" * 20])
def test_a_comment_may_answer_another(identifier: str) -> None:
    asked = CommentRequest.model_validate({"body": "yes", "inReplyTo": identifier})
    assert asked.in_reply_to == identifier


@pytest.mark.parametrize("identifier", ["", "a", "-1", "1 ", "1\n", "9" * 21, "٣", "../1"])
def test_it_answers_none_that_is_no_number(identifier: str) -> None:
    assert "inReplyTo" in refusal(CommentRequest, {"body": "yes", "inReplyTo": identifier})
