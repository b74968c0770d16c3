"""Comments on a pull request and in its threads, and what a login may do in a repository."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from services.vcs.errors import ForgeRefusedError, ForgeUnavailableError
from services.vcs.forges import MOST_BODY, MarkedComment
from services.vcs.forges.github import GitHubForge
from tests.integration.vcs.github.conftest import Work, repository_of
from tests.integration.vcs.github.faults import FaultProxy

REVIEW_COMMENTS = r"/pulls/\d+/comments$"
ON_ISSUE = r"/issues/\d+/comments$"
BEGUN = datetime(2026, 1, 31, 12, tzinfo=UTC)


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


def wanted(work: Work, number: int | None, **replaced: Any) -> MarkedComment:
    return replace(MarkedComment("c-1", work.repository, number or 0, "Done."), **replaced)


async def bodies(work: Work, number: int | None) -> list[str]:
    return [shown["body"] for shown in await work.emulate.ada.comments(work.full_name, number or 0)]


async def test_what_is_tried_again_is_there_once(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    number = (await forge.open(work.published())).number
    first = await forge.post(wanted(work, number))
    assert proxy.asked("GET", ON_ISSUE) == []  # nothing can have been posted before
    again = await forge.post(wanted(work, number, tried_since=BEGUN))
    assert (again, await bodies(work, number)) == (first, ["Done.\n\n<!-- quarterdeck:comment=c-1 -->"])
    (looked,) = proxy.asked("GET", ON_ISSUE)
    assert looked.query["since"] == "2026-01-31T11:00:00Z"
    await forge.post(wanted(work, number, id="c-2", tried_since=BEGUN))
    assert len(await bodies(work, number)) == 2


@pytest.mark.parametrize("broken", ["drop", "502", "pause"])
async def test_what_is_posted_though_its_answer_is_lost_is_found(
    forge: GitHubForge, work: Work, proxy: FaultProxy, broken: str
) -> None:
    number = (await forge.open(work.published())).number
    if broken == "drop":
        proxy.drop("POST", ON_ISSUE, when="after")
    else:
        proxy.answer("POST", ON_ISSUE, 502, when="after")
    if broken == "pause":
        # Not known to be posted, and not to be looked for now: it must not count as a try that was none.
        proxy.answer("GET", ON_ISSUE, 429, {"message": "slow down"}, headers={"retry-after": "1"})
        with pytest.raises(ForgeUnavailableError):
            await forge.post(wanted(work, number))
    else:
        await forge.post(wanted(work, number))
    assert len(await bodies(work, number)) == 1


async def test_a_marked_reply_in_a_thread_is_there_once(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    opened = await forge.open(work.published())
    path = f"/repos/{work.full_name}/pulls/{opened.number}/comments"
    root = await work.emulate.grace.ask("POST", path, {"body": "Why?", "path": "f", "line": 1})
    proxy.answer("POST", REVIEW_COMMENTS, 502, when="after")
    first = await forge.post(wanted(work, opened.number, in_reply_to=str(root["id"])))
    again = await forge.post(wanted(work, opened.number, in_reply_to=str(root["id"]), tried_since=BEGUN))
    _, shown = await work.emulate.ada.ask("GET", path)
    assert str(shown["id"]) == first.id == again.id
    assert await bodies(work, opened.number) == []
    (asked,) = proxy.asked("POST", REVIEW_COMMENTS)
    assert asked.body["in_reply_to"] == root["id"]


async def test_a_long_one_is_cut_and_keeps_its_mark(forge: GitHubForge, work: Work) -> None:
    number = (await forge.open(work.published())).number
    await forge.post(wanted(work, number, body="x" * 70_000))
    (body,) = await bodies(work, number)
    assert len(body) == MOST_BODY
    assert body.endswith("*(cut: GitHub takes no more)*\n\n<!-- quarterdeck:comment=c-1 -->")


async def test_what_github_refuses_is_told_in_its_words(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    proxy.answer("POST", ON_ISSUE, 403, {"message": "Unable to create comment because issue is locked."})
    with pytest.raises(ForgeRefusedError, match="issue is locked"):
        await forge.post(wanted(work, 1))
    with pytest.raises(ForgeRefusedError, match="no review comment's id"):
        await forge.post(wanted(work, 1, in_reply_to="²"))
