-- name: claim_runs
-- Take up the leases that were granted with these orders: those that were taken back meanwhile, or that another order has
-- replaced, are not among them. A crash of the server may forget it, since nobody waits for its disk: the lease is then as it was
-- granted, none runs out before the server has been up for as long as one lasts, and the next renewal takes it again.
WITH taken AS (
    UPDATE leases l SET expires_at = clock_timestamp() + :lease::interval, taken = true
    FROM unnest(:run_ids::uuid[], :tokens::uuid[]) AS w (run_id, token)
    WHERE l.id = w.run_id AND l.token = w.token AND set_config('synchronous_commit', 'off', true) = 'off'
    RETURNING l.id, l.token
), claimed AS (
    SELECT r.id, r.job_id, r.client_id, r.queue, r.attempt, r.lease_token, r.repository, r.base_ref, r.base_sha,
           r.base_branch, r.branch, r.checkout, r.turns, r.attempts_spent, r.created_at, r.resumes, r.head, r.cost_microusd,
           r.input_tokens + r.output_tokens + r.cache_read_input_tokens + r.cache_creation_input_tokens AS tokens,
           extract(epoch FROM r.run_deadline - now())::float8 AS seconds_left,
           r.cancel_requested_at IS NOT NULL AS cancel_requested
    FROM taken t JOIN runs r ON r.id = t.id AND r.lease_token = t.token
)
SELECT c.*, j.kind, j.name, j.prompt, j.options::text AS options, j.sealed AS job_sealed, s.settings, s.sealed AS client_sealed,
       EXISTS (SELECT FROM budgets b WHERE b.name = '' OR b.name = (SELECT n.name FROM clients n WHERE n.id = c.client_id)) AS is_budgeted,
       j.name IS NOT NULL AND j.options ->> 'onExisting' = 'skip' AND c.queue <> 'review' AS may_be_skipped
FROM claimed c JOIN jobs j ON j.id = c.job_id LEFT JOIN client_settings s ON s.client_id = c.client_id;

-- name: skipped_for$
-- What a job of the run's name has open on its repository; the newest.
SELECT coalesce(e.url, e.branch)
FROM runs c JOIN jobs j ON j.id = c.job_id
JOIN changesets e ON e.client_id = c.client_id AND repository_key(e.repository) = repository_key(c.repository) AND e.state = 'open'
JOIN jobs o ON o.id = e.job_id AND o.name = j.name AND o.id <> j.id
JOIN runs r ON r.id = e.run_id AND r.checkout ->> 'path' IS NOT DISTINCT FROM c.checkout ->> 'path'
WHERE c.id = :run_id
  AND NOT EXISTS (SELECT FROM runs s WHERE s.job_id = c.job_id AND s.id <> c.id AND s.branch = e.branch)
ORDER BY e.id DESC LIMIT 1;

-- name: take_over!
-- Copy what another run left, from which this one is to begin: its transcript, tree and outputs. The numbers of its messages
-- stay. Once is enough, and a run that has a message of its own has them all; again changes nothing.
WITH resumed AS (
    SELECT r.id, r.resumes FROM runs r
    WHERE r.id = :run_id AND r.lease_token = :token AND r.resumes IS NOT NULL
      AND NOT EXISTS (SELECT FROM messages m WHERE m.run_id = r.id)
), tree AS (
    INSERT INTO checkpoints (run_id, attempt, message, patch, read_versions, is_behind)
    SELECT r.id, 1, c.message, c.patch, c.read_versions, c.is_behind FROM resumed r JOIN checkpoints c ON c.run_id = r.resumes
    ON CONFLICT (run_id) DO NOTHING
), kept AS (
    INSERT INTO outputs (run_id, name, body)
    SELECT r.id, o.name, o.body FROM resumed r JOIN outputs o ON o.run_id = r.resumes
    ON CONFLICT (run_id, name) DO NOTHING
)
INSERT INTO messages (run_id, number, attempt, role, body)
SELECT r.id, m.number, 0, m.role, m.body FROM resumed r JOIN messages m ON m.run_id = r.resumes
ON CONFLICT (run_id, number) DO NOTHING;

-- name: grant_lease!
INSERT INTO leases (id, kind, token, holder, expires_at)
VALUES (:id, :kind, :token, :holder, clock_timestamp() + :lease::interval)
ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, token = excluded.token, holder = excluded.holder,
                               taken = excluded.taken, expires_at = excluded.expires_at;

-- name: drop_lease!
DELETE FROM leases WHERE id = :id AND token = :token;

-- name: checkpoint^
SELECT patch, read_versions, is_behind, message FROM checkpoints WHERE run_id = :run_id;

-- name: transcript
SELECT number, role, body, attempt = 0 AS is_copied FROM messages WHERE run_id = :run_id ORDER BY number;

-- name: outputs
SELECT name, body FROM outputs WHERE run_id = :run_id;

-- name: held^
-- The fence: the run, locked, if this token still holds it and nobody asked for its cancel.
SELECT id, job_id, attempt, attempts_spent FROM runs
WHERE id = :run_id AND lease_token = :token AND state = 'running' AND cancel_requested_at IS NULL FOR UPDATE;

-- name: held_to_cancel^
-- The fence of a cancel: the run, locked, if this token still holds it and its cancel was accepted.
SELECT id, job_id, attempt FROM runs
WHERE id = :run_id AND lease_token = :token AND state = 'running' AND cancel_requested_at IS NOT NULL FOR UPDATE;

-- name: is_held$
-- Whether this token still holds the run, without a lock.
SELECT EXISTS (SELECT FROM runs WHERE id = :run_id AND attempt = :attempt AND lease_token = :token
               AND state = 'running' AND cancel_requested_at IS NULL);

-- name: record_base!
UPDATE runs SET base_sha = :base_sha, base_branch = coalesce(base_branch, :base_branch) WHERE id = :run_id AND base_sha IS NULL;

-- name: requeue!
UPDATE runs SET state = 'queued', lease_token = NULL, agent = NULL, error = :error,
    attempts_spent = attempts_spent + :spent,
    not_before = CASE WHEN :delay::interval > interval '0' THEN now() + :delay::interval END,
    time_left = greatest(run_deadline - now(), interval '1 second'), run_deadline = NULL,
    queue_deadline = now() + :delay::interval + make_interval(secs => queue_seconds)
WHERE id = :run_id;

-- name: lock_jobs!
-- Lock these jobs, ascending, before any of their runs is.
SELECT FROM jobs WHERE id = ANY(:ids::uuid[]) ORDER BY id FOR NO KEY UPDATE;

-- name: complete_runs
-- Complete those of these runs that their token still holds and nobody asked to cancel, but for those whose user has
-- said something that is unread: whoever speaks locks the same job, so nothing is said in between. Their jobs are locked
-- by a statement before this one, which sees what was committed until then. What ``settle`` does for other transitions is
-- done at once: every run comes by here. A job with a run that completes has begun, and has not ended before.
-- A run has a token only while it is `running` (a CHECK). To ask for the state, too, would have the plan go through all
-- that hold a slot for each of these; so would a join of two parts of this statement, whose sizes no plan knows.
WITH held AS (
    SELECT r.id, w.token, w.event_id, w.outcome, w.summary, w.told, w.read_through,
           EXISTS (SELECT FROM inbox i
                   WHERE i.run_id = r.id AND i.read_at IS NULL AND i.number > w.read_through) AS has_unread
    FROM runs r
    JOIN unnest(:run_ids::uuid[], :tokens::uuid[], :event_ids::uuid[], :outcomes::text[], :summaries::text[],
                :told_summaries::text[], :read_through::int[])
         AS w (id, token, event_id, outcome, summary, told, read_through) ON r.id = w.id
    WHERE r.lease_token = w.token AND r.cancel_requested_at IS NULL
), completed AS (
    UPDATE runs r
    SET state = 'completed', outcome = h.outcome, summary = h.summary, error = NULL, lease_token = NULL,
        finished_at = now()
    FROM held h WHERE r.id = h.id AND NOT h.has_unread AND r.lease_token = h.token AND r.cancel_requested_at IS NULL
    RETURNING r.id, r.job_id, r.attempt, r.outcome, coalesce(h.told, h.summary) AS told, h.token, h.event_id,
              h.read_through
), dropped AS (
    DELETE FROM leases l USING completed c WHERE l.id = c.id AND l.token = c.token
), heard AS (
    UPDATE inbox i SET read_at = now() FROM completed c
    WHERE c.read_through > 0 AND i.run_id = c.id AND i.number <= c.read_through AND i.read_at IS NULL
), counted AS MATERIALIZED (
    SELECT j.id, j.client_id, j.last_event_number, c.runs, j.runs_completed + c.runs AS runs_completed,
           (:job_event_ids::uuid[])[row_number() OVER ()] AS event_id,
           CASE WHEN j.runs_completed + c.runs + j.runs_failed + j.runs_cancelled < j.runs_total
                THEN CASE WHEN j.cancel_requested_at IS NULL THEN 'running' ELSE 'cancelling' END
                WHEN j.cancel_requested_at IS NOT NULL AND j.runs_cancelled > 0 THEN 'cancelled'
                ELSE 'completed' END AS state,
           CASE WHEN j.runs_completed + c.runs = j.runs_total THEN 'all' ELSE 'partial' END AS outcome
    FROM (SELECT job_id, count(*)::int AS runs FROM completed GROUP BY job_id) c
    JOIN jobs j ON j.id = c.job_id
), ended AS (
    SELECT *, state IN ('completed', 'cancelled') AS is_final FROM counted
), settling AS (
    UPDATE jobs j
    SET state = e.state, outcome = CASE WHEN e.state = 'completed' THEN e.outcome END,
        runs_active = j.runs_active - e.runs, runs_completed = e.runs_completed,
        last_event_number = e.last_event_number + e.runs + e.is_final::int,
        finished_at = CASE WHEN e.is_final THEN now() END
    FROM ended e WHERE j.id = e.id
), telling AS (
    INSERT INTO events (job_id, client_id, number, id, run_id, attempt, kind, data, created_at)
    SELECT c.job_id, j.client_id, j.last_event_number + row_number() OVER (PARTITION BY c.job_id ORDER BY c.id),
           c.event_id, c.id, c.attempt, 'run.finished',
           jsonb_build_object('state', 'completed', 'outcome', c.outcome, 'summary', c.told), now()
    FROM completed c JOIN jobs j ON j.id = c.job_id
    UNION ALL
    SELECT e.id, e.client_id, e.last_event_number + e.runs + 1, e.event_id, NULL, 0, 'job.finished',
           jsonb_build_object('state', e.state)
           || CASE WHEN e.state = 'completed' THEN jsonb_build_object('outcome', e.outcome) ELSE '{}' END, now()
    FROM ended e WHERE e.is_final
)
SELECT id, false AS has_unread FROM completed UNION ALL SELECT id, true FROM held WHERE has_unread;

-- name: complete!
UPDATE runs SET state = 'completed', outcome = :outcome, summary = :summary, error = NULL, lease_token = NULL,
    finished_at = now()
WHERE id = :run_id;

-- name: fail!
UPDATE runs SET state = 'failed', exit_reason = :exit_reason, error = :error, summary = :summary, lease_token = NULL,
    attempts_spent = attempts_spent + 1, finished_at = now()
WHERE id = :run_id;

-- name: hand_over!
UPDATE runs SET state = 'publishing', summary = :summary, error = NULL, lease_token = NULL WHERE id = :run_id;

-- name: insert_changeset!
INSERT INTO changesets (id, run_id, job_id, client_id, repository, branch, base_sha, base_branch, commit_sha,
    commit_author_name, commit_author_email, commit_time, commit_message, patch, files, insertions, deletions, publish,
    is_draft, verified, state, dispatch, dispatched_at)
SELECT :id, r.id, r.job_id, r.client_id, coalesce(r.repository, ''), r.branch, r.base_sha, r.base_branch, :commit_sha,
    :author_name, :author_email, :commit_time, :commit_message, :patch, :files, :insertions, :deletions, :publish,
    :publish = 'draft', :verified, :state, :dispatch, CASE WHEN :dispatch > 0 THEN now() END
FROM runs r WHERE r.id = :run_id;

-- name: retire_earlier
-- What earlier jobs of the same name have open on the run's repository and base, to be closed by whichever vcs looks
-- next; a review leaves what it reviews as it is. Beneath a review's commit may be somebody's: its branch stays.
UPDATE changesets e SET close_comment = :comment, deletes_branch = u.queue <> 'review', observe_at = now()
FROM runs r JOIN jobs j ON j.id = r.job_id, jobs o, runs u
WHERE r.id = :run_id AND r.queue <> 'review' AND j.name IS NOT NULL
  AND j.options ->> 'onExisting' IN ('update', 'replace')
  AND e.client_id = r.client_id AND repository_key(e.repository) = repository_key(r.repository)
  AND e.state = 'open' AND e.close_comment IS NULL AND e.id < :before
  AND e.base_branch IS NOT DISTINCT FROM r.base_branch
  AND o.id = e.job_id AND o.name = j.name AND o.id <> j.id
  AND u.id = e.run_id AND u.checkout ->> 'path' IS NOT DISTINCT FROM r.checkout ->> 'path'
RETURNING e.id, e.url;

-- name: renew
-- Prolong the leases with these tokens; says which runs are still held, and which of them are to stop or to hear their
-- user at once.
-- By token and not by holder: a claim whose commit nobody heard of must run out. Locked ascending, as completions drop
-- them: the process that renews completes runs of the same batch meanwhile.
WITH held AS MATERIALIZED (
    SELECT id FROM leases WHERE id = ANY(:ids::uuid[]) AND token = ANY(:tokens::uuid[]) ORDER BY id FOR NO KEY UPDATE
)
UPDATE leases l SET expires_at = clock_timestamp() + :lease::interval, taken = true FROM held h WHERE l.id = h.id
RETURNING l.id, l.token,
          (SELECT r.cancel_requested_at IS NOT NULL FROM runs r WHERE r.id = l.id) AS cancel_requested,
          EXISTS (SELECT FROM inbox i WHERE i.run_id = l.id AND i.read_at IS NULL AND i.interrupt) AS is_called;

-- name: seen!
-- This process lives.
INSERT INTO nodes (name, kind, capacity, address, hears_orders, beat)
VALUES (:name, :kind, :capacity, :address, :kind = 'agent', :beat)
ON CONFLICT (name) DO UPDATE SET seen_at = now(), capacity = excluded.capacity, address = excluded.address,
                                 beat = excluded.beat;

-- name: gone!
-- What it began with was handed back. Of what else it was given it has not heard: that is recalled.
WITH unheard AS (
    UPDATE leases SET expires_at = 'epoch' WHERE holder = :name AND kind = 'run' AND NOT taken
)
DELETE FROM nodes WHERE name = :name;
