-- name: take_turn
-- One reservation at a time: of a client, and of the fleet where a budget holds for all clients together. The locks are
-- taken in this order, and go with the transaction. What is read after them is what the one before has left.
SELECT pg_advisory_xact_lock(l.key)
FROM (SELECT 1 AS place, hashtextextended(:client::text, :lock::bigint) AS key
      UNION ALL SELECT 2, :lock::bigint FROM budgets WHERE scope = 'day' AND name = ''
      ORDER BY place) l;

-- name: standings
-- Each budget over a run of this client, what was used of it, and what other runs have reserved of it. A reservation
-- counts for today whenever it was made: its usage will be stored no earlier. The clock, not now(): the transaction may
-- have begun before midnight, and waited.
WITH today AS MATERIALIZED (
    SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS day
), named AS (
    SELECT DISTINCT ON (b.scope) b.scope, b.tokens, b.microusd
    FROM budgets b JOIN clients c ON c.id = :client_id
    WHERE b.name = '' OR (b.name = c.name AND b.scope <> 'day')
    ORDER BY b.scope, b.name DESC
), budgeted AS (
    SELECT 'job' AS scope, :job_tokens::bigint AS tokens, :job_microusd::bigint AS microusd
    UNION ALL SELECT * FROM named
)
SELECT b.scope, b.tokens, b.microusd, u.tokens AS used_tokens, u.microusd AS used_microusd,
       v.tokens AS reserved_tokens, v.microusd AS reserved_microusd, (SELECT day FROM today) AS day
FROM budgeted b,
LATERAL (
    SELECT coalesce(sum(s.tokens), 0)::bigint AS tokens, coalesce(sum(s.microusd), 0)::bigint AS microusd
    FROM (SELECT r.input_tokens + r.output_tokens + r.cache_read_input_tokens + r.cache_creation_input_tokens AS tokens,
                 r.cost_microusd AS microusd
          FROM runs r WHERE b.scope = 'job' AND r.job_id = :job_id
          UNION ALL SELECT s.tokens, s.microusd FROM spending s WHERE b.scope = 'client' AND s.client_id = :client_id
          UNION ALL SELECT s.tokens, s.microusd FROM spending s
          WHERE b.scope = 'client_day' AND s.client_id = :client_id AND s.day = (SELECT day FROM today)
          UNION ALL SELECT s.tokens, s.microusd FROM spending s
          WHERE b.scope = 'day' AND s.day = (SELECT day FROM today)) s
) u,
LATERAL (
    SELECT coalesce(sum(o.tokens), 0)::bigint AS tokens, coalesce(sum(o.microusd), 0)::bigint AS microusd
    FROM (SELECT o.run_id, o.tokens, o.microusd FROM reservations o WHERE b.scope = 'job' AND o.job_id = :job_id
          UNION ALL SELECT o.run_id, o.tokens, o.microusd FROM reservations o
          WHERE b.scope IN ('client', 'client_day') AND o.client_id = :client_id
          UNION ALL SELECT o.run_id, o.tokens, o.microusd FROM reservations o WHERE b.scope = 'day') o
    WHERE o.run_id <> :run_id
) v
WHERE b.tokens IS NOT NULL OR b.microusd IS NOT NULL;

-- name: reserve$
-- In place of what the run had reserved before; says whether this token holds the run, else nothing is changed.
WITH held AS MATERIALIZED (
    SELECT id, job_id, client_id, attempt FROM runs
    WHERE id = :run_id AND lease_token = :token AND state = 'running' AND cancel_requested_at IS NULL
), reserved AS (
    INSERT INTO reservations (run_id, attempt, job_id, client_id, tokens, microusd)
    SELECT h.id, h.attempt, h.job_id, h.client_id, :tokens, :microusd FROM held h
    ON CONFLICT (run_id) DO UPDATE SET attempt = excluded.attempt, tokens = excluded.tokens,
                                       microusd = excluded.microusd, created_at = now()
)
SELECT EXISTS (SELECT FROM held);

-- name: release$
-- Give back what the run had reserved before; says whether this token holds the run, else nothing is changed.
WITH held AS MATERIALIZED (
    SELECT id FROM runs
    WHERE id = :run_id AND lease_token = :token AND state = 'running' AND cancel_requested_at IS NULL
), released AS (
    DELETE FROM reservations v USING held h WHERE v.run_id = h.id
)
SELECT EXISTS (SELECT FROM held);

-- name: budgets
SELECT scope, name, tokens, microusd FROM budgets;

-- name: known_clients
SELECT id, name FROM clients WHERE name = ANY(:names::text[]);

-- name: lock!
-- One change at a time; readers go on.
LOCK TABLE budgets IN SHARE ROW EXCLUSIVE MODE;

-- name: clear!
DELETE FROM budgets;

-- name: insert!
INSERT INTO budgets (scope, name, tokens, microusd)
SELECT * FROM unnest(:scopes::text[], :names::text[], :tokens::bigint[], :microusd::bigint[]);

-- name: today$
SELECT (now() AT TIME ZONE 'UTC')::date;

-- name: days
SELECT day, tokens, microusd FROM spending
WHERE client_id = :client_id AND day BETWEEN :first_day AND :last_day ORDER BY day;
