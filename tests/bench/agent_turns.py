"""What a turn that reads costs the agent, checkpoints and events included, beside the SDK's bare loop: in a short
conversation, and in a long one, where every request carries the whole history.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.bench.agent_model import between
from tests.bench.agent_scripts import done, reading, reading_call
from tests.bench.agent_stack import AgentStack, agent_stack
from tests.bench.measure import Bench, Result, median_ms

NAME = "agent_turns"
SHORT, LONG = 20, 150
MOST_RATIO_SHORT, MOST_RATIO_LONG = 1.3, 0.8


@dataclass
class Turns:
    """Seconds of each turn, a list a conversation. ``model``: what the scripted model alone takes for as many requests
    as large. ``bytes``: of the last request.
    """

    ours: list[list[float]] = field(default_factory=list)
    bare: list[list[float]] = field(default_factory=list)
    """Of a loop that is given the results of its calls."""
    using: list[list[float]] = field(default_factory=list)
    """Of a loop that uses the tools, too."""
    model: list[float] = field(default_factory=list)
    bytes: int = 0


async def measure(bench: Bench) -> Sequence[Result]:
    async with agent_stack(bench, NAME) as stack:
        short = await _beside_bare(stack, SHORT, bench.samples(8, 3))
        long = await _beside_bare(stack, LONG, bench.samples(4, 1))
        search = median_ms([_search_alone(stack.repository.parent / "files") for _ in range(20)])
    return [
        *_results("agent_turns_20", SHORT, short, MOST_RATIO_SHORT, search),
        *_results("agent_turns_150", LONG, long, MOST_RATIO_LONG, search),
    ]


async def _beside_bare(stack: AgentStack, turns: int, rounds: int) -> Turns:
    """One conversation after the other, ours and the bare loop's in turns; both are warm before."""
    stack.bench.say(f"{NAME}: {turns} turns")
    script = f"reading_{turns}"
    await stack.script(script, [*reading(turns), done(turns)])
    like, job = await stack.begin(script)
    await stack.completed(job)
    bare = await stack.bare(like)
    using = await stack.bare(like, uses_tools=True)
    taken = Turns()
    contest = ((bare, taken.bare), (using, taken.using))
    for peer, _ in contest:
        await peer.converse(stack.model.talk(script))
    for _ in range(rounds):
        talk, job = await stack.begin(script)
        # Nobody watches the job meanwhile: that would be measured, too.
        exchanges = await stack.model.until(talk, turns + 1)
        await stack.completed(job)
        taken.ours.append(between(exchanges))
        for peer, seconds in contest:
            talk = stack.model.talk(script)
            await peer.converse(talk)
            seconds.append(between(await stack.model.until(talk, turns + 1)))
    taken.bytes = exchanges[-1].size
    taken.model = await stack.model.own_seconds(stack.model.talk(script), [each.size for each in exchanges])
    return taken


def mean_ms(conversations: Iterable[Sequence[float]]) -> float:
    """Milliseconds a turn: the mean over a conversation, the median over conversations."""
    return median_ms([statistics.fmean(turns) for turns in conversations])


def _results(name: str, turns: int, taken: Turns, most_ratio: float, search_ms: float) -> list[Result]:
    """Beside a loop that uses the same tools, and beside one that is spared them."""
    loop = "the SDK's bare messages.stream loop: same replies, same results, nothing stored"
    using = _result(name, turns, taken.ours, f"{loop}; it uses the same tools plainly", taken.using, most_ratio)
    spared = _result(f"{name}_given", turns, taken.ours, f"{loop}; it uses no tools", taken.bare, most_ratio)
    details = {
        **_by_tool(taken.ours),
        "ripgrep alone": search_ms,
        "the scripted model alone": statistics.fmean(taken.model) * 1000,
        "last request (KB)": taken.bytes / 1000,
    }
    return [replace(using, details=using.details | details), spared]


def _result(
    name: str, turns: int, ours: list[list[float]], compared_with: str, bare: list[list[float]], most_ratio: float
) -> Result:
    figure, baseline = mean_ms(ours), mean_ms(bare)
    tail = turns // 5
    return Result(
        name=name,
        what=f"wall time a turn over {turns} turns of reading tools, checkpoints on",
        figure=figure,
        unit="ms",
        compared_with=compared_with,
        baseline=baseline,
        goal=f"ratio ≤ {most_ratio:g}",
        met=figure / baseline <= most_ratio,
        details={
            "first fifth": mean_ms(each[:tail] for each in ours),
            "last fifth": mean_ms(each[-tail:] for each in ours),
            "bare, first fifth": mean_ms(each[:tail] for each in bare),
            "bare, last fifth": mean_ms(each[-tail:] for each in bare),
        },
    )


def _search_alone(files: Path) -> float:
    """Seconds of ripgrep as a process of its own, over the same files: what every third turn holds that bare ones do
    not.
    """
    began = time.perf_counter()
    subprocess.run([Path(sys.executable).with_name("rg"), "value_1_1", "."], cwd=files, capture_output=True, check=True)
    return time.perf_counter() - began


def _by_tool(conversations: Iterable[Sequence[float]]) -> dict[str, float]:
    """p50 of the turns that use each tool."""
    seconds = defaultdict(list)
    for turns in conversations:
        for turn, each in enumerate(turns):
            seconds[reading_call(turn)["name"]].append(each)
    return {f"{name} p50": median_ms(each) for name, each in seconds.items()}
