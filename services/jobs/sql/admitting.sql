-- name: look^
-- What each agent can hold, and holds now; and where that leaves room, the first jobs of each flow (a queue of a client), in
-- their order. Flows are found by skipping from one to the next; of one that has no room nothing is read. Locks nothing:
-- ``admissions`` says whether it is still so when the runs are to be given away.
WITH RECURSIVE loads AS MATERIALIZED (
    SELECT queue, client_id, agent, count(*) AS runs FROM runs WHERE state IN ('dispatched', 'running')
    GROUP BY queue, client_id, agent
), agents AS MATERIALIZED (
    SELECT n.name, n.capacity, n.beat, n.capacity - coalesce(sum(l.runs), 0)::int AS free
    FROM nodes n LEFT JOIN loads l ON l.agent = n.name
    WHERE n.kind = 'agent' AND n.hears_orders AND n.seen_at > now() - :alive::interval GROUP BY n.name
), fleet AS MATERIALIZED (
    SELECT (SELECT coalesce(sum(greatest(0, free)), 0) FROM agents) AS slots,
           coalesce((SELECT slots FROM limits WHERE scope = 'fleet'), :fleet) AS most,
           (SELECT coalesce(sum(runs), 0) FROM loads) AS held
), free AS MATERIALIZED (
    SELECT greatest(0, least(slots, most - held, :most))::int AS slots FROM fleet
), flows AS (
    (SELECT coalesce(j.queue, j.kind) AS queue, j.client_id FROM jobs j
     WHERE ready_from IS NULL AND cancel_requested_at IS NULL
       AND runs_total > runs_active + runs_completed + runs_failed + runs_cancelled
       AND (max_parallel IS NULL OR runs_active < max_parallel)
       AND (SELECT slots FROM free) > 0
     ORDER BY coalesce(j.queue, j.kind), j.client_id LIMIT 1)
    UNION ALL
    SELECT next.* FROM flows f CROSS JOIN LATERAL (
        SELECT coalesce(j.queue, j.kind) AS queue, j.client_id FROM jobs j
        WHERE ready_from IS NULL AND cancel_requested_at IS NULL
          AND runs_total > runs_active + runs_completed + runs_failed + runs_cancelled
          AND (max_parallel IS NULL OR runs_active < max_parallel)
          AND (coalesce(j.queue, j.kind), j.client_id) > (f.queue, f.client_id)
        ORDER BY coalesce(j.queue, j.kind), j.client_id LIMIT 1) next
), rooms AS (
    SELECT f.queue, f.client_id, c.name AS client,
           least((SELECT slots FROM free),
                 (SELECT l.slots FROM limits l WHERE l.scope = 'queue' AND l.name = f.queue)
                 - (SELECT coalesce(sum(runs), 0) FROM loads WHERE loads.queue = f.queue),
                 (SELECT l.slots FROM limits l WHERE l.scope = 'client' AND l.name IN ('', c.name)
                  ORDER BY l.name DESC LIMIT 1)
                 - (SELECT coalesce(sum(runs), 0) FROM loads WHERE loads.client_id = f.client_id)) AS slots
    FROM flows f JOIN clients c ON c.id = f.client_id
), candidates AS (
    SELECT j.id, f.queue, f.client_id, f.client, j.priority, j.fair_tag, coalesce(k.clock, 0) AS clock,
           least(j.runs_total - j.runs_active - j.runs_completed - j.runs_failed - j.runs_cancelled,
                 j.most - j.runs_active) AS available
    FROM rooms f
    LEFT JOIN fair_clocks k ON k.client_id = f.client_id AND k.queue = f.queue
    CROSS JOIN LATERAL (
        SELECT *, coalesce(max_parallel, (options ->> 'maxParallel')::int) AS most FROM jobs j
        WHERE ready_from IS NULL AND cancel_requested_at IS NULL
          AND runs_total > runs_active + runs_completed + runs_failed + runs_cancelled
          AND (max_parallel IS NULL OR runs_active < max_parallel)
          AND coalesce(j.queue, j.kind) = f.queue AND j.client_id = f.client_id
        ORDER BY coalesce(j.queue, j.kind), j.client_id, j.priority DESC, j.fair_tag, j.id
        LIMIT greatest(0, f.slots)) j
    WHERE j.most IS NULL OR j.runs_active < j.most
)
SELECT (SELECT count FROM admissions) AS admissions, (SELECT slots FROM free) AS free,
       (SELECT json_agg(a) FROM agents a WHERE free > 0) AS agents,
       (SELECT json_agg(json_build_object('scope', scope, 'name', name, 'slots', slots)) FROM limits) AS limits,
       (SELECT json_agg(l) FROM loads l) AS load, c.*
FROM (SELECT array_agg(id) AS ids, array_agg(client_id) AS client_ids, array_agg(client) AS clients,
             array_agg(queue) AS queues, array_agg(priority) AS priorities, array_agg(fair_tag) AS tags,
             array_agg(available) AS available, array_agg(clock) AS clocks
      FROM candidates) c;  -- arrays, since there are many of them: JSON takes three times as long

-- name: dispatch
-- So many runs of each of these jobs, by their place, begin, each at the next of these agents, with a lease; held are those that their branch or repository has no room for. Their clients' clocks move on.
-- What ``settle`` does for other transitions is done at once, since a run's start waits for it: of a job's states this can
-- only make `queued` `running`. Where another scheduler is at it just now, or has admitted since ``look``, or one of the agents does
-- not live or has fewer places than it had then, nothing is written.
-- What a job's row says is read under its lock, and goes along with each of its runs: a join of two such steps would be a loop
-- over both. Its runs are read as they were before it: hence what an UPDATE of theirs asks again, in words that lead to no index
-- of all that is queued.
WITH lock AS MATERIALIZED (
    SELECT pg_try_advisory_xact_lock(:lock) AS is_free
), turn AS MATERIALIZED (
    UPDATE admissions SET count = count + 1
    WHERE count = :admissions AND (SELECT is_free FROM lock)
      AND NOT EXISTS (SELECT FROM unnest(:places::text[], :capacities::int[]) AS a (name, capacity)
                      LEFT JOIN nodes n ON n.name = a.name AND n.seen_at > now() - :alive::interval
                      WHERE n.capacity IS NULL OR n.capacity < a.capacity)
    RETURNING count
), locked AS MATERIALIZED (
    SELECT j.id, j.client_id, j.runs_started, j.last_event_number, w.place, w.tag, w.event_id,
           greatest(0, least(w.count, coalesce(j.max_parallel, (j.options ->> 'maxParallel')::int) - j.runs_active)) AS count
    FROM unnest(:job_ids::uuid[], :counts::int[], :tags::bigint[], :job_event_ids::uuid[])
         WITH ORDINALITY AS w (id, count, tag, event_id, place)
    JOIN jobs j ON j.id = w.id
    WHERE EXISTS (SELECT FROM turn) AND j.cancel_requested_at IS NULL
    ORDER BY j.id FOR NO KEY UPDATE OF j
), chosen AS MATERIALIZED (
    SELECT r.id, r.repository, r.branch, row_number() OVER (PARTITION BY r.repository ORDER BY l.place, r.position) AS turn,
           row_number() OVER (PARTITION BY r.repository, r.branch ORDER BY l.place, r.position) AS turn_of_branch,
           l.client_id, l.runs_started, l.last_event_number, l.tag, l.event_id
    FROM locked l
    CROSS JOIN LATERAL (
        SELECT * FROM runs r
        WHERE r.job_id = l.id AND r.state = ANY(:sources::text[]) AND r.state = 'queued'
          AND r.cancel_requested_at IS NULL AND r.held_since IS NULL
          AND (r.not_before IS NULL OR r.not_before <= now())
        ORDER BY r.position LIMIT l.count) r
), judged AS MATERIALIZED (
    SELECT c.id, c.client_id, c.runs_started, c.last_event_number, c.tag, c.event_id, c.repository IS NOT NULL AND (
               c.turn_of_branch > 1
               OR EXISTS (SELECT FROM runs o WHERE md5(o.repository) = md5(c.repository) AND o.branch = c.branch
                          AND o.state IN ('dispatched', 'running', 'waiting', 'publishing'))
               OR c.turn + (SELECT count(*) FROM runs o WHERE md5(o.repository) = md5(c.repository)
                            AND o.state IN ('dispatched', 'running', 'waiting', 'publishing')
                            AND o.state IN ('dispatched', 'running')) > l.slots) IS TRUE AS is_held
    FROM chosen c LEFT JOIN LATERAL (
        SELECT slots FROM limits WHERE scope = 'repository' AND name IN ('', c.repository)
        ORDER BY name DESC LIMIT 1) l ON true
), holding AS (
    UPDATE runs r SET held_since = now() FROM judged j WHERE r.id = j.id AND j.is_held AND r.state = ANY(:sources::text[])
), ticking AS (
    INSERT INTO fair_clocks (client_id, queue, clock)
    SELECT * FROM unnest(:clock_clients::uuid[], :clock_queues::text[], :clocks::bigint[]) WHERE EXISTS (SELECT FROM turn)
    ON CONFLICT (client_id, queue) DO UPDATE SET clock = greatest(fair_clocks.clock, excluded.clock)
), placed AS MATERIALIZED (
    SELECT *, row_number() OVER () AS place FROM judged WHERE NOT is_held
), dispatched AS (
    UPDATE runs r
    SET state = 'running', dispatch = r.dispatch + 1, attempt = r.attempt + 1, dispatched_at = now(),
        started_at = coalesce(r.started_at, now()), lease_token = (:tokens::uuid[])[p.place],
        agent = (:agents::text[])[p.place], time_left = NULL,
        run_deadline = now() + coalesce(r.time_left, make_interval(secs => r.run_seconds)),
        head = CASE WHEN r.attempt > 0 OR r.resumes IS NULL THEN r.head
               ELSE (SELECT o.head FROM runs o WHERE o.id = r.resumes) END
    FROM placed p
    WHERE r.id = p.id AND r.state = ANY(:sources::text[]) AND (r.cancel_requested_at IS NULL) IS TRUE
      AND (r.held_since IS NULL) IS TRUE
    RETURNING r.id, r.job_id, r.position, r.attempt, r.lease_token, r.agent, p.place, p.client_id, p.runs_started,
              p.last_event_number, p.tag, p.event_id,
              -- What there is to know of one that begins for the first time, but for secrets and what is large: that is not
              -- even read.
              (SELECT row_to_json(w)::text FROM (
                   SELECT r.client_id, r.queue, r.repository, r.base_ref, r.base_sha, r.base_branch, r.branch, r.checkout,
                          r.created_at, r.head, date_part('epoch', r.run_deadline - now()) AS seconds_left,
                          j.kind, j.name, j.prompt, j.options::text AS options, s.settings,
                          EXISTS (SELECT FROM budgets b WHERE b.name = '' OR b.name = (
                                      SELECT n.name FROM clients n WHERE n.id = r.client_id)) AS is_budgeted,
                          j.name IS NOT NULL AND j.options ->> 'onExisting' = 'skip' AND r.queue <> 'review' AS may_be_skipped
                   FROM jobs j LEFT JOIN client_settings s ON s.client_id = j.client_id
                   WHERE j.id = r.job_id AND r.attempt = 1 AND r.resumes IS NULL AND j.sealed IS NULL AND s.sealed IS NULL
                     AND CASE WHEN pg_column_size(j.prompt) + pg_column_size(j.options) + coalesce(pg_column_size(s.settings), 0)
                                   <= :most_work
                         THEN octet_length(j.prompt) + octet_length(j.options::text)
                              + coalesce(octet_length(s.settings::text), 0) <= :most_work
                         ELSE false END) w) AS work
), granted AS (
    INSERT INTO leases (id, kind, token, holder, taken, expires_at)
    SELECT d.id, 'run', d.lease_token, d.agent, false, clock_timestamp() + :lease::interval FROM dispatched d
    ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, token = excluded.token, holder = excluded.holder,
                                   taken = excluded.taken, expires_at = excluded.expires_at
), counted AS MATERIALIZED (
    SELECT *, runs_started = 0 AND first_attempts > 0 AS is_first
    FROM (SELECT job_id AS id, client_id, runs_started, last_event_number, tag, event_id, count(*)::int AS runs,
                 count(*) FILTER (WHERE attempt = 1)::int AS first_attempts
          FROM dispatched GROUP BY job_id, client_id, runs_started, last_event_number, tag, event_id) c
), counting AS (
    UPDATE jobs j
    SET runs_active = j.runs_active + c.runs, runs_started = j.runs_started + c.first_attempts,
        started_at = coalesce(j.started_at, now()), state = CASE WHEN j.state = 'queued' THEN 'running' ELSE j.state END,
        last_event_number = c.last_event_number + c.runs + c.is_first::int, fair_tag = c.tag
    FROM counted c WHERE j.id = c.id
), telling AS (
    INSERT INTO events (job_id, client_id, number, id, run_id, attempt, kind, data, created_at)
    SELECT d.job_id, d.client_id, d.last_event_number + row_number() OVER (PARTITION BY d.job_id ORDER BY d.position),
           (:event_ids::uuid[])[d.place], d.id, d.attempt, 'run.started', jsonb_build_object('agent', d.agent), now()
    FROM dispatched d
    UNION ALL
    SELECT c.id, c.client_id, c.last_event_number + c.runs + 1, c.event_id, NULL, 0, 'job.started', '{}', now()
    FROM counted c WHERE c.is_first
)
SELECT NOT l.is_free AS is_busy, EXISTS (SELECT FROM turn) AS has_turn, d.id, d.job_id, d.position, d.agent, d.lease_token, d.work
FROM lock l LEFT JOIN dispatched d ON true;

-- name: hide!
-- Not looked at again before one of their runs is due; at the latest in half a minute, should anybody forget to say so.
-- Those that have room for one that is due are left as they are.
UPDATE jobs j SET ready_from = CASE WHEN n.due IS NULL THEN now() + interval '30 seconds'
                                    WHEN n.due > now() OR j.runs_active >= w.most THEN n.due ELSE j.ready_from END
FROM (SELECT id, coalesce(max_parallel, (options ->> 'maxParallel')::int) AS most FROM jobs WHERE id = ANY(:ids::uuid[])) w
CROSS JOIN LATERAL (
    SELECT min(coalesce(r.not_before, now())) AS due FROM runs r
    WHERE r.job_id = w.id AND r.state = 'queued' AND r.held_since IS NULL AND r.cancel_requested_at IS NULL) n
WHERE j.id = w.id;

-- name: ripen
-- Jobs whose time has come, to be admitted from where their client's clock stands by now.
UPDATE jobs SET ready_from = NULL
WHERE id IN (SELECT id FROM jobs WHERE ready_from <= now() ORDER BY ready_from LIMIT 500 FOR NO KEY UPDATE SKIP LOCKED)
RETURNING id;

-- name: repository_limits
SELECT scope, name, slots FROM limits WHERE scope = 'repository';

-- name: held_repositories
-- Each repository that holds runs back, found by skipping from one to the next, with its load.
WITH RECURSIVE hashes AS (
    (SELECT md5(repository) AS hash FROM runs WHERE state = 'queued' AND held_since IS NOT NULL
     ORDER BY md5(repository) LIMIT 1)
    UNION ALL
    SELECT next.hash FROM hashes h CROSS JOIN LATERAL (
        SELECT md5(repository) AS hash FROM runs
        WHERE state = 'queued' AND held_since IS NOT NULL AND md5(repository) > h.hash
        ORDER BY md5(repository) LIMIT 1) next
)
SELECT h.hash, first.repository,
       (SELECT count(*) FROM runs o WHERE md5(o.repository) = h.hash
        AND o.state IN ('dispatched', 'running', 'waiting', 'publishing') AND o.state IN ('dispatched', 'running'))
           AS active
FROM (SELECT hash FROM hashes LIMIT 500) h CROSS JOIN LATERAL (
    SELECT repository FROM runs WHERE state = 'queued' AND held_since IS NOT NULL AND md5(repository) = h.hash LIMIT 1
) first;

-- name: held_runs
-- So many held runs of each of these repositories whose branch is free.
SELECT r.id, r.job_id
FROM unnest(:hashes::text[], :rooms::int[]) AS w (hash, room) CROSS JOIN LATERAL (
    SELECT h.id, h.job_id FROM runs h
    WHERE h.state = 'queued' AND h.held_since IS NOT NULL AND md5(h.repository) = w.hash
      AND NOT EXISTS (SELECT FROM runs o WHERE md5(o.repository) = w.hash AND o.branch = h.branch
                      AND o.state IN ('dispatched', 'running', 'waiting', 'publishing'))
    ORDER BY h.held_since LIMIT w.room) r;

-- name: release
UPDATE runs SET held_since = NULL
WHERE id = ANY(:ids::uuid[]) AND state = 'queued' AND held_since IS NOT NULL
RETURNING job_id;
