-- name: insert^
-- Nothing where the name is taken, or an earlier try has made it.
INSERT INTO clients (id, name, api_key_hash, is_operator) VALUES (:id, :name, :api_key_hash, :is_operator)
ON CONFLICT DO NOTHING
RETURNING id, name, is_operator, created_at, disabled_at;

-- name: client^
SELECT id, name, is_operator, created_at, disabled_at FROM clients WHERE id = :id;

-- name: page
-- By name; both filters may be null.
SELECT id, name, is_operator, created_at, disabled_at FROM clients
WHERE (:after::text IS NULL OR name > :after) AND (:name::text IS NULL OR name = :name)
ORDER BY name LIMIT :most;

-- name: replace_key^
-- Nothing where it is disabled, or is not.
UPDATE clients SET api_key_hash = :api_key_hash WHERE id = :id AND disabled_at IS NULL
RETURNING id, name, is_operator, created_at, disabled_at;

-- name: lock_operators
-- Those that can act, held until the end of the transaction: of two that disable each other, one is refused.
SELECT id FROM clients WHERE is_operator AND disabled_at IS NULL ORDER BY id FOR UPDATE;

-- name: disable^
-- Its key goes too.
UPDATE clients SET disabled_at = coalesce(disabled_at, now()), api_key_hash = NULL WHERE id = :id
RETURNING id, name, is_operator, created_at, disabled_at;

-- name: ensure!
-- A client without a key; the one that has the name stays as it is.
INSERT INTO clients (id, name) VALUES (:id, :name) ON CONFLICT (name) DO NOTHING;

-- name: by_name^
SELECT id, name, is_operator, created_at, disabled_at FROM clients WHERE name = :name;

-- name: set_limit!
-- One that is there gives way only where this one is told. Waits for whoever replaces all of them.
INSERT INTO limits AS l (scope, name, slots) VALUES (:scope, :name, :slots)
ON CONFLICT (scope, name) DO UPDATE SET slots = excluded.slots WHERE :is_told::bool AND l.slots <> excluded.slots;

-- name: set_daily_budget!
-- One that is there gives way only where this one is told.
INSERT INTO budgets AS b (scope, name, tokens, microusd) VALUES ('client_day', :name, :tokens, :microusd)
ON CONFLICT (scope, name) DO UPDATE SET tokens = excluded.tokens, microusd = excluded.microusd
WHERE :is_told::bool AND (b.tokens, b.microusd) IS DISTINCT FROM (excluded.tokens, excluded.microusd);

-- name: queued
-- How many of a client's jobs wait, by queue.
SELECT coalesce(queue, kind) AS queue, count(*) AS jobs FROM jobs
WHERE client_id = :client_id AND state = 'queued' GROUP BY 1;
