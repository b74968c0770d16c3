"""Comments on a pull request and in its threads, and what a login may do in a repository."""

import pytest

from services.vcs.errors import ForgeRefusedError
from services.vcs.forges.github import GitHubForge
from tests.integration.vcs.github.conftest import Work, repository_of
from tests.integration.vcs.github.faults import FaultProxy

REVIEW_COMMENTS = r"/pulls/\d+/comments$"


async def test_a_comment(forge: GitHubForge, work: Work) -> None:
    await forge.open(work.published())
    posted = await forge.comment(work.ref(), "Done.", in_reply_to="")
    (shown,) = await work.emulate.ada.comments(work.full_name, 1)
    assert (str(shown["id"]), shown["html_url"]) == (posted.id, posted.url)
    assert shown["body"].partition("\n")[0] == "Done."


async def test_a_comment_whose_answer_is_lost_is_there_once(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    opened = await forge.open(work.published())
    proxy.drop("POST", r"/issues/\d+/comments$", when="after")
    posted = await forge.comment(work.ref(opened), "Done.", in_reply_to="")
    assert [str(shown["id"]) for shown in await work.emulate.ada.comments(work.full_name, opened.number or 0)] == [
        posted.id
    ]


async def test_a_reply_in_a_thread(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    """The emulator takes the reply but threads by another member than GitHub: what was asked is looked at too."""
    opened = await forge.open(work.published())
    path = f"/repos/{work.full_name}/pulls/{opened.number}/comments"
    root = await work.emulate.grace.ask("POST", path, {"body": "Why?", "path": "f", "line": 1})
    proxy.drop("POST", REVIEW_COMMENTS, when="after")
    posted = await forge.comment(work.ref(opened), "Because.", in_reply_to=str(root["id"]))
    _, shown = await work.emulate.ada.ask("GET", path)
    assert (str(shown["id"]), shown["body"].partition("\n")[0]) == (posted.id, "Because.")
    (asked,) = proxy.asked("POST", REVIEW_COMMENTS)
    assert asked.body["in_reply_to"] == root["id"]


async def test_a_reply_to_no_id(forge: GitHubForge, work: Work) -> None:
    with pytest.raises(ForgeRefusedError, match="'x' is no review comment's id"):
        await forge.comment(work.ref(number=1), "Because.", in_reply_to="x")


async def test_permissions(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    for given, word in [("pull", "read"), ("push", "write"), ("maintain", "write"), ("admin", "admin")]:
        path = f"/repos/{work.full_name}/collaborators/grace"
        await work.emulate.ada.ask("PUT", path, {"permission": given})
        assert await forge.permission(work.repository, "grace") == word
    assert await forge.permission(work.repository, "linus") == "none"
    assert await forge.permission(work.repository, "no/such?user") == "none"
    assert await forge.permission(repository_of(proxy, "acme/not-there"), "grace") == "none"
