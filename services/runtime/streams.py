"""The streams as NATS is asked to keep them; set up at each start, and again after its storage was wiped."""

from __future__ import annotations

from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from services.contracts import subjects

_DAY_SECONDS = 86_400

STREAMS = (
    StreamConfig(
        name=subjects.COMMANDS_STREAM,
        subjects=[subjects.ALL_COMMANDS],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        duplicate_window=120,
    ),
    StreamConfig(
        name=subjects.WORK_STREAM,
        subjects=[subjects.ALL_WORK],
        retention=RetentionPolicy.WORK_QUEUE,
        storage=StorageType.FILE,
        duplicate_window=120,
    ),
    StreamConfig(
        name=subjects.EVENTS_STREAM,
        subjects=[subjects.ALL_EVENTS],
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.OLD,
        storage=StorageType.FILE,
        max_age=_DAY_SECONDS,
        max_bytes=2 * 1024**3,
        duplicate_window=120,
        allow_direct=True,
    ),
)
