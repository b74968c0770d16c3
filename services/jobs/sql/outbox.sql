-- name: cursor^
-- The place of publication, if this transaction is the one that publishes. Locked, so that it is read as whoever
-- published last has left it: what the statement saw when it began may be older than the lock that it has got since.
SELECT c.assigned, c.published FROM event_cursor c WHERE pg_try_advisory_xact_lock(:lock) FOR NO KEY UPDATE;

-- name: assigned
-- What has a sequence and is perhaps not in NATS yet.
SELECT e.job_id, e.number, e.id, e.run_id, e.attempt, e.kind, e.data, e.created_at, e.client_id, e.sequence
FROM events e WHERE e.sequence > :after AND e.sequence <= :through ORDER BY e.sequence LIMIT :most;

-- name: assign
-- Give the next events their sequences: in order within each job, since numbers are committed in order.
WITH next AS (
    SELECT e.place_in_table, row_number() OVER (ORDER BY e.job_id, e.number) AS place
    FROM (SELECT ctid AS place_in_table, job_id, number FROM events WHERE published_at IS NULL
          ORDER BY job_id, number LIMIT :most) e
), given AS (
    UPDATE events e
    SET sequence = :assigned + n.place, published_at = now(),
        client_id = coalesce(e.client_id, (SELECT j.client_id FROM jobs j WHERE j.id = e.job_id))
    FROM next n WHERE e.ctid = n.place_in_table
    RETURNING e.job_id, e.number, e.id, e.run_id, e.attempt, e.kind, e.data, e.created_at, e.client_id, e.sequence
)
SELECT * FROM given ORDER BY sequence;

-- name: move_cursor!
UPDATE event_cursor SET assigned = :assigned, published = :published;
