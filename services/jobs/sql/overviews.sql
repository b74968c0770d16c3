-- name: first_runs
-- The first run of each of these jobs, and what is published of it.
SELECT r.job_id, r.id, r.repository, r.branch, r.outcome, r.exit_reason, r.error, r.summary, c.url
FROM runs r LEFT JOIN changesets c ON c.run_id = r.id
WHERE r.job_id = ANY(:job_ids::uuid[]) AND r.client_id = :client_id AND r.position = 0;

-- name: newest_events
-- Of these kinds, the newest first.
SELECT e.job_id, e.number, e.id, e.run_id, e.attempt, e.kind, e.data, e.created_at, e.client_id, NULL::bigint AS sequence
FROM events e
WHERE e.job_id = :job_id AND e.kind = ANY(:kinds::text[])
  AND EXISTS (SELECT FROM jobs j WHERE j.id = :job_id AND j.client_id = :client_id)
ORDER BY e.number DESC LIMIT :most;
