-- name: living_agents
-- The one that lives longest first.
SELECT name, capacity FROM nodes
WHERE kind = 'agent' AND seen_at > now() - :alive::interval
ORDER BY started_at, name;

-- name: work^
-- Of a client's jobs that were submitted in this UTC day, and of older ones that are under way. Ids begin with the time.
WITH midnight AS (
    SELECT (lpad(to_hex((extract(epoch FROM date_trunc('day', now(), 'UTC')) * 1000)::bigint), 12, '0')
            || repeat('0', 20))::uuid AS id
)
SELECT coalesce(sum(runs_active), 0)::int AS active, coalesce(sum(runs_started), 0)::int AS started,
       coalesce(sum(runs_failed), 0)::int AS failed
FROM (SELECT runs_active, runs_started, runs_failed FROM jobs
      WHERE client_id = :client_id AND id >= (SELECT id FROM midnight)
      UNION ALL
      SELECT runs_active, runs_started, runs_failed FROM jobs
      WHERE client_id = :client_id AND state IN ('queued', 'running', 'cancelling')
      AND id < (SELECT id FROM midnight)) j;

-- name: under_way$
-- How many of a client's jobs have not ended, of those whose metadata has this key. What was cancelled is as good as over.
SELECT count(*)::int FROM jobs
WHERE client_id = :client_id AND state IN ('queued', 'running') AND cancel_requested_at IS NULL AND metadata ? :key;

-- name: key_stored_at$
-- Null where the client has no key of its own.
SELECT updated_at FROM client_settings WHERE client_id = :client_id AND settings ? 'anthropicApiKey';
