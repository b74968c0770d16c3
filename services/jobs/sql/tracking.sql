-- name: take_due
-- Published changesets whose forge is to be asked now; whoever takes them has `again` to do so.
-- None is to be closed whose branch another is about to be shown on: it is that one's pull request already, or soon.
UPDATE changesets c SET observe_at = now() + :again::interval
WHERE id IN (SELECT id FROM changesets WHERE observe_at <= now() AND forge IS NOT NULL
             ORDER BY observe_at LIMIT :most FOR UPDATE SKIP LOCKED)
RETURNING id, job_id, run_id, client_id, repository, branch, base_branch, commit_sha, forge, number, url, state,
          CASE WHEN close_comment IS NOT NULL AND NOT EXISTS (
                   SELECT FROM changesets n WHERE n.client_id = c.client_id AND n.branch = c.branch
                   AND n.repository = c.repository AND n.id <> c.id AND n.state IN ('queued', 'pushing'))
               THEN close_comment END AS close_comment,
          deletes_branch, published_at;

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
-- One that was woken while the forge was asked stays so: what woke it may be newer than the answer.
-- An old one is asked about less often: what is done to it is told by a webhook, or waits for a quarter of an hour. And
-- the fleet does not look more often than twice a second, however many are open: forges count all that they are asked.
UPDATE changesets SET
    state = :state, url = coalesce(nullif(:url, ''), url), number = coalesce(:number, number), is_draft = :is_draft,
    head_sha = nullif(:head_sha, ''), checks = :checks, review = :review, mergeable = :mergeable,
    merge_sha = nullif(:merge_sha, ''), observed_at = now(), error = NULL,
    observe_at = CASE WHEN :state <> 'merged' AND observe_at <= clock_timestamp() + interval '5 seconds' THEN observe_at
                      WHEN :state = 'open'
                      THEN now() + greatest(:again::interval, least((now() - published_at) / 20, interval '15 minutes'),
                               (SELECT count(*) FROM changesets WHERE observe_at IS NOT NULL) * interval '0.5 seconds')
                 END,
    closed_at = CASE WHEN :state <> 'open' THEN coalesce(closed_at, now()) END,
    close_comment = CASE WHEN :state = 'open' THEN close_comment END
WHERE id = :id;

-- name: defer!
UPDATE changesets SET observe_at = now() + :delay::interval, error = coalesce(:error, error)
WHERE id = :id AND observe_at IS NOT NULL;

-- name: wake
-- Ask the forge at once about what may have changed there: by pull request, by branch, or by the commit of its head.
-- What was closed may have been opened again. Two looks are five seconds apart, however often a check tells of itself.
UPDATE changesets SET observe_at = greatest(now(), observed_at + interval '5 seconds')
WHERE state IN ('open', 'closed') AND superseded_by IS NULL
  AND (observe_at IS NULL OR observe_at > greatest(now(), observed_at + interval '5 seconds'))
  AND forge = :forge
  AND (number = ANY(:numbers::int[]) OR branch = ANY(:branches::text[]) OR head_sha = ANY(:shas::text[]))
  AND lower(repository) LIKE ANY(:repositories::text[])
RETURNING id;
