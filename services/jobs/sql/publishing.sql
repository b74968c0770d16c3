-- name: claim_changeset^
-- Take a queued changeset, once, for its newest order: of a publishing run that nobody asked to cancel, or of one that
-- has ended, whose changeset was asked for later; while no other is being pushed to its branch. On the branch may be
-- what we pushed, or may have pushed, before: whatever an order went out for, since a try that had to wait for the
-- forge counts as none although it may have pushed. A review's commit goes on top of what the branch was at, and that
-- alone may be there: whatever came since, ours too, is not to be lost. Nor is what a review was put on top of: its
-- commit counts as ours only where that does.
UPDATE changesets c
SET state = 'pushing', lease_token = :token, attempts = c.attempts + 1,
    expected_remote_sha = CASE WHEN r.queue = 'review' THEN c.base_sha ELSE coalesce(e.shas[1], '') END
FROM runs r JOIN jobs j ON j.id = r.job_id, changesets o
CROSS JOIN LATERAL (
    WITH RECURSIVE pushed AS MATERIALIZED (
        SELECT p.id, p.commit_sha, p.base_sha, u.queue FROM changesets p JOIN runs u ON u.id = p.run_id
        WHERE p.client_id = o.client_id AND p.branch = o.branch
          AND repository_key(p.repository) = repository_key(o.repository) AND p.dispatch > 0 AND p.id <> o.id
    ), ours AS (
        SELECT id, commit_sha FROM pushed WHERE queue <> 'review'
        UNION
        SELECT p.id, p.commit_sha FROM pushed p JOIN ours ON p.base_sha = ours.commit_sha WHERE p.queue = 'review'
    )
    SELECT array_agg(commit_sha ORDER BY id DESC) AS shas FROM ours
) e
WHERE c.id = :id AND o.id = c.id AND c.dispatch = :dispatch AND c.state = 'queued' AND r.id = c.run_id
  AND (c.not_before IS NULL OR c.not_before <= now())
  AND r.state IN ('publishing', 'completed', 'failed') AND r.cancel_requested_at IS NULL
  AND NOT EXISTS (SELECT FROM changesets p WHERE p.client_id = o.client_id AND p.branch = o.branch
                  AND repository_key(p.repository) = repository_key(o.repository) AND p.state = 'pushing')
RETURNING c.id, c.run_id, c.job_id, c.repository, c.branch, c.base_sha, c.base_branch, c.commit_sha,
          c.commit_author_name, c.commit_author_email, c.commit_time, c.commit_message, c.patch,
          c.expected_remote_sha, CASE WHEN r.queue = 'review' THEN '{}' ELSE coalesce(e.shas, '{}') END AS also_ours,
          r.queue = 'review' AS is_review, c.attempts, c.verified,
          -- What code before this column stored says only whether it is a draft.
          CASE WHEN c.is_draft THEN 'draft' ELSE c.publish END AS publish, r.attempt, r.summary, j.name, j.prompt, j.options;

-- name: branch_turn!
-- One transaction at a time looks whether anything is being pushed to the changeset's branch.
SELECT pg_advisory_xact_lock(hashtextextended('branch ' || client_id || ' ' || branch || ' ' || repository, 0))
FROM changesets WHERE id = :id;

-- name: lock_run!
-- Jobs, then runs, then changesets: the order in which everybody locks.
SELECT FROM runs WHERE id = :run_id FOR UPDATE;

-- name: held^
-- The fence: the changeset, locked, if this token still holds it; and whether its run still waits for it.
SELECT c.id, c.verified, r.state = 'publishing' AS ends_run
FROM changesets c JOIN runs r ON r.id = c.run_id
WHERE c.id = :id AND c.lease_token = :token AND c.state = 'pushing'
FOR UPDATE OF c;

-- name: earlier
-- What this changeset takes the place of: what is open on its branch, or was closed and might be opened again, and,
-- where its job says so, what earlier jobs of the same name have open on its repository.
SELECT e.id, e.job_id, e.run_id, u.attempt, e.url, true AS is_same_branch
FROM changesets c JOIN changesets e ON e.client_id = c.client_id AND e.branch = c.branch AND repository_key(e.repository) = repository_key(c.repository)
JOIN runs u ON u.id = e.run_id
WHERE c.id = :id AND e.id <> c.id AND (e.state = 'open' OR (e.state = 'closed' AND e.superseded_by IS NULL))
UNION ALL
SELECT e.id, e.job_id, e.run_id, u.attempt, e.url, false
FROM changesets c JOIN jobs j ON j.id = c.job_id JOIN runs r ON r.id = c.run_id
JOIN changesets e ON e.client_id = c.client_id AND repository_key(e.repository) = repository_key(c.repository)
    AND e.state = 'open' AND e.id < c.id AND e.branch <> c.branch
    AND e.base_branch IS NOT DISTINCT FROM c.base_branch
JOIN jobs o ON o.id = e.job_id JOIN runs u ON u.id = e.run_id
WHERE c.id = :id AND j.options ->> 'onExisting' = 'replace' AND o.name = j.name AND o.id <> j.id
  AND r.queue <> 'review' AND u.checkout ->> 'path' IS NOT DISTINCT FROM r.checkout ->> 'path';

-- name: supersede
UPDATE changesets SET state = 'closed', closed_at = coalesce(closed_at, now()), superseded_by = :by, observe_at = NULL,
                      close_comment = NULL
WHERE id = ANY(:ids::uuid[]) AND state IN ('open', 'closed')
RETURNING id;

-- name: retire!
-- To be closed by whichever vcs looks at it next. Beneath a review's commit may be somebody's: its branch stays.
UPDATE changesets c SET superseded_by = :by, close_comment = :comment, observe_at = now(),
                        deletes_branch = (SELECT queue <> 'review' FROM runs WHERE id = c.run_id)
WHERE c.id = ANY(:ids::uuid[]) AND c.state = 'open';

-- name: open_changeset!
UPDATE changesets SET state = 'open', url = :url, forge = :forge, number = :number, head_sha = commit_sha, error = NULL,
                      lease_token = NULL, published_at = now(), observe_at = now() + :observe_after::interval
WHERE id = :id;

-- name: wanted^
-- A changeset of the client's and what its run has come to, locked.
SELECT c.id, c.job_id, c.run_id, c.repository, c.state, c.url, c.publish, r.state AS run_state, r.attempt,
       r.cancel_requested_at IS NOT NULL AS is_cancelled, j.options ->> 'publish' AS asked
FROM changesets c JOIN runs r ON r.id = c.run_id JOIN jobs j ON j.id = c.job_id
WHERE c.id = :id AND c.client_id = :client_id FOR UPDATE OF c;

-- name: queue_later!
-- Publish what was only stored; on the branch that an open changeset of the same job name has, where the job updates it
-- and is no review of another.
UPDATE changesets c
SET state = 'queued', publish = :publish, is_draft = :publish = 'draft', error = NULL, attempts = 0,
    dispatched_at = NULL, not_before = NULL,
    branch = coalesce((
        SELECT e.branch FROM changesets e JOIN jobs o ON o.id = e.job_id JOIN runs u ON u.id = e.run_id
        WHERE e.client_id = c.client_id AND repository_key(e.repository) = repository_key(c.repository)
          AND e.state = 'open' AND o.name = j.name AND j.options ->> 'onExisting' = 'update' AND o.id <> j.id
          AND r.queue <> 'review'
          AND e.base_branch IS NOT DISTINCT FROM c.base_branch
          AND u.checkout ->> 'path' IS NOT DISTINCT FROM r.checkout ->> 'path'
        ORDER BY e.id DESC LIMIT 1), c.branch)
FROM jobs j, runs r WHERE c.id = :id AND j.id = c.job_id AND r.id = c.run_id;

-- name: complete_run!
UPDATE runs SET state = 'completed', outcome = :outcome, finished_at = now()
WHERE id = :run_id AND state = ANY(:sources::text[]);

-- name: fail_changeset!
UPDATE changesets SET state = 'failed', error = :error, lease_token = NULL WHERE id = :id;

-- name: fail_run!
UPDATE runs SET state = 'failed', exit_reason = :exit_reason, error = :error, finished_at = now()
WHERE id = :run_id AND state = ANY(:sources::text[]);

-- name: requeue_changeset!
-- ``spent``: 0 where the try was none, since the forge wanted us to wait.
UPDATE changesets SET state = 'queued', error = :error, lease_token = NULL, dispatched_at = NULL,
                      attempts = attempts - 1 + :spent, not_before = now() + :delay::interval
WHERE id = :id;

-- name: stop_cancelled!
-- Runs of a job whose cancel was accepted while their changesets were being pushed: what is queued again is not pushed again.
UPDATE runs r SET cancel_requested_at = j.cancel_requested_at
FROM jobs j, changesets c
WHERE r.id = ANY(:run_ids::uuid[]) AND r.state = 'publishing' AND r.cancel_requested_at IS NULL
  AND j.id = r.job_id AND j.cancel_requested_at IS NOT NULL AND c.run_id = r.id AND c.state = 'queued';

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
