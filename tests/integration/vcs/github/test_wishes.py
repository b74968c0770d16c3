"""Labels, reviewers and assignees; what of them cannot be met is told, and the pull request is open all the same."""

from services.vcs.forges.github import GitHubForge
from tests.integration.vcs.github.conftest import Work
from tests.integration.vcs.github.emulated import ORG
from tests.integration.vcs.github.faults import FaultProxy


async def test_all_are_met(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    """Of the assignees the answer is scripted: the emulator assigns nobody to a pull request."""
    proxy.answer("POST", "/issues/1/assignees$", 201, {"assignees": [{"login": "Ada"}]})
    team = (await work.emulate.ada.ask("POST", f"/orgs/{ORG}/teams", {"name": f"team of {work.full_name[-8:]}"}))[
        "slug"
    ]
    opened = await forge.open(
        work.published(
            labels=["bot", "needs: review/now"],
            reviewers=["grace", "linus"],
            team_reviewers=[f"{ORG}/{team}"],
            assignees=["ada"],
        )
    )
    assert not opened.notes
    pull = await work.emulate.ada.pull(work.full_name, opened.number or 0)
    assert {user["login"] for user in pull["requested_reviewers"]} == {"grace", "linus"}
    assert [one["slug"] for one in pull["requested_teams"]] == [team]
    labels = await work.emulate.ada.ask("GET", f"/repos/{work.full_name}/issues/{opened.number}/labels")
    assert {label["name"] for label in labels} == {"bot", "needs: review/now"}
    (assigned,) = proxy.asked("POST", "/assignees$")
    assert assigned.body == {"assignees": ["ada"]}


async def test_what_is_there_is_not_asked_for_again(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    for reviewers in (["grace", "linus"], ["Linus", "Grace"]):
        await forge.open(work.published(reviewers=reviewers))
    assert proxy.count("POST", "/requested_reviewers$") == 1


async def test_one_who_is_not_there_keeps_no_other_away(forge: GitHubForge, work: Work) -> None:
    opened = await forge.open(work.published(reviewers=["grace", "nemo"]))
    pull = await work.emulate.ada.pull(work.full_name, opened.number or 0)
    assert [user["login"] for user in pull["requested_reviewers"]] == ["grace"]
    (note,) = opened.notes
    assert note.startswith("nemo could not be asked for a review: GitHub finds POST")


async def test_scripted_refusals_become_notes(forge: GitHubForge, work: Work, proxy: FaultProxy) -> None:
    forbidden = {"message": "Resource not accessible by personal access token"}
    needed = {"x-accepted-github-permissions": "issues=write"}
    proxy.answer("POST", "/labels$", 403, forbidden, headers=needed, times=2)
    proxy.drop("POST", "/requested_reviewers$", when="instead")
    proxy.answer("POST", "/assignees$", 201, {"assignees": []})
    opened = await forge.open(work.published(labels=["bot"], reviewers=["grace"], assignees=["nemo"]))
    assert await work.numbers() == [opened.number]
    made, put, reviewer, assignee = opened.notes
    assert "the label bot could not be made" in made
    assert "issues=write" in put
    assert "grace could not be asked for a review" in reviewer
    assert assignee == "nemo could not be assigned: not in the repository"
