-- name: take_due
-- Published changesets whose forge is to be asked now; whoever takes them has `again` to do so.
UPDATE changesets SET observe_at = now() + :again::interval
WHERE id IN (SELECT id FROM changesets WHERE observe_at <= now() AND forge IS NOT NULL
             ORDER BY observe_at LIMIT :most FOR UPDATE SKIP LOCKED)
RETURNING id, job_id, run_id, client_id, repository, branch, base_branch, commit_sha, forge, number, url, state,
          close_comment, deletes_branch, published_at;

-- name: published^
SELECT id, job_id, run_id, client_id, repository, branch, base_branch, commit_sha, forge, number, url, state,
       close_comment, deletes_branch, published_at
FROM changesets WHERE id = :id;

-- name: locked^
-- What was known of a changeset until now.
SELECT c.id, c.job_id, c.run_id, c.state, c.url, c.number, c.head_sha, c.checks, c.review, c.mergeable, c.is_draft,
       c.superseded_by, r.attempt
FROM changesets c JOIN runs r ON r.id = c.run_id
WHERE c.id = :id AND c.state IN ('open', 'closed', 'merged') FOR UPDATE OF c;

-- name: record!
-- One that has become due while the forge was asked stays due: what woke it may be newer than the answer.
UPDATE changesets SET
    state = :state, url = coalesce(nullif(:url, ''), url), number = coalesce(:number, number), is_draft = :is_draft,
    head_sha = nullif(:head_sha, ''), checks = :checks, review = :review, mergeable = :mergeable,
    merge_sha = nullif(:merge_sha, ''), observed_at = now(),
    observe_at = CASE WHEN :state <> 'merged' AND observe_at <= clock_timestamp() THEN observe_at
                      WHEN :state = 'open' THEN now() + :again::interval END,
    closed_at = CASE WHEN :state <> 'open' THEN coalesce(closed_at, now()) END,
    close_comment = CASE WHEN :state = 'open' THEN close_comment END
WHERE id = :id;

-- name: defer!
UPDATE changesets SET observe_at = now() + :delay::interval WHERE id = :id AND observe_at IS NOT NULL;

-- name: wake
-- Ask the forge at once about what may have changed there: by pull request, by branch, or by the commit of its head.
-- What was closed may have been opened again.
UPDATE changesets SET observe_at = now()
WHERE state IN ('open', 'closed') AND superseded_by IS NULL AND (observe_at IS NULL OR observe_at > now())
  AND forge = :forge
  AND (number = ANY(:numbers::int[]) OR branch = ANY(:branches::text[]) OR head_sha = ANY(:shas::text[]))
  AND lower(repository) LIKE ANY(:repositories::text[])
RETURNING id;

-- name: remember_delivery
-- A delivery of a webhook, once.
INSERT INTO webhook_deliveries (source, delivery, event) VALUES (:source, :delivery, :event)
ON CONFLICT (source, delivery) DO NOTHING RETURNING delivery;

-- name: forget_delivery!
DELETE FROM webhook_deliveries WHERE source = :source AND delivery = :delivery;
