"""A job's own token: what it may read is asked of the remote each time, and no mirror or fetch of another's helps."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.fernet import Fernet

from quarterdeck.stack.embedded import EmbeddedServers
from services.jobs.run_credentials import RunCredentials
from services.jobs.submission import Submissions
from services.runtime.postgres import Database
from services.runtime.sealing import Sealer
from services.vcs.acting import Acting, Hands
from services.vcs.errors import CloneFailedError, CredentialsError
from services.vcs.forges.choosing import Forges
from services.vcs.forges.github import GitHubAddress, GitHubForge, LocalPace
from services.vcs.forges.job_github import JobGitHub
from services.vcs.forges.local import LocalForge
from services.vcs.git.addresses import AllowedRemotes, RemoteAccess
from services.vcs.git.credentials import Credential, StaticCredentials
from services.vcs.git.repositories import parse_repository
from services.vcs.git.runner import Git
from services.vcs.mirrors.mirrors import Mirrors
from services.vcs.mirrors.reach import Reach
from services.vcs.worktrees.checkouts import CheckoutOptions
from services.vcs.worktrees.commits import Commits
from services.vcs.worktrees.worktrees import Ready, Worktrees
from tests.integration.conftest import drop_database, execute
from tests.integration.git_server import GitServer, git_server
from tests.integration.jobs.domain import Domain
from tests.integration.vcs.conftest import METADATA, git

KEY = Fernet.generate_key().decode()
OURS, THEIRS, SERVERS = "ghp_of_its_owner", "ghp_of_somebody_else", "ghp_of_the_server"
PRIVATE, OPEN, SERVERS_OWN = "acme/private", "acme/open", "acme/servers"
NOWHERE = "http://127.0.0.1:9"
HERE = RemoteAccess(AllowedRemotes.parse("127.0.0.0/8"), allow_insecure_http=True)


class NoGitHub:
    current = None


@dataclass(frozen=True)
class Site:
    """A vcs node whose server has a token for one repository, and real jobs. ``github``: where jobs' tokens go."""

    github: GitServer
    domain: Domain
    worktrees: Worktrees
    acting: Acting
    commits: Commits
    root: Path

    async def run(self, token: str | None) -> str:
        """The id of a run whose job brought the token."""
        credentials = {"credentials": {"githubToken": token}} if token else {}
        return str((await self.domain.dispatch_one(**credentials)).run_id)

    async def prepare(
        self, token: str | None, name: str = PRIVATE, *, base_sha: str = "", submodules: bool = False
    ) -> Ready:
        """As the run of a job with the token."""
        return await self.prepare_run(await self.run(token), name, base_sha=base_sha, submodules=submodules)

    async def prepare_run(self, run_id: str, name: str, *, base_sha: str = "", submodules: bool = False) -> Ready:
        address = name if "://" in name else self.github.address(name)
        repository = parse_repository(address, allow_local=False)
        options = CheckoutOptions("", lfs=False, submodules=submodules)
        return await self.worktrees.prepare(run_id, 1, repository, base_sha=base_sha, checkout=options)

    def mirrors(self) -> list[str]:
        return [path.name for path in (self.root / "mirrors").glob("*.git")]

    def worktrees_left(self) -> list[Path]:
        return list((self.root / "worktrees").glob("*/*"))


@pytest.fixture(scope="module")
async def github(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GitServer]:
    folder = tmp_path_factory.mktemp("github")
    async with git_server(folder / "served") as server:
        for name, token in ((PRIVATE, OURS), (OPEN, ""), (SERVERS_OWN, SERVERS)):
            fill(folder, server.create(name, token=token), name)
        yield server


def fill(folder: Path, bare: Path, words: str, *, submodule: tuple[str, str] = ("", "")) -> str:
    """A commit on main; with the address and the commit of a submodule, where one is named."""
    work = folder / f"work-{uuid4()}"
    git(folder, "init", "--quiet", "--initial-branch=main", str(work))
    (work / "README.md").write_text(words)
    address, sha = submodule
    if address:
        (work / ".gitmodules").write_text(f'[submodule "inner"]\n\tpath = inner\n\turl = {address}\n')
        git(work, "update-index", "--add", "--cacheinfo", f"160000,{sha},inner")
    git(work, "add", ".gitmodules" if address else "README.md")
    git(work, "commit", "--quiet", "--message", "Begin")
    git(work, "push", "--quiet", str(bare), "HEAD:refs/heads/main")
    return git(work, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
async def domain(servers: EmbeddedServers, template_database: str) -> AsyncIterator[Domain]:
    name = f"test_tokens_{uuid4().hex[:8]}"
    await execute(servers.database_url, f"CREATE DATABASE {name} TEMPLATE {template_database}")
    database = Database(servers.postgres.database_url(name), size=4, name="test")
    domain = Domain(database)
    domain.client = await domain.new_client("tester")
    domain.submissions = Submissions(domain.units, Sealer(KEY))
    yield domain
    await database.close()
    await drop_database(servers, name)


@pytest.fixture
def site(domain: Domain, github: GitServer, tmp_path: Path) -> Site:
    github.logins.clear()
    return site_of(domain, github, tmp_path / "node", KEY)


def site_of(domain: Domain, github: GitServer, root: Path, key: str | None) -> Site:
    servers_own = StaticCredentials({github.authority: Credential("bot", SERVERS)})
    runner = Git(root / "home", remotes=HERE, credentials=servers_own)
    mirrors = Mirrors(root, runner)
    hands = Hands(Reach(runner, mirrors), Forges(LocalForge(runner, mirrors, ""), NoGitHub()))
    tokens = JobGitHub(GitHubAddress(NOWHERE, github.url), lambda config: GitHubForge(config, LocalPace()))
    acting = Acting(hands, RunCredentials(domain.database, Sealer(key)), tokens, servers_own)
    worktrees = Worktrees(root, mirrors, runner, reach_of=acting.reach_of_run)
    return Site(github, domain, worktrees, acting, Commits(runner, mirrors, worktrees), root)


async def test_a_job_reads_what_its_token_may(site: Site) -> None:
    ready = await site.prepare(OURS)
    assert (ready.path / "README.md").read_text() == PRIVATE
    assert {login.partition(":")[2] for login in site.github.logins} == {OURS}


async def test_what_a_job_with_a_token_leaves_is_nobody_s_and_it_takes_nobody_s(site: Site) -> None:
    owners = [(await site.acting.reach_of_run(await site.run(token))).owner for token in (OURS, None)]
    assert owners[0] == ""
    assert owners[1].startswith(f"{site.domain.client.id}/")


@pytest.mark.parametrize("token", [THEIRS, None])
async def test_a_mirror_that_is_there_helps_nobody_who_may_not_read_it(site: Site, token: str | None) -> None:
    base = await site.prepare(OURS)
    assert site.mirrors()
    (theirs,) = site.worktrees_left()
    for base_sha in ("", base.base_sha) if token else ("",):
        with pytest.raises(CloneFailedError, match="could not be fetched: it refused the credentials") as caught:
            await site.prepare(token, base_sha=base_sha)
        assert (caught.value.exit_reason, THEIRS in str(caught.value)) == ("clone_failed", False)
    assert site.worktrees_left() == [theirs]


async def test_a_submodule_does_not_help_either(site: Site, tmp_path: Path) -> None:
    base = await site.prepare(OURS)
    bare = site.github.create("acme/outer")
    fill(tmp_path, bare, "x", submodule=("../private.git", base.base_sha))
    for token in (THEIRS, None):
        with pytest.raises(CloneFailedError, match="the submodule inner"):
            await site.prepare(token, "acme/outer", submodules=True)
    ready = await site.prepare(OURS, "acme/outer", submodules=True)
    assert (ready.path / "inner" / "README.md").read_text() == PRIVATE


async def test_a_fetch_under_way_is_joined_by_nobody_else(site: Site) -> None:
    """All at once, on a mirror that is not there yet."""
    tokens = [OURS, THEIRS, None, OURS, THEIRS]
    runs = [await site.run(token) for token in tokens]
    ended = await asyncio.gather(*(site.prepare_run(run, PRIVATE) for run in runs), return_exceptions=True)
    kinds = [type(each) for each in ended]
    assert kinds == [Ready, CloneFailedError, CloneFailedError, Ready, CloneFailedError]


async def test_the_server_s_own_credentials_are_not_used_for_a_job_with_a_token(site: Site) -> None:
    ready = await site.prepare(None, SERVERS_OWN)
    with pytest.raises(CloneFailedError):
        await site.prepare(OURS, SERVERS_OWN)
    with pytest.raises(CloneFailedError):
        await site.prepare(OURS, SERVERS_OWN, base_sha=ready.base_sha)


async def test_the_token_is_shown_to_no_other_host(site: Site, tmp_path: Path) -> None:
    async with git_server(tmp_path / "elsewhere") as elsewhere:
        elsewhere.create(PRIVATE, token=OURS)
        with pytest.raises(CloneFailedError, match="no credentials are set up"):
            await site.prepare(OURS, elsewhere.address(PRIVATE))
        assert elsewhere.seen
        assert elsewhere.logins == []


@pytest.mark.parametrize("key", [None, Fernet.generate_key().decode()], ids=["none", "another"])
async def test_a_token_that_cannot_be_opened_is_told_and_nothing_is_fetched(
    site: Site, key: str | None, tmp_path: Path
) -> None:
    other = site_of(site.domain, site.github, tmp_path / "other", key)
    with pytest.raises(CredentialsError, match="QUARTERDECK_SECRET_KEY") as caught:
        await other.prepare(OURS, OPEN)
    assert (caught.value.exit_reason, caught.value.retryable, OURS in str(caught.value)) == ("internal", False, False)
    assert other.mirrors() == []
    assert (await other.prepare(None, OPEN)).base_sha


async def test_the_token_is_in_no_file(site: Site) -> None:
    run_id = await site.run(OURS)
    ready = await site.prepare_run(run_id, PRIVATE)
    (ready.path / "new").write_text("x\n")
    await site.worktrees.checkpoint(run_id, 1)
    await site.commits.commit_worktree(run_id, 1, METADATA)
    files = [path for path in site.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    assert not [path for path in files if OURS.encode() in path.read_bytes()]
