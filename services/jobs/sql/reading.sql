-- name: job^
SELECT j.* FROM jobs j WHERE j.id = :id AND j.client_id = :client_id;

-- name: jobs_page
-- Newest first; every filter may be null. Ids are ordered by time of creation, so they are the cursor too.
SELECT j.* FROM jobs j
WHERE j.client_id = :client_id AND (:before::uuid IS NULL OR j.id < :before)
  AND (:states::text[] IS NULL OR j.state = ANY(:states::text[]))
  AND (:kind::text IS NULL OR j.kind = :kind)
  AND (:name::text IS NULL OR j.name = :name)
  AND (:created_after::timestamptz IS NULL OR j.created_at >= :created_after)
  AND (:created_before::timestamptz IS NULL OR j.created_at < :created_before)
  AND (:metadata::jsonb IS NULL OR (j.metadata @> :metadata AND j.metadata <> '{}'))
  AND (:repository::text IS NULL OR EXISTS (SELECT FROM runs r WHERE r.job_id = j.id
                                            AND md5(r.repository) = md5(:repository) AND r.repository = :repository))
ORDER BY j.id DESC LIMIT :most OFFSET :skipped;

-- name: jobs_count$
-- How many there are of those, counted no further than to `most`.
SELECT count(*) FROM (
    SELECT FROM jobs j
    WHERE j.client_id = :client_id
      AND (:states::text[] IS NULL OR j.state = ANY(:states::text[]))
      AND (:kind::text IS NULL OR j.kind = :kind)
      AND (:name::text IS NULL OR j.name = :name)
      AND (:created_after::timestamptz IS NULL OR j.created_at >= :created_after)
      AND (:created_before::timestamptz IS NULL OR j.created_at < :created_before)
      AND (:metadata::jsonb IS NULL OR (j.metadata @> :metadata AND j.metadata <> '{}'))
      AND (:repository::text IS NULL OR EXISTS (SELECT FROM runs r WHERE r.job_id = j.id
                                                AND md5(r.repository) = md5(:repository) AND r.repository = :repository))
    LIMIT :most
) AS counted;

-- name: queue_position$
-- The place of a queued job among its client's: by priority, then by age; null where it is not queued.
SELECT (SELECT count(*) FROM jobs o
        WHERE o.client_id = j.client_id AND o.state = 'queued'
          AND (o.priority > j.priority OR (o.priority = j.priority AND o.id <= j.id)))
FROM jobs j WHERE j.id = :id AND j.client_id = :client_id AND j.state = 'queued';

-- name: runs_page
-- By place in the job.
SELECT r.* FROM runs r
WHERE r.job_id = :job_id AND r.client_id = :client_id AND r.position > :after
ORDER BY r.position LIMIT :most;

-- name: run^
SELECT r.* FROM runs r WHERE r.id = :id AND r.client_id = :client_id;

-- name: changesets_of_runs
SELECT c.id, c.run_id, c.job_id, c.state, c.repository, c.branch, c.base_sha, c.base_branch, c.commit_sha, c.files,
       c.insertions, c.deletions, c.url, c.error, c.publish, c.is_draft, c.verified, c.forge, c.number, c.superseded_by,
       c.head_sha, c.checks, c.review, c.mergeable, c.merge_sha, c.observed_at, c.created_at, c.published_at, c.closed_at
FROM changesets c WHERE c.run_id = ANY(:run_ids::uuid[]);

-- name: changesets_page
-- Newest first; every filter may be null.
SELECT c.id, c.run_id, c.job_id, c.state, c.repository, c.branch, c.base_sha, c.base_branch, c.commit_sha, c.files,
       c.insertions, c.deletions, c.url, c.error, c.publish, c.is_draft, c.verified, c.forge, c.number, c.superseded_by,
       c.head_sha, c.checks, c.review, c.mergeable, c.merge_sha, c.observed_at, c.created_at, c.published_at, c.closed_at
FROM changesets c
WHERE c.client_id = :client_id AND (:before::uuid IS NULL OR c.id < :before)
  AND (:id::uuid IS NULL OR c.id = :id)
  AND (:state::text IS NULL OR c.state = :state)
  AND (:job_id::uuid IS NULL OR c.job_id = :job_id)
  AND (:run_id::uuid IS NULL OR c.run_id = :run_id)
  AND (:repository::text IS NULL OR c.repository = :repository)
ORDER BY c.id DESC LIMIT :most;

-- name: patch$
SELECT c.patch FROM changesets c WHERE c.run_id = :run_id AND c.client_id = :client_id;

-- name: messages
SELECT m.number, m.attempt, m.role, m.body, m.created_at FROM messages m WHERE m.run_id = :run_id ORDER BY m.number;

-- name: logs
SELECT e.number, e.created_at, e.data FROM events e
WHERE e.run_id = :run_id AND e.kind = 'log' ORDER BY e.number LIMIT 10000;

-- name: events_after
-- A job's durable events behind a number, in order.
SELECT e.job_id, e.number, e.id, e.run_id, e.attempt, e.kind, e.data, e.created_at, e.client_id, NULL::bigint AS sequence
FROM events e WHERE e.job_id = :job_id AND e.number > :after ORDER BY e.number LIMIT :most;

-- name: published_range
-- All jobs' events of a client with a sequence in (after, through], in order, as ``assigned`` in outbox.sql has them.
SELECT e.job_id, e.number, e.id, e.run_id, e.attempt, e.kind, e.data, e.created_at, e.client_id, e.sequence
FROM events e
WHERE e.sequence > :after AND e.sequence <= :through AND e.client_id = :client_id
UNION ALL
SELECT e.job_id, e.number, e.id, e.run_id, e.attempt, e.kind, e.data, e.created_at, :client_id, t.sequence
FROM (
    SELECT o.job_id, o.number, b.base + o.place AS sequence
    FROM (SELECT job_ids, numbers, last_sequence - cardinality(numbers) AS base FROM event_batches
          WHERE last_sequence > :after ORDER BY last_sequence LIMIT greatest(0, :through::bigint - :after::bigint)) b
    CROSS JOIN LATERAL unnest(b.job_ids, b.numbers) WITH ORDINALITY AS o (job_id, number, place)
    WHERE b.base < :through
) t JOIN events e ON e.job_id = t.job_id AND e.number = t.number
WHERE t.sequence > :after AND t.sequence <= :through
  AND coalesce(e.client_id, (SELECT j.client_id FROM jobs j WHERE j.id = e.job_id)) = :client_id
ORDER BY sequence LIMIT :most;

-- name: last_assigned$
-- NATS may not have the last ones yet; that they will be published in this order is certain.
SELECT assigned FROM event_cursor;

-- name: first_kept$
-- The lowest sequence that is still here; null: none is.
SELECT coalesce(
    (SELECT min(sequence) FROM events WHERE sequence IS NOT NULL),
    (SELECT b.last_sequence - cardinality(b.numbers) + o.place
     FROM event_batches b CROSS JOIN LATERAL unnest(b.job_ids, b.numbers) WITH ORDINALITY AS o (job_id, number, place)
     JOIN events e ON e.job_id = o.job_id AND e.number = o.number
     WHERE b.last_sequence IS NOT NULL ORDER BY b.last_sequence, o.place LIMIT 1));
