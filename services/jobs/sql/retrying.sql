-- name: job^
SELECT id, state, kind, queue, name, prompt, options, metadata, priority, sealed FROM jobs WHERE id = :id AND client_id = :client_id;

-- name: runs
-- What a job did on each of its repositories, in their order.
SELECT r.id, r.state, r.repository, r.base_ref, r.base_sha, r.base_branch, r.branch, r.checkout,
       EXISTS (SELECT FROM changesets c WHERE c.run_id = r.id) AS has_changeset
FROM runs r WHERE r.job_id = :job_id ORDER BY r.position;

-- name: pass_on!
-- The work item is the new job's from now on, and is answered once more at that one's end.
UPDATE work_items SET job_id = :new_id, answered_at = NULL WHERE job_id = :old_id;
