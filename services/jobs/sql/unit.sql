-- name: lock_jobs
-- Lock these jobs, ascending, and read what a transition needs of them.
SELECT id AS job_id, client_id, state AS job_state, cancel_requested_at IS NOT NULL AS cancel_requested,
       coalesce(max_parallel, (options ->> 'maxParallel')::int) AS max_parallel, fair_tag, runs_total,
       runs_started, runs_active, runs_completed, runs_failed, runs_cancelled, last_event_number
FROM jobs WHERE id = ANY(:ids::uuid[]) ORDER BY id FOR NO KEY UPDATE;

-- name: settle!
-- Write what the transitions of this transaction made of their jobs, and append to the event log: the numbers were
-- handed out under the jobs' locks.
WITH told AS (
    INSERT INTO events (job_id, client_id, number, id, run_id, attempt, kind, data, created_at)
    SELECT e.*, now()
    FROM unnest(:event_jobs::uuid[], :event_clients::uuid[], :numbers::int[], :event_ids::uuid[], :run_ids::uuid[],
                :attempts::int[], :kinds::text[], :data::jsonb[]) AS e
)
UPDATE jobs j
SET state = s.state, outcome = s.outcome, runs_started = s.started, runs_active = s.active,
    runs_completed = s.completed, runs_failed = s.failed, runs_cancelled = s.cancelled,
    last_event_number = s.last_event_number,
    started_at = CASE WHEN s.started > 0 THEN coalesce(j.started_at, now()) END,
    finished_at = CASE WHEN s.state IN ('completed', 'failed', 'cancelled') THEN coalesce(j.finished_at, now()) END,
    cancel_requested_at = CASE WHEN s.cancel_requested THEN coalesce(j.cancel_requested_at, now()) END,
    fair_tag = s.fair_tag, ready_from = CASE WHEN NOT s.look_again THEN j.ready_from END
FROM unnest(:ids::uuid[], :states::text[], :outcomes::text[], :started::int[], :active::int[], :completed::int[],
            :failed::int[], :cancelled::int[], :last_event_numbers::int[], :cancel_requested::bool[],
            :fair_tags::bigint[], :look_again::bool[])
     AS s (id, state, outcome, started, active, completed, failed, cancelled, last_event_number, cancel_requested,
           fair_tag, look_again)
WHERE j.id = s.id;

-- name: is_told$
-- Whether an event with this id is among the job's latest.
SELECT EXISTS (SELECT FROM events WHERE job_id = :job_id AND number > :after AND id = :id);
