-- name: client_by_key^
-- Who holds this API key.
SELECT id, name FROM clients WHERE api_key_hash = :api_key_hash;

-- name: ensure_client!
-- Make the client, or give it this key.
INSERT INTO clients (id, name, api_key_hash) VALUES (:id, :name, :api_key_hash)
ON CONFLICT (name) DO UPDATE SET api_key_hash = excluded.api_key_hash
WHERE clients.api_key_hash IS DISTINCT FROM excluded.api_key_hash;

-- name: claim_key!
-- Claim an Idempotency-Key for 24 h; nothing where it is taken. Waits for a transaction that is claiming it now.
-- Its job is inserted later in the same transaction: the foreign key is checked at the commit.
INSERT INTO idempotency_keys (client_id, key, body_hash, job_id) VALUES (:client_id, :key, :body_hash, :job_id)
ON CONFLICT (client_id, key) DO UPDATE
    SET body_hash = excluded.body_hash, job_id = excluded.job_id, created_at = now()
    WHERE idempotency_keys.created_at < now() - interval '24 hours';

-- name: key_holder^
-- Which job an Idempotency-Key stands for.
SELECT job_id, body_hash FROM idempotency_keys WHERE client_id = :client_id AND key = :key;

-- name: insert_job!
INSERT INTO jobs (id, client_id, kind, name, prompt, options, priority, not_before, runs_total)
VALUES (:id, :client_id, :kind, :name, :prompt, :options, :priority, :not_before, :runs_total);

-- name: insert_runs!
-- One run a repository, in the order given.
INSERT INTO runs (id, job_id, client_id, position, queue, repository, base_ref, branch, priority, max_parallel, not_before)
SELECT r.id, :job_id, :client_id, r.position, :queue, r.repository, r.base_ref, r.branch, :priority, :max_parallel, :not_before
FROM unnest(:ids::uuid[], :positions::int[], :repositories::text[], :base_refs::text[], :branches::text[])
     AS r (id, position, repository, base_ref, branch);
