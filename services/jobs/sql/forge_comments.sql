-- name: queue!
-- Due at once; one that is there already, of a try whose commit was unknown, is left.
INSERT INTO forge_comments (id, work_item_id, repository, number, in_reply_to, body)
VALUES (:id, :work_item_id, :repository, :number, :in_reply_to, :body)
ON CONFLICT (id) DO NOTHING;

-- name: take_due
-- Comments that are to be posted now; whoever takes them has `again` to do so. Of one work item the oldest first: the
-- next is said when that is posted or given up.
UPDATE forge_comments SET due_at = now() + :again::interval, attempts = attempts + 1
WHERE id IN (SELECT c.id FROM forge_comments c
             WHERE c.due_at <= now() AND NOT EXISTS (
                 SELECT FROM forge_comments e WHERE e.work_item_id = c.work_item_id AND e.due_at IS NOT NULL
                 AND (e.created_at, e.id) < (c.created_at, c.id))
             ORDER BY c.due_at LIMIT :most FOR UPDATE OF c SKIP LOCKED)
RETURNING id, repository, number, in_reply_to, body, attempts, created_at;

-- name: posted!
UPDATE forge_comments SET due_at = NULL, url = :url, error = NULL, posted_at = now()
WHERE id = :id AND posted_at IS NULL;

-- name: retry!
-- By whoever has taken it, and once: ``spent`` is 0 where the try was none, since the forge wanted us to wait.
UPDATE forge_comments SET due_at = now() + :delay::interval, error = :error, attempts = attempts - 1 + :spent
WHERE id = :id AND attempts = :tries AND due_at IS NOT NULL;

-- name: give_up!
UPDATE forge_comments SET due_at = NULL, error = :error WHERE id = :id AND attempts = :tries AND due_at IS NOT NULL;
