-- name: job^
SELECT id, state, kind, queue, name, prompt, options, metadata, priority, sealed FROM jobs WHERE id = :id AND client_id = :client_id;

-- name: runs
-- What a job did on each of its repositories, in their order; and whether its branch may be in use: by its own changeset,
-- or by a job that has done it again already, on the same branch.
SELECT r.id, r.state, r.repository, r.base_ref, r.base_sha, r.base_branch, r.branch, r.checkout,
       CASE WHEN r.attempt > 0 AND (r.resumes IS NULL OR (SELECT count(*) FROM messages m WHERE m.run_id = r.id AND m.number = 1) > 0)
            THEN r.id ELSE r.resumes END AS leaves_off,
       EXISTS (SELECT FROM changesets c WHERE c.run_id = r.id)
       OR EXISTS (SELECT FROM jobs n JOIN runs o ON o.job_id = n.id
                  WHERE n.retry_of = r.job_id AND o.repository = r.repository AND o.branch = r.branch) AS is_branch_used
FROM runs r WHERE r.job_id = :job_id ORDER BY r.position;

-- name: take_branches
-- The branches of these runs pass on to whoever takes them first: two may do a job again at once, and neither sees the
-- other's yet. By keys of our own, which begin with a section sign (167).
INSERT INTO idempotency_keys (client_id, key, body_hash, job_id)
SELECT :client_id, chr(167) || 'branch of ' || r.id, '', :job_id FROM unnest(:run_ids::uuid[]) AS r (id)
ON CONFLICT (client_id, key) DO NOTHING
RETURNING right(key, 36)::uuid AS run_id;

-- name: pass_on!
-- The work item is the new job's from now on, and is answered once more at that one's end.
UPDATE work_items SET job_id = :new_id, answered_at = NULL WHERE job_id = :old_id;
