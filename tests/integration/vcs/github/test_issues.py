"""Issues with their comments, and the failed checks of a commit: as they are on GitHub, bounded, and without ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.vcs.errors import ForgeNotFoundError, ForgePausedError
from services.vcs.forges import MOST_BODY, MOST_COMMENTS, MOST_SUMMARY, FailedCheck, MarkedComment
from services.vcs.forges.github import GitHubForge
from tests.integration.vcs.github.conftest import Work, repository_of
from tests.integration.vcs.github.emulated import APP_ID, Emulate
from tests.integration.vcs.github.faults import FaultProxy

COMMENTS = r"/issues/\d+/comments$"
WHEN = "2026-01-31T12:00:00Z"


def said(number: int, body: str | None = "So?", **members: Any) -> dict[str, Any]:
    """A comment as GitHub shows it."""
    at = {"html_url": f"https://forge.example/c/{number}", "created_at": WHEN, "user": {"login": "grace", "id": 3}}
    return {"id": number, "body": body, "performed_via_github_app": None, **at, **members}


async def issue(work: Work, **members: Any) -> int:
    described = {"title": "It breaks", "body": "Every time.", **members}
    number: int = (await work.emulate.grace.ask("POST", f"/repos/{work.full_name}/issues", described))["number"]
    return number


async def test_an_issue_with_what_others_said_on_it(forge: GitHubForge, work: Work) -> None:
    await work.emulate.ada.ask("POST", f"/repos/{work.full_name}/labels", {"name": "bug", "color": "ff0000"})
    number = await issue(work)
    await work.emulate.ada.ask("POST", f"/repos/{work.full_name}/issues/{number}/labels", {"labels": ["bug"]})
    path = f"/repos/{work.full_name}/issues/{number}/comments"
    first = await work.emulate.grace.ask("POST", path, {"body": "On Tuesdays too."})
    await forge.post(MarkedComment("c-1", work.repository, number, "On it."))
    await work.emulate.ada.ask("POST", path, {"body": "Please."})

    found = await forge.issue(work.repository, number)

    assert (found.number, found.title, found.body, found.state) == (number, "It breaks", "Every time.", "open")
    assert (found.author, list(found.labels), found.is_pull_request) == ("grace", ["bug"], False)
    assert found.url == first["html_url"].partition("#")[0]
    assert [(one.author, one.body) for one in found.comments] == [("grace", "On Tuesdays too."), ("ada", "Please.")]
    assert found.comments[0].id == str(first["id"])
    assert found.comments[0].time.strftime("%Y-%m-%dT%H:%M:%S") == first["created_at"][:19]


async def test_a_pull_request_is_one_too(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    """Scripted: the emulator shows issues alone there."""
    opened = await forge.open(work.published())
    shown = {"number": opened.number, "title": "Fix it", "state": "open", "html_url": opened.url, "body": None}
    proxy.answer(
        "GET", r"/issues/\d+$", 200, {**shown, "pull_request": {"url": "x"}, "labels": ["bug", {"name": "old"}]}
    )
    found = await forge.issue(work.repository, opened.number or 0)
    assert (found.is_pull_request, found.title, found.body, found.author) == (True, "Fix it", "", "")
    assert list(found.labels) == ["bug", "old"]


async def test_comments_are_read_page_by_page_without_ours_and_no_more_than_a_hundred(
    make_forge: Callable[..., GitHubForge], emulate: Emulate, work: Work, proxy: FaultProxy
) -> None:
    number = await issue(work)
    ours = [
        said(1, "Done.\n\n<!-- quarterdeck:comment=x -->"),
        said(2, "Done.", performed_via_github_app={"id": APP_ID, "slug": "quarterdeck"}),
    ]
    others = [said(3, "x" * (MOST_BODY + 1)), said(4, None, user=None), said(5, "NUL\0 \ud800")]
    pages = [[*ours, *others], [said(100 + each) for each in range(MOST_COMMENTS)]]
    for page in pages:
        proxy.answer("GET", COMMENTS, 200, page, headers={"link": '<https://forge.example/?page=9>; rel="next"'})
    app = make_forge(app_id=str(APP_ID), private_key=emulate.app_key)

    comments = (await app.issue(work.repository, number)).comments

    assert [one.id for one in comments[:4]] == ["3", "4", "5", "100"]
    assert [len(one.body) for one in comments[:3]] == [MOST_BODY, 0, 6]
    assert (comments[1].author, len(comments)) == ("", MOST_COMMENTS)
    assert not any(char in comments[2].body for char in "\0\ud800")
    assert [request.query["page"] for request in proxy.asked("GET", COMMENTS)] == ["1", "2"]


async def test_an_issue_that_is_not_there(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    with pytest.raises(ForgeNotFoundError, match="issues/404"):
        await forge.issue(work.repository, 404)
    with pytest.raises(ForgeNotFoundError, match="check the name"):
        await forge.issue(repository_of(proxy, "acme/not-there"), 1)


async def test_failed_checks_of_both_kinds(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    for name, conclusion in [("build", "success"), ("lint", "failure"), ("slow", None), ("docs", "skipped")]:
        await work.emulate.ada.check(work.full_name, work.sha, name, conclusion)
    output = {"title": "2 failed", "summary": "x" * (MOST_SUMMARY + 1)}
    ended = {"name": "tests", "head_sha": work.sha, "status": "completed", "conclusion": "timed_out", "output": output}
    await work.emulate.ada.ask("POST", f"/repos/{work.full_name}/check-runs", ended)
    told = {"description": "It fell.", "target_url": "https://ci.example/7"}
    statuses = [{"context": f"ci/{state}", "state": state, **told} for state in ("failure", "success", "pending")]
    proxy.answer("GET", "/status$", 200, {"state": "failure", "total_count": 3, "statuses": statuses})  # not emulated

    found = {check.name: check for check in await forge.failed_checks(work.repository, work.sha)}

    assert set(found) == {"lint", "tests", "ci/failure"}
    tests = found["tests"]
    assert (tests.conclusion, tests.title, tests.summary) == ("timed_out", "2 failed", "x" * MOST_SUMMARY)
    assert found["ci/failure"] == FailedCheck("ci/failure", "failure", "It fell.", "", "https://ci.example/7")


async def test_checks_that_may_not_be_read_are_not_there_and_a_pause_is_told(
    forge: GitHubForge, work: Work, proxy: FaultProxy
) -> None:
    await work.emulate.ada.check(work.full_name, work.sha, "lint", "failure")
    proxy.answer("GET", "/check-runs$", 403, {"message": "Resource not accessible by personal access token"})
    assert await forge.failed_checks(work.repository, work.sha) == []
    proxy.answer("GET", "/check-runs$", 429, {"message": "slow down"}, headers={"retry-after": "7"})
    with pytest.raises(ForgePausedError):
        await forge.failed_checks(work.repository, work.sha)
