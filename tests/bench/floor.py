"""The floors that measures stand on: the durable path without Quarterdeck, and Git without it."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import asyncpg
import nats
from nats.js.api import RetentionPolicy, StreamConfig

_HEAD = "refs/remotes/origin/HEAD"


async def durable_path(database_url: str, nats_url: str, rounds: int) -> list[float]:
    """Seconds of INSERT, UPDATE (dispatch), publish, pull and UPDATE (claim), bare; ``rounds`` times in a row."""
    connection = await asyncpg.connect(database_url)
    client = await nats.connect(nats_url)
    try:
        await connection.execute("CREATE TABLE bench_floor (id bigint PRIMARY KEY, state text)")
        jetstream = client.jetstream()
        config = StreamConfig(name="BENCH", subjects=["bench.work"], retention=RetentionPolicy.WORK_QUEUE)
        await jetstream.add_stream(config)
        subscription = await jetstream.pull_subscribe("bench.work", "bench", "BENCH")
        taken = []
        for number in range(rounds):
            began = time.perf_counter()
            await connection.execute("INSERT INTO bench_floor VALUES ($1, 'queued')", number)
            await connection.execute("UPDATE bench_floor SET state = 'dispatched' WHERE id = $1", number)
            await jetstream.publish("bench.work", b"%d" % number)
            (message,) = await subscription.fetch(1, timeout=5)
            await connection.execute("UPDATE bench_floor SET state = 'running' WHERE id = $1", number)
            taken.append(time.perf_counter() - began)
            await message.ack()
        await jetstream.delete_stream("BENCH")
        await connection.execute("DROP TABLE bench_floor")
        return taken
    finally:
        await client.close()
        await connection.close()


def worktree_add(mirror: Path, target: Path) -> float:
    """Seconds of a bare `git worktree add` of what a vcs's ``mirror`` has; removed again, which is not counted."""
    git = ("git", "-C", str(mirror), "worktree")
    began = time.perf_counter()
    subprocess.run([*git, "add", "--quiet", "--detach", str(target), _HEAD], check=True, timeout=60)
    seconds = time.perf_counter() - began
    subprocess.run([*git, "remove", "--force", str(target)], check=True, timeout=60)
    return seconds
