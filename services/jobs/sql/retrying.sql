-- name: job^
SELECT id, state, kind, queue, name, prompt, options, metadata, priority, sealed FROM jobs WHERE id = :id AND client_id = :client_id;

-- name: runs
-- What a job did on each of its repositories, in their order.
SELECT r.id, r.state, r.repository, r.base_ref, r.base_sha, r.base_branch, r.branch, r.checkout,
       EXISTS (SELECT FROM changesets c WHERE c.run_id = r.id) AS has_changeset
FROM runs r WHERE r.job_id = :job_id ORDER BY r.position;
