"""Two spellings of one repository's address are one repository, in Postgres as for the vcs service."""

import pytest

from services.vcs.git.repositories import parse_repository
from tests.integration.jobs.changes import claimed, on_github, open_change, sha, show, store
from tests.integration.jobs.domain import Domain

SAME = [
    [
        "https://forge.example/acme/one",
        "https://forge.example/acme/one.git",
        "https://Forge.Example/acme/one/",
        "https://forge.example:443/acme/one",
        "ssh://git@forge.example/acme/one.git",
        "ssh://git@forge.example:22/acme/one",
        "git@forge.example:acme/one.git",
        "forge.example:acme/one",
        "http://forge.example/acme/one",
    ],
    ["https://forge.example:8443/acme/one", "https://forge.example:8443/acme/one.git"],
    ["https://forge.example/acme/two"],
    ["https://forge.example/acme2/one"],
    ["https://other.example/acme/one.git"],
    ["https://forge.example/group/sub/one"],
    ["/srv/git/one", "/srv/git/one.git", "file:///srv/git/one.git"],
    ["/srv/git/two"],
]


async def test_they_are_told_apart_as_by_the_vcs(domain: Domain) -> None:
    for group in SAME:
        assert len({parse_repository(address, allow_local=True).key for address in group}) == 1
    keys = [{await key(domain, address) for address in group} for group in SAME]
    assert [len(found) for found in keys] == [1] * len(SAME)
    assert len(set.union(*keys)) == len(SAME)


@pytest.mark.parametrize("address", ["", "x" * 4_000, "a@b@c:d", "://", "https://", "İ/x"])
async def test_what_is_no_address_has_a_key_too(domain: Domain, address: str) -> None:
    assert len(await key(domain, address)) == 32


async def key(domain: Domain, address: str) -> str:
    ((found,),) = await domain.rows("SELECT repository_key($1)", address)
    return str(found)


async def test_a_named_job_updates_its_change_by_whichever_spelling(domain: Domain) -> None:
    old = await open_change(domain, 1, SAME[0][0], commit_sha=sha("1"), name="Bump")
    run = await domain.start(SAME[0][4], name="Bump")

    publication = await claimed(domain, await store(domain, run, commit_sha=sha("2")))
    assert (publication.expected_remote_sha, publication.also_ours) == (sha("1"), [sha("1")])
    await show(domain, publication, on_github(1))

    row = await domain.row("changesets", old)
    assert (row["state"], row["superseded_by"]) == ("closed", publication.hold.changeset_id)
