-- name: lock_conversations
-- The job's runs, or the one asked for, locked.
SELECT r.id, r.job_id, r.attempt, r.state, r.summary, r.cancel_requested_at IS NOT NULL AS cancel_requested, j.kind
FROM runs r JOIN jobs j ON j.id = r.job_id
WHERE r.job_id = :job_id AND (:run_id::uuid IS NULL OR r.id = :run_id) ORDER BY r.id FOR UPDATE OF r;

-- name: say^
-- No row where it was said already.
INSERT INTO inbox (id, run_id, number, kind, body, interrupt)
SELECT :id, :run_id, coalesce(max(number), 0) + 1, :kind, :body, :interrupt FROM inbox WHERE run_id = :run_id
ON CONFLICT (id) DO NOTHING
RETURNING number, created_at;

-- name: said^
SELECT number, created_at FROM inbox WHERE id = :id;

-- name: unread
SELECT number, kind, body, interrupt FROM inbox WHERE run_id = :run_id AND read_at IS NULL ORDER BY number;

-- name: park^
-- The run waits, unless something is unread; no row where the token does not hold it.
WITH held AS (
    SELECT id, EXISTS (SELECT FROM inbox i WHERE i.run_id = :run_id AND i.read_at IS NULL) AS has_unread FROM runs
    WHERE id = :run_id AND lease_token = :token AND state = ANY(:sources::text[]) AND cancel_requested_at IS NULL
    FOR UPDATE
), parked AS (
    UPDATE runs r
    SET state = 'waiting', lease_token = NULL, agent = NULL, summary = :summary,
        time_left = greatest(run_deadline - now(), interval '1 second'), run_deadline = NULL,
        idle_deadline = now() + make_interval(secs => coalesce(idle_seconds, 86400))
    FROM held h WHERE r.id = h.id AND NOT h.has_unread
)
SELECT has_unread FROM held;

-- name: drop_lease!
DELETE FROM leases WHERE id = :run_id AND token = :token;

-- name: wake!
UPDATE runs SET state = 'queued', idle_deadline = NULL, not_before = NULL,
                queue_deadline = now() + make_interval(secs => queue_seconds)
WHERE id = ANY(:ids::uuid[]) AND state = ANY(:sources::text[]);

-- name: sleeping_over
-- Waiting runs with something unread.
SELECT DISTINCT r.id, r.job_id FROM inbox i JOIN runs r ON r.id = i.run_id
WHERE i.read_at IS NULL AND r.state = 'waiting' AND r.cancel_requested_at IS NULL LIMIT 200;

-- name: idle
-- Waiting runs past their idle limit.
SELECT id, job_id FROM runs WHERE state = 'waiting' AND idle_deadline < now() ORDER BY idle_deadline LIMIT 200;

-- name: take_waiting
SELECT r.id, r.job_id, r.attempt, r.summary, r.idle_deadline < now() AS is_idle,
       EXISTS (SELECT FROM inbox i WHERE i.run_id = r.id AND i.read_at IS NULL) AS has_unread
FROM runs r
WHERE r.id = ANY(:ids::uuid[]) AND r.state = 'waiting' AND r.cancel_requested_at IS NULL ORDER BY r.id FOR UPDATE;

-- name: complete_waiting!
UPDATE runs SET state = 'completed', outcome = 'answered', error = NULL, finished_at = now(), idle_deadline = NULL,
                summary = coalesce(nullif(summary, ''), :why)
WHERE id = ANY(:ids::uuid[]) AND state = 'waiting';
