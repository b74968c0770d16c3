"""Make the indexes of fair admission, limits and deadlines beside writers; a try that is cut short is made again.

A migration of its own: tables that are there already could not be made a second time.
"""

from alembic import op

from services.jobs.migrations.run_sql import make_index

revision = "0002_indexes"
down_revision = "0002"
branch_labels = None
depends_on = None

_ADMISSIBLE = (
    "ready_from IS NULL AND cancel_requested_at IS NULL "
    "AND runs_total > runs_active + runs_completed + runs_failed + runs_cancelled "
    "AND (max_parallel IS NULL OR runs_active < max_parallel)"
)
INDEXES = {
    "jobs_to_admit": (f"jobs (coalesce(queue, kind), client_id, priority DESC, fair_tag, id) WHERE {_ADMISSIBLE}"),
    "jobs_to_ripen": "jobs (ready_from) WHERE ready_from IS NOT NULL",
    "jobs_of_retry": "jobs (retry_of) WHERE retry_of IS NOT NULL",
    "runs_queued_of_job": "runs (job_id, position) WHERE state = 'queued'",
    "runs_holding_slots": "runs (queue, client_id) WHERE state IN ('dispatched', 'running')",
    "runs_held": "runs (md5(repository)) WHERE state = 'queued' AND held_since IS NOT NULL",
    "runs_queue_deadline": "runs (queue_deadline) WHERE state = 'queued' AND queue_deadline IS NOT NULL",
    "runs_deadline": "runs (run_deadline) WHERE state = 'running' AND run_deadline IS NOT NULL",
    "runs_waiting": "runs (idle_deadline) WHERE state = 'waiting'",
    "events_of_log": "events (run_id, number) WHERE kind = 'log'",
}
# Their work is done by the ones above.
REPLACED = ("runs_queued", "runs_holding_a_slot", "events_of_run")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, definition in INDEXES.items():
            make_index(name, definition)
        make_index("events_in_order", "events (sequence) WHERE sequence IS NOT NULL", unique=True)
        for name in REPLACED:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
