-- name: unclaimed
-- Dispatched runs whose work order nobody claimed in time. Only a scheduler of before ADR 20 leaves runs in this state.
SELECT id, job_id FROM runs
WHERE state = 'dispatched' AND dispatched_at < now() - :overdue::interval ORDER BY dispatched_at LIMIT 200;

-- name: recall
-- Their stay in the queue goes on where an order went out in vain. One whose order was sent by code before that was so
-- has no deadline any more: it gets a new one.
UPDATE runs SET state = 'queued',
                queue_deadline = coalesce(queue_deadline, now() + make_interval(secs => queue_seconds))
WHERE id = ANY(:ids::uuid[]) AND state = ANY(:sources::text[]) AND dispatched_at < now() - :overdue::interval
  AND cancel_requested_at IS NULL
RETURNING id, job_id, attempt, state, queue_seconds, run_seconds, queue_deadline < now() AS is_overdue;

-- name: expired_runs
-- Runs whose agent has not renewed; nothing expires until one lease length after Postgres itself has started.
SELECT l.id, r.job_id FROM leases l JOIN runs r ON r.id = l.id
WHERE l.kind = 'run' AND l.expires_at < clock_timestamp()
  AND pg_postmaster_start_time() < clock_timestamp() - :lease::interval
ORDER BY l.expires_at LIMIT 200;

-- name: take_expired
-- Lock the runs among these whose lease is still expired and is still theirs, and the lease: no renewal comes between.
-- One that is being renewed just now is left, since whoever waits for it may be waited for.
-- Not counted against a run: a lease that nobody could renew, since Postgres or the way to it was away, and one whose order
-- nobody has heard: it was recalled, or its agent lives and has never renewed it. One that died may have died of the run.
SELECT r.id, r.job_id, r.attempt, r.state, r.queue_seconds, r.run_seconds, r.times_lost,
       r.cancel_requested_at IS NOT NULL AS cancel_requested,
       NOT l.taken AND (l.expires_at = 'epoch'
                        OR EXISTS (SELECT FROM nodes n
                                   WHERE n.name = l.holder AND n.seen_at > now() - :lives::interval)) AS is_unheard,
       l.expires_at >= greatest(pg_postmaster_start_time(), now() - :connected_for::interval) + :lease::interval AS counts
FROM runs r JOIN leases l ON l.id = r.id
WHERE r.id = ANY(:ids::uuid[]) AND r.state = ANY(:sources::text[]) AND l.token = r.lease_token
  AND l.expires_at < clock_timestamp()
ORDER BY r.id FOR UPDATE OF r FOR UPDATE OF l SKIP LOCKED;

-- name: requeue_lost!
UPDATE runs r SET state = 'queued', times_lost = times_lost + l.counts::int, lease_token = NULL, agent = NULL,
                  time_left = greatest(run_deadline - now(), interval '1 second'), run_deadline = NULL,
                  queue_deadline = now() + make_interval(secs => queue_seconds)
FROM unnest(:ids::uuid[], :counts::bool[]) AS l (id, counts) WHERE r.id = l.id;

-- name: requeue_unheard
-- Their stay in the queue goes on, with all of their time to work. That they had begun was told, and stays.
UPDATE runs r SET state = 'queued', lease_token = NULL, agent = NULL, time_left = run_deadline - dispatched_at, run_deadline = NULL
WHERE id = ANY(:ids::uuid[])
RETURNING id, job_id, attempt, state, queue_seconds, run_seconds, queue_deadline < now() AS is_overdue;

-- name: avoid!
-- Nothing is given to this agent before it says again how many places it has.
UPDATE nodes SET capacity = 0 WHERE name = :agent;

-- name: recall_orders!
-- Orders that nobody has heard: the leases that were not taken up run out now.
UPDATE leases l SET expires_at = 'epoch'
FROM (SELECT id FROM leases WHERE id = ANY(:ids::uuid[]) AND token = ANY(:tokens::uuid[]) AND NOT taken
      FOR NO KEY UPDATE SKIP LOCKED) o  -- one that is locked is being taken up
WHERE l.id = o.id;

-- name: drop_leases!
DELETE FROM leases WHERE id = ANY(:ids::uuid[]);

-- name: runs_to_cancel
-- Accepted cancels that are not carried out yet: of runs that are idle, and of those that agents hold, so that no number
-- of these keeps the former back.
(SELECT id, job_id, state FROM runs
 WHERE cancel_requested_at IS NOT NULL AND state NOT IN ('completed', 'failed', 'cancelled') AND state <> 'running'
 ORDER BY cancel_requested_at LIMIT :most)
UNION ALL
(SELECT id, job_id, state FROM runs
 WHERE cancel_requested_at IS NOT NULL AND state NOT IN ('completed', 'failed', 'cancelled') AND state = 'running'
 ORDER BY cancel_requested_at LIMIT :most);

-- name: take_idle
-- Lock the runs among these that nobody works on: no agent, and no vcs at their changeset.
SELECT r.id, r.job_id, r.attempt, r.state FROM runs r
LEFT JOIN changesets c ON c.run_id = r.id
WHERE r.id = ANY(:ids::uuid[]) AND r.state IN ('queued', 'dispatched', 'waiting', 'publishing')
  AND r.state = ANY(:sources::text[]) AND r.cancel_requested_at IS NOT NULL
  AND (c.id IS NULL OR c.state <> 'pushing')
ORDER BY r.id FOR UPDATE OF r;

-- name: cancel_runs!
UPDATE runs SET state = 'cancelled', finished_at = now(), lease_token = NULL WHERE id = ANY(:ids::uuid[]);

-- name: fail_lost!
UPDATE runs SET state = 'failed', exit_reason = 'lost', error = :error, finished_at = now(), lease_token = NULL,
                times_lost = times_lost + 1
WHERE id = ANY(:ids::uuid[]);

-- name: unqueue_changesets!
-- The changesets of cancelled runs are kept, but not published.
UPDATE changesets SET state = 'stored' WHERE run_id = ANY(:run_ids::uuid[]) AND state = 'queued';

-- name: lock_job_for_cancel
-- The runs of a job that a cancel can still reach, locked.
SELECT r.id, r.state FROM runs r LEFT JOIN changesets c ON c.run_id = r.id
WHERE r.job_id = :job_id AND (:run_id::uuid IS NULL OR r.id = :run_id)
  AND r.state NOT IN ('completed', 'failed', 'cancelled') AND (c.id IS NULL OR c.state <> 'pushing')
ORDER BY r.id FOR UPDATE OF r;

-- name: mark_cancelled!
UPDATE runs SET cancel_requested_at = coalesce(cancel_requested_at, now()) WHERE id = ANY(:ids::uuid[]);

-- name: run_of_client^
SELECT id, job_id, state, cancel_requested_at IS NOT NULL AS cancel_requested FROM runs
WHERE id = :id AND client_id = :client_id;

-- name: overdue
-- Runs past a deadline: queued ones, and running ones that nobody has ended.
(SELECT id, job_id FROM runs WHERE state = 'queued' AND queue_deadline < now() ORDER BY queue_deadline LIMIT 200)
UNION ALL
(SELECT id, job_id FROM runs WHERE state = 'running' AND run_deadline < now() - :grace::interval
 ORDER BY run_deadline LIMIT 200);

-- name: take_overdue
SELECT id, job_id, attempt, state, queue_seconds, run_seconds FROM runs
WHERE id = ANY(:ids::uuid[]) AND state = ANY(:sources::text[]) AND cancel_requested_at IS NULL
  AND ((state = 'queued' AND queue_deadline < now()) OR (state = 'running' AND run_deadline < now() - :grace::interval))
ORDER BY id FOR UPDATE;

-- name: fail_run!
UPDATE runs SET state = 'failed', exit_reason = :exit_reason, error = :error, finished_at = now(), lease_token = NULL
WHERE id = :id;

-- name: forget_nodes!
DELETE FROM nodes
WHERE name IN (SELECT name FROM nodes WHERE seen_at < now() - interval '1 hour' LIMIT 1000);

-- name: forget_keys!
-- Our own keys, which begin with a section sign (167), are kept for as long as what they are for may be tried again.
DELETE FROM idempotency_keys
WHERE (client_id, key) IN (SELECT client_id, key FROM idempotency_keys
                           WHERE created_at < now() - interval '24 hours'
                             AND (NOT starts_with(key, chr(167)) OR created_at < now() - interval '30 days')
                           ORDER BY created_at LIMIT 5000);

-- name: forget_deliveries!
-- Those that are too old to be sent again: forges do so for some days.
DELETE FROM webhook_deliveries
WHERE (source, delivery) IN (SELECT source, delivery FROM webhook_deliveries
                             WHERE received_at < now() - interval '7 days' ORDER BY received_at LIMIT 5000);

-- name: forget_comments!
-- Those that nobody will say (again), a month after they were queued. Ids begin with the time.
DELETE FROM forge_comments
WHERE id IN (SELECT id FROM forge_comments
             WHERE due_at IS NULL
               AND id < (SELECT (lpad(to_hex((extract(epoch FROM now() - interval '30 days') * 1000)::bigint), 12, '0')
                                 || repeat('0', 20))::uuid)
             ORDER BY id LIMIT 5000);

-- name: forget_paces!
-- Of credentials that nobody has used for so long that their pauses are over and their buckets full: tokens of jobs
-- come and go. One that is in use just now is left: its turn is not waited for.
DELETE FROM forge_pace
WHERE scope IN (SELECT scope FROM forge_pace
                WHERE refilled_at < now() - interval '1 day' AND paused_until < now() - interval '1 day'
                LIMIT 5000 FOR UPDATE SKIP LOCKED);

-- name: forget_installations!
-- Of Apps, a month after they were removed: until then what is told late is not to bring them back.
DELETE FROM forge_installations
WHERE installation_id IN (SELECT installation_id FROM forge_installations
                          WHERE removed_at < now() - interval '30 days' LIMIT 1000);

-- name: forget_unheard!
-- What was said to runs that ended before they heard it: nobody will, and the sweep is not to look at it again.
UPDATE inbox SET read_at = now()
WHERE (run_id, number) IN (
    SELECT i.run_id, i.number FROM inbox i JOIN runs r ON r.id = i.run_id
    WHERE i.read_at IS NULL AND r.state IN ('completed', 'failed', 'cancelled') LIMIT 5000);

-- name: forget_reservations!
-- Those of attempts that have ended without storing what their last request used: crashed, failed, parked, cancelled.
-- None that is new: a later attempt may be putting its own in this one's place, unseen by the look at the runs.
DELETE FROM reservations v
WHERE v.created_at < now() - interval '5 seconds'
  AND NOT EXISTS (SELECT FROM runs r WHERE r.id = v.run_id AND r.state = 'running' AND r.attempt = v.attempt);
