-- name: key^
-- What tells the repository apart, and when what is asked of its forge from now on was asked at the earliest.
SELECT repository_key(:repository) AS repository_key,
       to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS read_at;

-- name: item^
SELECT w.id, w.job_id, j.state FROM work_items w JOIN jobs j ON j.id = w.job_id
WHERE w.client_id = :client_id AND w.kind = :kind AND repository_key(w.repository) = repository_key(:repository)
  AND w.number = :number AND w.subject = :subject;

-- name: insert
INSERT INTO work_items (id, client_id, kind, repository, number, subject, in_reply_to, job_id, changeset_id)
VALUES (:id, :client_id, :kind, :repository, :number, :subject, :in_reply_to, :job_id, :changeset_id)
ON CONFLICT DO NOTHING RETURNING id;

-- name: amend
-- While no agent has ever begun with it: a claim locks the job's row before it reads the prompt. What was read from the
-- forge earlier never takes the place of what was read later.
UPDATE jobs SET prompt = :prompt, options = :options, metadata = :metadata
WHERE id = :job_id AND state = 'queued' AND cancel_requested_at IS NULL AND prompt <> :prompt
  AND coalesce(metadata ->> 'readAt', '') < :read_at
RETURNING id;

-- name: open_changeset^
-- The newest that the forge shows as open, of this pull request or with this commit as its head.
SELECT c.id, c.client_id, n.name AS client_name, c.job_id, c.repository, c.branch, c.base_branch, c.number,
       c.is_draft, j.name, j.prompt, j.options, j.sealed, r.checkout
FROM changesets c JOIN jobs j ON j.id = c.job_id JOIN runs r ON r.id = c.run_id JOIN clients n ON n.id = c.client_id
WHERE c.forge = :forge AND c.state = 'open' AND c.superseded_by IS NULL AND n.disabled_at IS NULL
  AND (c.number = :number::int OR c.head_sha = :head_sha::text)
  AND right(regexp_replace(lower(c.repository), '(\.git)?/*$', ''), length(:full_name) + 1)
      IN ('/' || lower(:full_name), ':' || lower(:full_name))
ORDER BY c.id DESC LIMIT 1;

-- name: count$
-- How many of the pull request's work items there are of a kind.
SELECT count(*) FROM work_items
WHERE client_id = :client_id AND kind = :kind AND repository_key(repository) = repository_key(:repository)
  AND number = :number;

-- name: ended
-- Work items whose job has ended and was not told of, the oldest first, with what came of its run. Nobody else has them.
-- Their jobs are looked up one by one (`OFFSET 0`): few are not told of, and most of what ever ended was.
SELECT w.id, w.kind, w.repository, w.number, w.in_reply_to, j.state AS job_state, r.outcome, r.exit_reason, r.error,
       r.summary, c.url, c.commit_sha, c.error AS changeset_error,
       CASE WHEN c.published_at IS NULL THEN substring(c.patch FOR 200000) END AS patch
FROM work_items w
CROSS JOIN LATERAL (SELECT state FROM jobs WHERE id = w.job_id OFFSET 0) j
CROSS JOIN LATERAL (SELECT id, outcome, exit_reason, error, summary FROM runs WHERE job_id = w.job_id AND position = 0
                    OFFSET 0) r
LEFT JOIN LATERAL (SELECT url, commit_sha, error, published_at, patch FROM changesets WHERE run_id = r.id
                   OFFSET 0) c ON true
WHERE w.answered_at IS NULL AND j.state IN ('completed', 'failed', 'cancelled')
ORDER BY w.created_at LIMIT :most FOR UPDATE OF w SKIP LOCKED;

-- name: answered!
UPDATE work_items SET answered_at = now() WHERE id = :id AND answered_at IS NULL;
