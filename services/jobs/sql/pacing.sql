-- name: throttle!
-- The model service has too many requests of this scope: half as many from now on, at most one halving a second, since
-- many requests hear of one shortage; none before the moment that it asked for. Who stands in the line keeps its place,
-- but for those of a shortage that is forgotten: they were let go.
INSERT INTO model_pace AS p (scope, per_second, tokens, refilled_at, paused_until, throttled_at)
VALUES (:scope, :first_rate, 0, now() + :asked::interval, now() + :asked::interval, now())
ON CONFLICT (scope) DO UPDATE
SET per_second = CASE WHEN p.throttled_at < now() - :forgotten::interval THEN :first_rate
                      WHEN p.throttled_at < now() - interval '1 second' THEN greatest(:least_rate, p.per_second / 2)
                      ELSE p.per_second END,
    tokens = CASE WHEN p.throttled_at < now() - :forgotten::interval THEN 0 ELSE least(p.tokens, 0) END,
    refilled_at = greatest(p.refilled_at, now() + :asked::interval),  -- it does not recover while it is left alone
    paused_until = greatest(p.paused_until, now() + :asked::interval),
    throttled_at = now();

-- name: look^
-- Take so many places at the end of the line that all agents stand in, none at times, and tell how far it has come:
-- places up to `reached` may ask. Each token lets one place on; they are owed where there are none. The rate doubles with
-- each :doubling seconds without a shortage, and what came since the last look is the sum under that curve. No row:
-- nothing is short.
UPDATE model_pace p
SET per_second = least(:most_rate, p.per_second * power(2, s.seconds / :doubling)),
    tokens = least(:burst, p.tokens + least(:most_rate * s.seconds,
                                            p.per_second * :doubling / ln(2) * (power(2, s.seconds / :doubling) - 1)))
             - :places::int,
    taken = p.taken + :places::int,
    refilled_at = greatest(p.refilled_at, now())
FROM (SELECT scope, greatest(0, extract(epoch FROM now() - refilled_at))::float8 AS seconds FROM model_pace
      WHERE scope = :scope FOR UPDATE) s
WHERE p.scope = s.scope AND p.throttled_at > now() - :forgotten::interval
RETURNING p.taken, p.taken + p.tokens AS reached, p.per_second,
          greatest(0, extract(epoch FROM p.paused_until - now()))::float8 AS paused_seconds;
