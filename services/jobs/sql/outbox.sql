-- name: cursor^
-- The place of publication, if this transaction is the one that publishes. Locked, so that it is read as whoever
-- published last has left it: what the statement saw when it began may be older than the lock that it has got since.
SELECT c.assigned, c.sent FROM event_cursor c WHERE pg_try_advisory_xact_lock(:lock) FOR NO KEY UPDATE;

-- name: assign
-- Give the next batches of events their sequences, and return those of each batch's last; no rows: nothing waits. Of two batches with
-- events of one job the earlier has the lower id, and is committed before the other is made.
WITH next AS (
    SELECT id, :assigned + sum(cardinality(numbers)) OVER (ORDER BY id) AS last_sequence
    FROM (SELECT id, numbers FROM event_batches WHERE last_sequence IS NULL ORDER BY id LIMIT :most) b
), given AS (
    UPDATE event_batches b SET last_sequence = n.last_sequence FROM next n WHERE b.id = n.id
    RETURNING b.last_sequence
)
SELECT last_sequence FROM given ORDER BY last_sequence;

-- name: assigned
-- What has a sequence in (after, through], in order; no batch is empty, so that there are no more of them than that. Before
-- ADR 21 each event kept its own; before ADR 6 none its client. Ids and payloads are only sent on, so they come as text; made
-- so outside, where all is in order already: a large payload is not sorted along.
SELECT s.id::text, s.job_id::text, s.run_id::text, s.number, s.attempt, s.kind, s.data::text, s.created_at, s.client_id::text,
       s.sequence
FROM (
    SELECT e.job_id, e.number, e.id, e.run_id, e.attempt, e.kind, e.data, e.created_at, e.client_id, e.sequence
    FROM events e WHERE e.sequence > :after AND e.sequence <= :through
    UNION ALL
    SELECT e.job_id, e.number, e.id, e.run_id, e.attempt, e.kind, e.data, e.created_at,
           coalesce(e.client_id, (SELECT j.client_id FROM jobs j WHERE j.id = e.job_id)), t.sequence
    FROM (
        SELECT o.job_id, o.number, b.base + o.place AS sequence
        FROM (SELECT job_ids, numbers, last_sequence - cardinality(numbers) AS base FROM event_batches
              WHERE last_sequence > :after ORDER BY last_sequence LIMIT :through::bigint - :after::bigint) b
        CROSS JOIN LATERAL unnest(b.job_ids, b.numbers) WITH ORDINALITY AS o (job_id, number, place)
        WHERE b.base < :through
    ) t JOIN events e ON e.job_id = t.job_id AND e.number = t.number
    WHERE t.sequence > :after AND t.sequence <= :through
    ORDER BY sequence
) s ORDER BY s.sequence;

-- name: move_cursor!
UPDATE event_cursor SET assigned = :assigned, sent = :sent, published = :sent;
