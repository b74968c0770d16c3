-- name: lock!
-- What the checkpoint locks, so that it sees what an earlier try of it has done.
SELECT FROM jobs WHERE id = :job_id FOR NO KEY UPDATE;

-- name: checkpoint^
-- Store what a step of a turn adds, if this token still holds the run and nobody asked for its cancel; else no row.
-- A statement that is a transaction by itself: jobs are locked first, then runs, as everywhere.
WITH job AS MATERIALIZED (
    SELECT id, client_id, last_event_number FROM jobs WHERE id = :job_id FOR NO KEY UPDATE
), held AS MATERIALIZED (
    SELECT r.id, r.job_id, r.turns, j.client_id, j.last_event_number,
           -- By an earlier try whose answer was lost.
           :is_retried::bool
           AND (EXISTS (SELECT FROM events e WHERE e.job_id = j.id AND e.id = :first_event_id
                        AND e.number > j.last_event_number - 1000)
                OR EXISTS (SELECT FROM messages m WHERE m.run_id = r.id AND m.attempt = :attempt
                           AND m.number = (:numbers::int[])[1])) AS is_done
    FROM job j JOIN runs r ON r.job_id = j.id
    WHERE r.id = :run_id AND r.lease_token = :token AND r.state = 'running' AND r.cancel_requested_at IS NULL
    FOR UPDATE OF r
), due AS MATERIALIZED (
    SELECT * FROM held WHERE NOT is_done
), appended AS (
    INSERT INTO messages (run_id, number, attempt, role, body)
    SELECT d.id, m.number, :attempt, m.role, m.body
    FROM due d, unnest(:numbers::int[], :roles::text[], :bodies::bytea[]) AS m (number, role, body)
), saved AS (
    -- A patch of null: no tool wrote, or it was too large, so the one before still stands; what is behind stays so.
    INSERT INTO checkpoints (run_id, attempt, message, patch, read_versions, is_behind)
    SELECT d.id, :attempt, :message, coalesce(:patch::bytea, ''), :read_versions, :is_behind::bool
    FROM due d WHERE :has_tree::bool
    ON CONFLICT (run_id) DO UPDATE SET attempt = excluded.attempt, message = excluded.message,
        patch = coalesce(:patch::bytea, checkpoints.patch), read_versions = excluded.read_versions, updated_at = now(),
        is_behind = excluded.is_behind OR (checkpoints.is_behind AND :patch::bytea IS NULL)
), kept AS (
    INSERT INTO outputs (run_id, name, body)
    SELECT d.id, o.name, o.body FROM due d, unnest(:output_names::text[], :output_bodies::bytea[]) AS o (name, body)
    ON CONFLICT (run_id, name) DO UPDATE SET body = excluded.body
), heard AS (
    UPDATE inbox i SET read_at = now() FROM due d
    WHERE i.run_id = d.id AND i.number <= :read_through AND i.read_at IS NULL AND :read_through::int > 0
), used AS (
    INSERT INTO model_usage (run_id, turn, attempt, client_id, model, input_tokens, output_tokens,
                             cache_read_input_tokens, cache_creation_input_tokens, cost_microusd, raw)
    SELECT d.id, d.turns + 1, :attempt, d.client_id, :model, :input_tokens, :output_tokens,
           :cache_read_input_tokens, :cache_creation_input_tokens, :cost_microusd, :raw
    FROM due d WHERE :has_usage::bool
), spent AS (
    INSERT INTO spending (client_id, day, tokens, microusd)
    SELECT d.client_id, (now() AT TIME ZONE 'UTC')::date, :total_tokens, coalesce(:cost_microusd::bigint, 0)
    FROM due d WHERE :has_usage::bool
    ON CONFLICT (client_id, day) DO UPDATE SET tokens = spending.tokens + excluded.tokens,
                                               microusd = spending.microusd + excluded.microusd
), freed AS (
    DELETE FROM reservations v USING due d WHERE v.run_id = d.id AND :has_usage::bool
), counted AS (
    UPDATE runs r
    SET turns = r.turns + :has_usage::bool::int, input_tokens = r.input_tokens + :input_tokens::bigint,
        output_tokens = r.output_tokens + :output_tokens::bigint,
        cache_read_input_tokens = r.cache_read_input_tokens + :cache_read_input_tokens::bigint,
        cache_creation_input_tokens = r.cache_creation_input_tokens + :cache_creation_input_tokens::bigint,
        cost_microusd = r.cost_microusd + coalesce(:cost_microusd::bigint, 0),
        unpriced_turns = r.unpriced_turns + (:has_usage::bool AND :cost_microusd::bigint IS NULL)::int,
        head = coalesce(:head::bytea, r.head)
    FROM due d WHERE r.id = d.id AND (:has_usage::bool OR :head::bytea IS NOT NULL)
), told AS (
    INSERT INTO events (job_id, client_id, number, id, run_id, attempt, kind, data, created_at)
    SELECT d.job_id, d.client_id, d.last_event_number + e.place, e.id, d.id, :attempt, e.kind, e.data, now()
    FROM due d, unnest(:event_ids::uuid[], :kinds::text[], :data::jsonb[]) WITH ORDINALITY AS e (id, kind, data, place)
), numbered AS (
    UPDATE jobs j SET last_event_number = j.last_event_number + cardinality(:event_ids::uuid[])
    FROM due d WHERE j.id = d.job_id AND cardinality(:event_ids::uuid[]) > 0
)
SELECT EXISTS (SELECT FROM inbox i WHERE i.run_id = h.id AND i.read_at IS NULL AND i.number > :read_through::int)
           AS has_unread,
       EXISTS (SELECT FROM budgets b WHERE b.name = '' OR b.name = (SELECT n.name FROM clients n WHERE n.id = h.client_id)) AS is_budgeted
FROM held h;

-- name: count_void$
-- Count what requests used whose replies came to nothing, each once, also where a cancel was asked for meanwhile; says
-- whether this token holds the run, else nothing is changed. One whose reply would have ended a turn counts only if that
-- turn was not stored after all: its checkpoint's answer may have been lost.
WITH job AS MATERIALIZED (
    SELECT id, client_id FROM jobs WHERE id = :job_id FOR NO KEY UPDATE
), held AS MATERIALIZED (
    SELECT r.id, r.turns, j.client_id FROM job j JOIN runs r ON r.job_id = j.id
    WHERE r.id = :run_id AND r.lease_token = :token AND r.state = 'running'
    FOR UPDATE OF r
), added AS (
    INSERT INTO void_usage (id, run_id, attempt, client_id, model, input_tokens, output_tokens,
                            cache_read_input_tokens, cache_creation_input_tokens, cost_microusd, raw)
    SELECT v.id, h.id, :attempt, h.client_id, v.model, v.input_tokens, v.output_tokens,
           v.cache_read_input_tokens, v.cache_creation_input_tokens, v.cost_microusd, v.raw
    FROM held h, unnest(:ids::uuid[], :void_turns::int[], :models::text[], :inputs::bigint[], :outputs::bigint[],
                        :cache_reads::bigint[], :cache_creations::bigint[], :costs::bigint[], :raws::jsonb[])
                 AS v (id, turn, model, input_tokens, output_tokens, cache_read_input_tokens,
                       cache_creation_input_tokens, cost_microusd, raw)
    WHERE v.turn IS NULL OR v.turn > h.turns
    ON CONFLICT (id) DO NOTHING
    RETURNING input_tokens, output_tokens, cache_read_input_tokens, cache_creation_input_tokens, cost_microusd
), summed AS MATERIALIZED (
    SELECT count(*) AS requests, sum(input_tokens)::bigint AS input_tokens, sum(output_tokens)::bigint AS output_tokens,
           sum(cache_read_input_tokens)::bigint AS cache_read_input_tokens,
           sum(cache_creation_input_tokens)::bigint AS cache_creation_input_tokens,
           coalesce(sum(cost_microusd), 0)::bigint AS microusd
    FROM added
), spent AS (
    INSERT INTO spending (client_id, day, tokens, microusd)
    SELECT h.client_id, (now() AT TIME ZONE 'UTC')::date,
           s.input_tokens + s.output_tokens + s.cache_read_input_tokens + s.cache_creation_input_tokens, s.microusd
    FROM held h, summed s WHERE s.requests > 0
    ON CONFLICT (client_id, day) DO UPDATE SET tokens = spending.tokens + excluded.tokens,
                                               microusd = spending.microusd + excluded.microusd
), freed AS (
    DELETE FROM reservations v USING held h, summed s WHERE v.run_id = h.id AND s.requests > 0
), counted AS (
    UPDATE runs r
    SET input_tokens = r.input_tokens + s.input_tokens, output_tokens = r.output_tokens + s.output_tokens,
        cache_read_input_tokens = r.cache_read_input_tokens + s.cache_read_input_tokens,
        cache_creation_input_tokens = r.cache_creation_input_tokens + s.cache_creation_input_tokens,
        cost_microusd = r.cost_microusd + s.microusd
    FROM held h, summed s WHERE r.id = h.id AND s.requests > 0
)
SELECT EXISTS (SELECT FROM held);

-- name: leave$
-- What the last calls of a cancelled run came to, for whoever goes on from it: whether their own message is stored.
WITH appended AS (
    INSERT INTO messages (run_id, number, attempt, role, body)
    SELECT :run_id, :number::int, :attempt, :role, :body
    WHERE (SELECT max(m.number) FROM messages m WHERE m.run_id = :run_id) = :number::int - 1
    RETURNING number
), saved AS (
    INSERT INTO checkpoints (run_id, attempt, message, patch, read_versions, is_behind)
    SELECT :run_id, :attempt, a.number, coalesce(:patch::bytea, ''), :read_versions, :is_behind::bool
    FROM appended a WHERE :has_tree::bool
    ON CONFLICT (run_id) DO UPDATE SET attempt = excluded.attempt, message = excluded.message,
        patch = coalesce(:patch::bytea, checkpoints.patch), read_versions = excluded.read_versions, updated_at = now(),
        is_behind = excluded.is_behind OR (checkpoints.is_behind AND :patch::bytea IS NULL)
), kept AS (
    INSERT INTO outputs (run_id, name, body)
    SELECT :run_id, o.name, o.body FROM appended, unnest(:output_names::text[], :output_bodies::bytea[]) AS o (name, body)
    ON CONFLICT (run_id, name) DO UPDATE SET body = excluded.body
)
SELECT EXISTS (SELECT FROM appended);
