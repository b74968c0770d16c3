"""Print Quarterdeck's events, of one job or of all, and go on after being away where it was left.

    pip install nats-py
    NATS_URL=nats://subscriber:…@127.0.0.1:4222 python subscribe.py [--job JOB] [--name my-events]

The durable consumer NAME remembers in NATS what was acknowledged; the file NAME.position the last event printed, so
that one that comes twice is printed once. Ctrl-C ends it; the next start prints what was missed, up to 24 hours of it.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path

import nats
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig

POLL_SECONDS = 5


class Position:
    """The `Qd-Sequence` of the last event printed: events count 1, 2, 3 … over all jobs, without holes."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.last = int(file.read_text()) if file.exists() else 0

    def move(self, sequence: int) -> None:
        new = self.file.with_suffix(".new")
        new.write_text(f"{sequence}\n")
        new.replace(self.file)
        self.last = sequence


def show(message: Msg, position: Position) -> None:
    """Print a durable event that was not printed yet. Deltas, pieces of a reply under way, have no sequence."""
    sequence = int((message.headers or {}).get("Qd-Sequence", 0))
    if sequence <= position.last:
        return
    event = json.loads(message.data)
    print(sequence, event["jobId"], event["number"], event["kind"], flush=True)
    position.move(sequence)


async def follow(name: str, subject: str) -> None:
    """Print events on ``subject`` until cancelled."""
    # The prefix is the only place where the user `subscriber` may hear replies.
    connection = await nats.connect(
        os.environ["NATS_URL"], inbox_prefix=b"_INBOX_subscriber", max_reconnect_attempts=-1, ping_interval=10
    )
    try:
        jetstream = connection.jetstream(domain="quarterdeck")
        config = ConsumerConfig(
            name=name,
            durable_name=name,
            filter_subject=subject,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=10,
            max_ack_pending=1,  # one after the other: none overtakes one that has to be delivered again
        )
        await jetstream.add_consumer("EVENTS", config)  # changes nothing where it is there already
        consumer = await jetstream.pull_subscribe_bind(name, "EVENTS")
        position = Position(Path(f"{name}.position"))
        print("ready", file=sys.stderr, flush=True)
        while True:
            with contextlib.suppress(nats.errors.TimeoutError):  # nothing new
                for message in await consumer.fetch(1, timeout=POLL_SECONDS):
                    show(message, position)
                    await message.ack()
    finally:
        await connection.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description="Print Quarterdeck's events.")
    parser.add_argument("--job", help="the job's id; default: all jobs")
    parser.add_argument("--name", default="my-events", help="of the durable consumer; each subscriber has one")
    arguments = parser.parse_args()
    subject = f"qd.evt.{arguments.job}.>" if arguments.job else "qd.evt.>"
    following = asyncio.create_task(follow(arguments.name, subject))
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, following.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await following


if __name__ == "__main__":
    asyncio.run(main())
