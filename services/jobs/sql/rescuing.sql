-- name: is_stored$
-- Whether a run's checkpoint or changeset is exactly the patch of this digest. By digest: patches are large.
SELECT EXISTS (SELECT FROM checkpoints WHERE run_id = :run_id AND sha256(patch) = :digest)
    OR EXISTS (SELECT FROM changesets WHERE run_id = :run_id AND sha256(patch) = :digest);

-- name: checkpointed$
SELECT patch FROM checkpoints WHERE run_id = :run_id;

-- name: attempts_kept
-- The last attempt of each of these runs whose worktree its job keeps: until what it delivered is merged, closed or
-- replaced, or the time for it is over.
SELECT r.id, r.attempt FROM runs r JOIN jobs j ON j.id = r.job_id
WHERE r.id = ANY(:ids::uuid[]) AND r.state IN ('publishing', 'completed')
  AND coalesce(r.finished_at, now()) + make_interval(secs => (j.options ->> 'keepWorktreeSeconds')::int) > now()
  AND NOT EXISTS (SELECT FROM changesets c WHERE c.run_id = r.id AND c.state IN ('merged', 'closed'));

-- name: attempts_held
-- Which attempt of these runs an agent holds now.
SELECT id, attempt FROM runs WHERE id = ANY(:ids::uuid[]) AND state = 'running';
