"""A client's customers and what is kept for them: names, ids that they come with, repositories that several have."""

import asyncio
from uuid import UUID, uuid4

import pytest

from services.contracts.repositories import RepositoryRegistration
from services.contracts.words import EventKind
from services.jobs.clients import NameTakenError
from services.jobs.customers import Customer, Customers, IdTakenError
from services.jobs.errors import NotFoundError
from services.jobs.measuring import Measuring
from services.jobs.overviews import Overviews
from services.jobs.repositories import RefusedUrlError, Repositories
from tests.integration.jobs.changes import open_change
from tests.integration.jobs.domain import Domain

URL = "https://forge.example/acme/web.git"


@pytest.fixture
def customers(domain: Domain) -> Customers:
    return Customers(domain.database)


async def test_they_are_listed_by_name_with_their_repositories(domain: Domain, customers: Customers) -> None:
    second, first = [await customers.add(domain.client, name) for name in ("Second", "First")]
    kept = [
        await customers.add_repository(domain.client, second.id, name, URL, base_ref="main")
        for name in ("acme/web", "acme/api")
    ]

    found = await customers.all(domain.client)

    assert [(each.id, each.name, list(each.repositories)) for each in found] == [
        (first.id, "First", []),
        (second.id, "Second", kept),
    ]
    assert await customers.one(domain.client, second.id) == found[1]
    assert (kept[0].owner, kept[0].name, kept[0].base_ref) == ("acme", "web", "main")


async def test_names_and_ids_are_taken_once(domain: Domain, customers: Customers) -> None:
    given = uuid4()
    made = await customers.add(domain.client, "One", customer_id=given)
    assert made.id == given
    with pytest.raises(NameTakenError):
        await customers.add(domain.client, "One")
    for name in ("One", "Two"):
        with pytest.raises(IdTakenError):
            await customers.add(domain.client, name, customer_id=given)
    assert [each.name for each in await customers.all(domain.client)] == ["One"]


async def test_another_clients_are_not_seen(domain: Domain, customers: Customers) -> None:
    other = await domain.new_client("other")
    made = await customers.add(domain.client, "One")
    kept = await customers.add_repository(domain.client, made.id, "acme/web", URL, base_ref=None)

    assert await customers.all(other) == []
    assert await customers.repositories(other) == []
    assert await customers.named(other, "acme/web") is None
    for reading in (customers.one(other, made.id), customers.repository(other, kept.id)):
        with pytest.raises(NotFoundError):
            await reading
    with pytest.raises(NotFoundError):
        await customers.add_repository(other, made.id, "acme/api", URL, base_ref=None)
    assert (await customers.add(other, "One")).name == "One"


async def add_web(domain: Domain, customers: Customers, customer: Customer, name: str = "acme/web") -> UUID:
    return (await customers.add_repository(domain.client, customer.id, name, URL, base_ref=None)).id


async def test_a_customer_has_a_repository_once_and_several_may_have_it(domain: Domain, customers: Customers) -> None:
    made = [await customers.add(domain.client, name) for name in ("One", "Two", "Three")]
    ids = [await add_web(domain, customers, each) for each in made]

    for each in made:
        for name in ("acme/web", "Acme/Web"):
            with pytest.raises(NameTakenError):
                await add_web(domain, customers, each, name)
    for each, repository_id in zip(made, ids, strict=True):
        (kept,) = (await customers.one(domain.client, each.id)).repositories
        assert (kept.id, kept.full_name) == (repository_id, "acme/web")
    found = await customers.named(domain.client, "ACME/web")
    assert found is not None
    assert (found[0].id, found[1].id) == (made[0].id, ids[0])
    shown = (await Repositories(domain.database).page(domain.client, name=None, limit=10, cursor=None)).items
    assert sorted(each.name for each in shown) == sorted(
        ["acme/web", f"acme/web ({made[1].id})", f"acme/web ({made[2].id})"]
    )


async def test_of_many_at_once_one_is_added(domain: Domain, customers: Customers) -> None:
    made = await customers.add(domain.client, "One")
    tries = await asyncio.gather(*(add_web(domain, customers, made) for _ in range(5)), return_exceptions=True)
    assert len([each for each in tries if isinstance(each, UUID)]) == 1
    assert len([each for each in tries if isinstance(each, NameTakenError)]) == 4
    assert len((await customers.one(domain.client, made.id)).repositories) == 1


async def test_what_the_client_keeps_for_nobody(domain: Domain, customers: Customers) -> None:
    native = Repositories(domain.database)
    for name, url in (("acme/web", URL), ("the shop", "git@forge.example:acme/shop.git")):
        await native.add(domain.client, RepositoryRegistration.model_validate({"name": name, "url": url}))
    assert await customers.named(domain.client, "acme/web") is None
    kept = await customers.repositories(domain.client)
    assert [(each.full_name, each.customer_id) for each in kept] == [("acme/web", None), ("acme/shop", None)]
    made = await customers.add(domain.client, "One")
    await add_web(domain, customers, made)
    found = await customers.named(domain.client, "acme/web")
    assert found is not None
    assert found[0].id == made.id


async def test_an_address_with_a_credential_is_refused(domain: Domain, customers: Customers) -> None:
    made = await customers.add(domain.client, "One")
    with pytest.raises(RefusedUrlError):
        await customers.add_repository(domain.client, made.id, "a/b", "https://u:secret@forge.example/x", base_ref=None)
    assert (await customers.one(domain.client, made.id)).repositories == ()


async def test_first_runs_of_many_jobs(domain: Domain) -> None:
    overviews, other = Overviews(domain.database), await domain.new_client("other")
    changeset = await domain.row("changesets", await open_change(domain, 7))
    queued = await domain.submit("https://a/1", "https://a/2")
    ids = [changeset["job_id"], queued]

    runs = await overviews.first_runs(domain.client, ids)

    assert {job_id: (run.repository, run.url) for job_id, run in runs.items()} == {
        changeset["job_id"]: (changeset["repository"], "https://forge.example/a/one/pull/7"),
        queued: ("https://a/1", None),
    }
    assert runs[changeset["job_id"]].outcome == "delivered"
    assert await overviews.first_runs(other, ids) == {}


async def test_what_happened_is_in_order_and_for_its_client_alone(
    domain: Domain, monkeypatch: pytest.MonkeyPatch
) -> None:
    overviews, other = Overviews(domain.database), await domain.new_client("other")
    run = await domain.start()
    await domain.finish(run)
    kinds = [EventKind.RUN_FINISHED, EventKind.JOB_SUBMITTED, EventKind.RUN_STARTED]

    happened = await overviews.happened(domain.client, run.hold.job_id, kinds)

    assert [event.kind for event in happened] == [kinds[1], kinds[2], kinds[0]]
    assert await overviews.happened(other, run.hold.job_id, kinds) == []
    monkeypatch.setattr("services.jobs.overviews.MOST_EVENTS", 2)
    newest = await overviews.happened(domain.client, run.hold.job_id, kinds)
    assert [event.kind for event in newest] == [kinds[2], kinds[0]]


@pytest.mark.parametrize(("kind", "age", "lives"), [("agent", 1, True), ("agent", 60, False), ("vcs", 1, False)])
async def test_whether_an_agent_lives(domain: Domain, kind: str, age: int, lives: bool) -> None:
    seen = "INSERT INTO nodes (name, kind, capacity, seen_at) VALUES ('x', $1, 1, now() - make_interval(secs => $2))"
    await domain.execute(seen, kind, age)
    assert bool(await Measuring(domain.database).agents()) is lives
