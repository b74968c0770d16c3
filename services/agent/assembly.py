"""Puts a run's loop together: its tools, its model, its transcript and where it stores them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from services.agent.allowance import Allowance
from services.agent.budget_news import BudgetNews
from services.agent.checkpoints import Saver, TreeReader
from services.agent.configuration import Configuration
from services.agent.conversation import Conversation
from services.agent.endings import Limits
from services.agent.events import DeltaStream
from services.agent.loop import Loop
from services.agent.model import Claude, Endpoint, Profile, encode_head, tools_of
from services.agent.prompts import prompt
from services.agent.recording import Durable
from services.agent.run_model import RunModel, SoFar
from services.agent.sandbox import Sandbox
from services.agent.settings import AgentSettings
from services.agent.tools import Toolbox, Workspace
from services.agent.tools.calls import Tool, ToolSpec
from services.agent.tools.commands import RunCommand
from services.agent.tools.outputs import Outputs
from services.agent.tools.toolbox import Kind
from services.agent.transcript import Transcript
from services.agent.unstored_use import UnstoredUse
from services.agent.vcs_client import VcsClient
from services.contracts.words import JobKind, PermissionMode
from services.jobs.budgeting import Budgeting
from services.jobs.messaging import Messaging
from services.jobs.models import Checkpoint, ClaimedRun, Standing, StoredMessage
from services.jobs.running import Running
from services.runtime.jetstream import Bus
from services.runtime.sealing import Sealer


@dataclass(frozen=True)
class Shared:
    """What all attempts of a process share."""

    settings: AgentSettings
    running: Running
    messaging: Messaging
    budgeting: Budgeting
    claude: Claude
    vcs: VcsClient
    bus: Bus
    sealer: Sealer
    sandbox: Sandbox
    budget_news: BudgetNews
    searches: asyncio.Semaphore
    """How many ripgrep processes may run at once."""


def kind_of(run: ClaimedRun, configuration: Configuration) -> Kind:
    """Which tools the run has."""
    if run.kind is JobKind.TASK:
        return "task"
    return "plan" if configuration.permission_mode is PermissionMode.PLAN else "code"


def system_prompt(kind: Kind, configuration: Configuration, notes: Sequence[str]) -> str:
    """``notes``: what the model has to know of its tools."""
    parts = [prompt(kind), *notes]
    if configuration.system_prompt:
        parts.append(configuration.system_prompt)
    return "\n\n".join(parts)


def toolbox_of(
    run: ClaimedRun,
    configuration: Configuration,
    workspace: Workspace,
    shared: Shared,
    *,
    from_servers: Sequence[Tool],
) -> Toolbox:
    """``from_servers``: the tools of MCP servers."""
    kind = kind_of(run, configuration)
    outputs = Outputs(run.outputs)
    extra = [*from_servers] if kind != "plan" else []
    if kind == "code" and may_run_commands(configuration):
        bypasses = configuration.permission_mode is PermissionMode.BYPASS_PERMISSIONS
        extra.append(
            RunCommand(
                shared.sandbox,
                workspace.root,
                allowed=None if bypasses else configuration.allowed_commands,
                network=configuration.network,
                outputs=outputs,
            )
        )
    return Toolbox(
        workspace, kind=kind, searches=shared.searches, outputs=outputs, extra=extra, offered=offered_before(run)
    )


def offered_before(run: ClaimedRun) -> list[ToolSpec]:
    """The tools that the stored beginning of the run's requests offers; none where none is stored yet."""
    listed = tools_of(run.head) if run.head else []
    return [ToolSpec(each["name"], each["description"], each["input_schema"], writes=True) for each in listed]


def may_run_commands(configuration: Configuration) -> bool:
    return configuration.permission_mode is PermissionMode.BYPASS_PERMISSIONS or bool(configuration.allowed_commands)


def loop_of(
    run: ClaimedRun,
    configuration: Configuration,
    workspace: Workspace,
    toolbox: Toolbox,
    shared: Shared,
    *,
    deltas: DeltaStream,
    notes: Sequence[str],
    news_known: int,
    unstored: UnstoredUse,
    until: float,
) -> Loop:
    """A loop that begins where the run's transcript stands. ``news_known``: of budgets, when the run was claimed.

    ``unstored``: is told what requests use. ``until``: when the run is out of time, on the monotonic clock.
    """
    kind = kind_of(run, configuration)
    first = [] if run.messages else [_first_message(run)]
    if kind == "code" and run.repository is None:
        notes = [prompt("empty_folder"), *notes]
    head = run.head or encode_head(system_prompt(kind, configuration, notes), _specs(toolbox))
    allowance = Allowance(
        model=configuration.model,
        spent=run.spent,
        run_budget=configuration.run_budget,
        job_budget=run.options.job_budget,
        allow_unpriced=configuration.allow_unpriced,
        is_budgeted=run.is_budgeted,
        reserve=_Reserve(run, shared.budgeting),
        news=lambda: shared.budget_news.count,
        news_known=news_known,
    )

    def on_standing(standing: Standing) -> None:
        allowance.heard(is_budgeted=standing.is_budgeted)

    endpoint = Endpoint(configuration.api_key, configuration.base_url)
    profile = Profile(configuration.model, configuration.max_tokens, configuration.temperature, configuration.effort)
    saver = Saver(shared.running, run.hold, first=first, head=None if run.head else head, on_standing=on_standing)

    async def save(checkpoint: Checkpoint) -> Standing:
        standing = await saver(checkpoint)
        unstored.stored(checkpoint.usage)
        return standing

    worktrees = shared.vcs if run.has_worktree else None
    is_put_back = run.tree is not None and run.tree.is_behind
    tree = TreeReader(worktrees, run.hold, workspace, is_fresh=run.tree is None)
    return Loop(
        model=RunModel(
            shared.claude,
            endpoint,
            profile,
            head=head,
            spending=allowance,
            unstored=unstored,
            so_far=SoFar(run.spent.microusd, run.turns, until),
        ),
        toolbox=toolbox,
        transcript=Transcript(run.messages or first, copied=run.copied),
        deltas=deltas,
        durable=Durable(save, tree, tree.changed, lambda: tree.problem, is_put_back=is_put_back),
        limits=Limits(
            configuration.max_turns,
            run.turns,
            max_identical_calls=run.options.max_identical_calls,
            max_malformed_turns=run.options.max_malformed_turns,
            max_cut_offs=run.options.max_cut_offs,
        ),
        conversation=Conversation(lambda: shared.messaging.unread(run.hold)) if kind == "task" else None,
        ends_on_text=kind == "plan",
    )


class _Reserve:
    def __init__(self, run: ClaimedRun, budgeting: Budgeting) -> None:
        self._run = run
        self._budgeting = budgeting

    async def __call__(self, **wanted: Any) -> Any:
        return await self._budgeting.reserve(self._run.hold, client_id=self._run.client_id, **wanted)


def _first_message(run: ClaimedRun) -> StoredMessage:
    return Transcript([]).append("user", [{"type": "text", "text": run.prompt}])


def _specs(toolbox: Toolbox) -> list[dict[str, Any]]:
    return [
        {"name": spec.name, "description": spec.description, "input_schema": spec.input_schema}
        for spec in toolbox.specs
    ]
