"""The command `submit`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from quarterdeck.cli.console import print_json, print_note, print_text
from quarterdeck.cli.delivering import (
    Assignee,
    BodyFile,
    Label,
    NoPublish,
    OnExistingOption,
    PublishOption,
    Reviewer,
    SignOff,
    Title,
    publish_of,
    pull_request,
)
from quarterdeck.cli.options import (
    AllowCommand,
    AsJson,
    BaseUrl,
    BudgetUsd,
    DataDir,
    EffortOption,
    MaxTokens,
    MaxTurns,
    Mode,
    Model,
    Network,
    SystemPrompt,
    Temperature,
    budget,
    connected,
    given,
    read_text,
)
from quarterdeck.cli.prompts import read_prompt, repository_url
from quarterdeck.cli.watching import watch_to_end
from services.contracts.delivery import Checkout
from services.contracts.rest import Job, RepositoryRequest
from services.contracts.words import JobKind, Publish


def submit(
    prompt: Annotated[
        str | None, typer.Argument(help="What is to be done; `-` or a pipe: read from standard input.")
    ] = None,
    *,
    repository: Annotated[
        list[str] | None, typer.Option("--repository", "-r", help="A Git URL or a local folder; may be repeated.")
    ] = None,
    prompt_file: Annotated[Path | None, typer.Option("--prompt-file", "-f", help="Read the prompt from here.")] = None,
    base: Annotated[str | None, typer.Option(help="Branch, tag or commit to start from.")] = None,
    name: Annotated[str | None, typer.Option(help="A name for the job.")] = None,
    kind: Annotated[JobKind, typer.Option(help="`code` ends in a change, `task` is a conversation.")] = JobKind.CODE,
    path: Annotated[str | None, typer.Option(help="Check out only this folder of each repository.")] = None,
    publish: PublishOption = None,
    no_publish: NoPublish = False,
    on_existing: OnExistingOption = None,
    title: Title = None,
    body_file: BodyFile = None,
    label: Label = None,
    reviewer: Reviewer = None,
    assignee: Assignee = None,
    sign_off: SignOff = False,
    max_parallel: Annotated[int | None, typer.Option(help="Most runs of the job at once.")] = None,
    model: Model = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    effort: EffortOption = None,
    max_turns: MaxTurns = None,
    budget_usd: BudgetUsd = None,
    job_budget_usd: Annotated[float | None, typer.Option(help="Most US dollars of all runs together.")] = None,
    base_url: BaseUrl = None,
    system_prompt_file: SystemPrompt = None,
    permission_mode: Mode = None,
    allow_command: AllowCommand = None,
    network: Network = None,
    test_command: Annotated[
        str | None, typer.Option(help="Run before a change is delivered; `auto`: detected from the repository.")
    ] = None,
    priority: Annotated[int, typer.Option(help="-100 to 100; higher goes first.")] = 0,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Stay and show how it goes.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Submit a job on one or more repositories; without one, `--no-publish` begins with an empty folder.

    With --watch the exit code tells the outcome: 0 completed, 3 only some runs completed, 4 failed, 5 cancelled.
    """
    published = publish_of(publish, no_publish=no_publish)
    if not repository and kind is JobKind.CODE and published is not Publish.NONE:
        raise typer.BadParameter("name at least one repository with -r, or have the change only stored: --no-publish")
    text = read_prompt(prompt, prompt_file)
    repositories = [_repository(typed, base, path) for typed in repository or []]
    options = given(
        publish=published,
        on_existing=on_existing,
        pull_request=pull_request(
            title=title, body_file=body_file, labels=label, reviewers=reviewer, assignees=assignee
        ),
        sign_off=sign_off or None,
        max_parallel=max_parallel,
        model=model,
        max_tokens=max_tokens,
        temperature=temperature,
        effort=effort,
        max_turns=max_turns,
        run_budget=budget(budget_usd),
        job_budget=budget(job_budget_usd),
        base_url=base_url,
        system_prompt=read_text(system_prompt_file),
        permission_mode=permission_mode,
        allowed_commands=allow_command,
        network=network,
        test_command=test_command,
    )

    async def send() -> Job:
        async with connected(data_dir) as client:
            return await client.submit(text, repositories, kind=kind, name=name, priority=priority, options=options)

    job = asyncio.run(send())
    if watch:
        print_note(f"Job {job.id}")
        watch_to_end(job.id, as_json=as_json, data_dir=data_dir)
    elif as_json:
        print_json(job)
    else:
        print_text(str(job.id))
        print_note(f"See how it goes with: quarterdeck watch {job.id}")


def _repository(typed: str, base: str | None, path: str | None) -> RepositoryRequest:
    # As it comes: whether a reference can be one is for the gateway to say, by the field's name.
    request = RepositoryRequest.model_construct(url=repository_url(typed), base_ref=base)
    return request if path is None else request.model_copy(update={"checkout": Checkout.model_construct(path=path)})
