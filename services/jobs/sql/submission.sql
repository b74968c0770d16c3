-- name: client_by_key^
-- Who holds this API key.
SELECT id, name, is_operator FROM clients WHERE api_key_hash = :api_key_hash AND disabled_at IS NULL;

-- name: ensure_client!
-- Make the client, or give it this key.
INSERT INTO clients (id, name, api_key_hash, is_operator) VALUES (:id, :name, :api_key_hash, :is_operator)
ON CONFLICT (name) DO UPDATE
    SET api_key_hash = excluded.api_key_hash, is_operator = clients.is_operator OR excluded.is_operator
    WHERE (clients.api_key_hash, clients.is_operator) IS DISTINCT FROM
          (excluded.api_key_hash, clients.is_operator OR excluded.is_operator);

-- name: claim_keys!
-- Claim Idempotency-Keys for 24 h; nothing where one is taken. Waits for a transaction that is claiming one now.
-- Our own keys begin with a section sign (167), and are claimed until they are forgotten.
-- Their jobs are inserted later in the same transaction: the foreign key is checked at the commit.
INSERT INTO idempotency_keys (client_id, key, body_hash, job_id)
SELECT * FROM unnest(:client_ids::uuid[], :keys::text[], :body_hashes::bytea[], :job_ids::uuid[])
ON CONFLICT (client_id, key) DO UPDATE
    SET body_hash = excluded.body_hash, job_id = excluded.job_id, created_at = now()
    WHERE idempotency_keys.created_at < now() - interval '24 hours' AND NOT starts_with(idempotency_keys.key, chr(167));

-- name: key_holders
-- Which jobs these Idempotency-Keys stand for.
SELECT k.client_id, k.key, k.job_id, k.body_hash
FROM unnest(:client_ids::uuid[], :keys::text[]) AS w (client_id, key) JOIN idempotency_keys k USING (client_id, key);

-- name: queued_limits
SELECT scope, name, slots FROM limits WHERE scope = 'queued';

-- name: queue_turn!
-- One transaction at a time adds to what a client has queued.
SELECT pg_advisory_xact_lock(hashtextextended('queued jobs of ' || :client_id, 0));

-- name: queued_jobs$
-- How many jobs of the client are queued, counted no further than to the limit.
SELECT count(*) FROM (
    SELECT FROM jobs WHERE client_id = :client_id AND state = 'queued' LIMIT :most
) AS counted;

-- name: insert_jobs^
-- Jobs with their runs and first events; those that are there already, of a try whose commit was unknown, are left.
-- A job's turn begins where its client's clock stands.
WITH new_jobs AS (
    INSERT INTO jobs (id, client_id, kind, name, prompt, options, metadata, priority, not_before, ready_from, queue,
                      max_parallel, retry_of, sealed, runs_total, last_event_number, fair_tag)
    SELECT j.id, j.client_id, j.kind, j.name, j.prompt, j.options, j.metadata, j.priority, j.not_before,
           CASE WHEN j.not_before > now() THEN j.not_before END, j.queue, j.max_parallel, j.retry_of, j.sealed,
           j.total, 1,
           coalesce((SELECT c.clock FROM fair_clocks c WHERE c.client_id = j.client_id AND c.queue = j.queue), 0)
    FROM unnest(:ids::uuid[], :client_ids::uuid[], :kinds::text[], :names::text[], :prompts::text[], :options::jsonb[],
                :metadatas::jsonb[], :priorities::int[], :not_befores::timestamptz[], :queues::text[],
                :max_parallels::int[], :retries_of::uuid[], :sealeds::bytea[], :totals::int[])
         AS j (id, client_id, kind, name, prompt, options, metadata, priority, not_before, queue, max_parallel,
               retry_of, sealed, total)
    WHERE NOT (:unless_limited::bool
               AND EXISTS (SELECT FROM limits WHERE scope = 'queued' AND name = ANY(:limit_names::text[])))
    ON CONFLICT (id) DO NOTHING
    RETURNING id, client_id, priority, max_parallel, not_before, queue, options
), new_runs AS (
    INSERT INTO runs (id, job_id, client_id, position, queue, repository, base_ref, branch, priority, max_parallel,
                      not_before, resumes, base_sha, base_branch, checkout, queue_seconds, queue_deadline, run_seconds,
                      idle_seconds)
    SELECT r.id, j.id, j.client_id, r.position, j.queue, r.repository, r.base_ref, r.branch, j.priority, j.max_parallel,
           j.not_before, r.resumes, r.base_sha, r.base_branch, r.checkout,
           (j.options ->> 'queueDeadlineSeconds')::int,
           greatest(now(), j.not_before) + make_interval(secs => (j.options ->> 'queueDeadlineSeconds')::int),
           (j.options ->> 'deadlineSeconds')::int, (j.options ->> 'idleLimitSeconds')::int
    FROM unnest(:run_ids::uuid[], :run_jobs::uuid[], :positions::int[], :repositories::text[], :base_refs::text[],
                :branches::text[], :resumed::uuid[], :base_shas::text[], :base_branches::text[], :checkouts::jsonb[])
         AS r (id, job_id, position, repository, base_ref, branch, resumes, base_sha, base_branch, checkout)
    JOIN new_jobs j ON j.id = r.job_id
), told AS (
    INSERT INTO events (job_id, client_id, number, id, attempt, kind, data, created_at)
    SELECT e.job_id, e.client_id, 1, e.id, 0, 'job.submitted', e.data, now()
    FROM unnest(:ids::uuid[], :client_ids::uuid[], :event_ids::uuid[], :events::jsonb[])
         AS e (job_id, client_id, id, data)
    JOIN new_jobs n ON n.id = e.job_id
)
SELECT coalesce((SELECT max(created_at) FROM jobs WHERE id = ANY(:ids::uuid[])), now()) AS created_at,
       EXISTS (SELECT FROM limits WHERE scope = 'queued' AND name = ANY(:limit_names::text[])) AS is_limited;
