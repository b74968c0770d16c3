"""One run of chaos: a stack, load, faults, a time to settle, and the judgement."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from quarterdeck import Client
from quarterdeck.demo.git import commit_all, git
from quarterdeck.stack.options import DataFolder
from tests.acceptance.stacks import FILES, bare_origin, until
from tests.chaos.checks import Checks, Invariant
from tests.chaos.ending import Ending, EndingReader
from tests.chaos.faults import Injector
from tests.chaos.invariants import check_all
from tests.chaos.load import PATIENCE, Load
from tests.chaos.logs import logged_errors
from tests.chaos.plan import Plan, make_plan
from tests.chaos.report import Outcome
from tests.chaos.stack import ChaosStack, chaos_stack, processes_of

JANITOR_SECONDS = 60
"""vcs looks for worktrees that nobody holds every 15 s."""
GONE_SECONDS = 10


@dataclass(frozen=True)
class Options:
    """``minutes``: of faults and submissions; start and settling come on top. ``settle_seconds``: how long, after the
    last fault, the jobs may take to end.
    """

    seed: int
    minutes: float
    kills: int
    jobs: int
    agents: int = 2
    origins: int = 8
    settle_seconds: float = 300

    def plan(self) -> Plan:
        return make_plan(
            seed=self.seed,
            minutes=self.minutes,
            kills=self.kills,
            jobs=self.jobs,
            agents=self.agents,
            origins=self.origins,
        )


async def run_chaos(options: Options, folder: Path, *, say: Callable[[str], None]) -> Outcome:
    """Run it in ``folder``, which must be empty and is left as it is at the end. Call in the main thread."""
    return await Run(options, folder, say).carry_out()


class Run:
    def __init__(self, options: Options, folder: Path, say: Callable[[str], None]) -> None:
        self._options = options
        self._folder = folder
        self._data_dir = folder / "data"
        self._say = say
        self._checks = Checks()
        self._began = time.monotonic()
        self._load: Load | None = None
        self._injector: Injector | None = None

    async def carry_out(self) -> Outcome:
        ending, broke_off = None, ""
        try:
            ending = await self._with_stack()
        except Exception:  # noqa: BLE001  it is in the report, and in the exit code
            broke_off = traceback.format_exc()
        await self._check_processes()
        return Outcome(
            seed=self._options.seed,
            seconds=time.monotonic() - self._began,
            injected=self._injector.injected if self._injector else {},
            submissions=self._load.submissions if self._load else [],
            ending=ending,
            checks=self._checks,
            folder=self._folder,
            logged_errors=await asyncio.to_thread(logged_errors, self._data_dir / "logs"),
            broke_off=broke_off,
        )

    async def _with_stack(self) -> Ending:
        plan = self._options.plan()
        self._say(f"seed {plan.seed}: {len(plan.faults)} faults, {len(plan.jobs)} jobs, in {self._folder}")
        origins, wanted = await asyncio.to_thread(make_origins, self._folder, self._options.origins)
        async with chaos_stack(self._data_dir, agents=self._options.agents) as stack:
            self._say("the stack is up")
            reader = EndingReader(stack.info.database_url)
            await self._attack(stack, plan, origins)
            await self._settle(reader)
            await self._check_worktrees()
            ending = await reader.read(origins, wanted)
            assert self._load is not None
            check_all(self._checks, ending, self._load.submissions)
            return ending

    async def _attack(self, stack: ChaosStack, plan: Plan, origins: list[Path]) -> None:
        """Faults and load side by side, until every process is healthy and every request answered."""
        async with Client(stack.info.address, stack.info.api_key, patience=PATIENCE) as client:
            load = self._load = Load(client, origins, plan.jobs)
            injector = self._injector = Injector(
                self._data_dir,
                self._checks,
                diary=self._folder / "faults.log",
                on_gateway_kill=load.submit_twin,
            )
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(load.submit_all())
                    both.create_task(injector.run(plan.faults))
                self._say("the last fault was injected; waiting until all is over")
                await injector.until_healthy()
                await self._within(load.finish, Invariant.FINAL, "requests and followers of jobs have no answer")
            finally:
                await load.stop()

    async def _settle(self, reader: EndingReader) -> None:
        left = -1

        async def settled() -> bool:
            nonlocal left
            try:
                left = await reader.unsettled()
            except (OSError, asyncpg.PostgresError, TimeoutError):
                return False
            return left == 0

        async def until_settled() -> None:
            await until(settled, seconds=self._options.settle_seconds)

        await self._within(until_settled, Invariant.FINAL, "jobs, runs or leases are not over")

    async def _within(self, wait: Callable[[], Awaitable[None]], invariant: Invariant, what: str) -> None:
        """Wait, up to the time to settle; past it the invariant is broken and the judgement says by whom."""
        seconds = self._options.settle_seconds
        try:
            async with asyncio.timeout(seconds):
                await wait()
        except TimeoutError:
            self._checks.check(invariant, False, f"{seconds:g} s after the last fault, {what}")

    async def _check_worktrees(self) -> None:
        left: list[str] = []

        async def none_left() -> bool:
            left[:] = await asyncio.to_thread(worktrees_of, self._data_dir)
            return not left

        with suppress(TimeoutError):  # it is in ``left``
            await until(none_left, seconds=JANITOR_SECONDS)
        self._checks.check(Invariant.NO_WORKTREE, not left, f"{len(left)} left: {', '.join(left[:5])}")

    async def _check_processes(self) -> None:
        left: list[str] = []

        async def none_left() -> bool:
            left[:] = await asyncio.to_thread(processes_of, self._data_dir)
            return not left

        with suppress(TimeoutError):  # it is in ``left``
            await until(none_left, seconds=GONE_SECONDS)
        self._checks.check(Invariant.NO_PROCESS, not left, "; ".join(left))


def make_origins(folder: Path, count: int) -> tuple[list[Path], Path]:
    """Bare repositories, and one whose HEAD holds what their files should become."""
    origins = [bare_origin(folder, f"origin-{number}") for number in range(count)]
    for origin in origins:
        # A receive that packs refs would lose when each was written.
        git("config", "receive.autogc", "false", folder=origin)
    wanted = folder / "wanted-files"
    for path, content in FILES.items():
        (wanted / path).parent.mkdir(parents=True, exist_ok=True)
        (wanted / path).write_text(content.replace("colour", "color"))
    (wanted / "README.md").write_bytes((folder / "origin-0-files" / "README.md").read_bytes())
    commit_all(wanted, folder / "wanted.git", "wanted")
    return origins, folder / "wanted.git"


def worktrees_of(data_dir: Path) -> list[str]:
    """What is left of attempts on the node: their trees, their state, what was put aside for removal."""
    root = DataFolder(data_dir).vcs
    found = [*root.glob("worktrees/*/*"), *root.glob("state/*/*"), *root.glob("trash/*")]
    return sorted(str(each.relative_to(root)) for each in found)
