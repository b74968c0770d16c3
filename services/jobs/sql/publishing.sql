-- name: claim_changeset^
-- Take a queued changeset of a publishing run that nobody asked to cancel, once, for its newest order.
UPDATE changesets c
SET state = 'pushing', lease_token = :token, attempts = c.attempts + 1
FROM runs r
WHERE c.id = :id AND c.dispatch = :dispatch AND c.state = 'queued' AND r.id = c.run_id AND r.state = 'publishing'
  AND r.cancel_requested_at IS NULL
RETURNING c.id, c.run_id, c.job_id, c.repository, c.branch, c.base_sha, c.base_branch, c.commit_sha,
          c.commit_author_name, c.commit_author_email, c.commit_time, c.commit_message, c.patch,
          c.expected_remote_sha, c.attempts, c.is_draft, c.verified, r.attempt, r.summary;

-- name: lock_run!
-- Jobs, then runs, then changesets: the order in which everybody locks.
SELECT FROM runs WHERE id = :run_id FOR UPDATE;

-- name: held^
-- The fence: the changeset, locked, if this token still holds it.
SELECT c.id, c.verified FROM changesets c WHERE c.id = :id AND c.lease_token = :token AND c.state = 'pushing'
FOR UPDATE;

-- name: open_changeset!
UPDATE changesets SET state = 'open', url = :url, error = NULL, lease_token = NULL, published_at = now() WHERE id = :id;

-- name: complete_run!
UPDATE runs SET state = 'completed', outcome = :outcome, finished_at = now()
WHERE id = :run_id AND state = ANY(:sources::text[]);

-- name: fail_changeset!
UPDATE changesets SET state = 'failed', error = :error, lease_token = NULL WHERE id = :id;

-- name: fail_run!
UPDATE runs SET state = 'failed', exit_reason = :exit_reason, error = :error, finished_at = now()
WHERE id = :run_id AND state = ANY(:sources::text[]);

-- name: requeue_changeset!
UPDATE changesets SET state = 'queued', error = :error, lease_token = NULL, dispatched_at = NULL,
                      not_before = now() + :delay::interval
WHERE id = :id;

-- name: drop_lease!
DELETE FROM leases WHERE id = :id;

-- name: due
-- Queued changesets whose order was never sent, or was sent and claimed by nobody in time.
UPDATE changesets SET dispatch = dispatch + 1, dispatched_at = now()
WHERE id IN (SELECT id FROM changesets
             WHERE state = 'queued' AND (dispatched_at IS NULL OR dispatched_at < now() - :overdue::interval)
               AND (not_before IS NULL OR not_before <= now())
             ORDER BY dispatched_at NULLS FIRST LIMIT 200 FOR UPDATE SKIP LOCKED)
RETURNING id, run_id, dispatch;

-- name: expired
-- Changesets whose vcs has not renewed.
SELECT c.id, c.job_id, c.run_id FROM leases l JOIN changesets c ON c.id = l.id
WHERE l.kind = 'changeset' AND l.expires_at < clock_timestamp()
  AND pg_postmaster_start_time() < clock_timestamp() - :lease::interval
ORDER BY l.expires_at LIMIT 200;

-- name: requeue_expired!
-- The leases go in the statement that looks whether they have expired: a renewal is before it, or finds none. One that
-- is being renewed just now is left, since whoever waits for it may be waited for.
WITH expired AS (
    DELETE FROM leases WHERE id IN (
        SELECT id FROM leases
        WHERE id = ANY(:ids::uuid[]) AND kind = 'changeset' AND expires_at < clock_timestamp() FOR UPDATE SKIP LOCKED)
    RETURNING id, token
)
UPDATE changesets c SET state = 'queued', lease_token = NULL, dispatched_at = NULL
FROM expired e WHERE c.id = e.id AND c.state = 'pushing' AND c.lease_token = e.token;
