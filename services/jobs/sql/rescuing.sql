-- name: is_stored$
-- Whether a run's checkpoint or changeset is exactly the patch of this digest. By digest: patches are large.
SELECT EXISTS (SELECT FROM checkpoints WHERE run_id = :run_id AND sha256(patch) = :digest)
    OR EXISTS (SELECT FROM changesets WHERE run_id = :run_id AND sha256(patch) = :digest);
