-- name: throttle!
-- The model service has too many requests of this scope: half as many from now on, at most one halving a second, since
-- many requests hear of one shortage; none before the moment that it asked for.
INSERT INTO model_pace AS p (scope, per_second, tokens, refilled_at, paused_until, throttled_at)
VALUES (:scope, :first_rate, 0, now() + :asked::interval, now() + :asked::interval, now())
ON CONFLICT (scope) DO UPDATE
SET per_second = CASE WHEN p.throttled_at < now() - :forgotten::interval THEN :first_rate
                      WHEN p.throttled_at < now() - interval '1 second' THEN greatest(:least_rate, p.per_second / 2)
                      ELSE p.per_second END,
    tokens = least(p.tokens, 0),
    refilled_at = greatest(p.refilled_at, now() + :asked::interval),  -- it does not recover while it is left alone
    paused_until = greatest(p.paused_until, now() + :asked::interval),
    throttled_at = now();

-- name: take^
-- A token of the bucket that all agents share, also where it has to be owed: how long to wait for it. The rate doubles
-- with each :doubling without a shortage. No row: nothing is short.
UPDATE model_pace p
SET per_second = least(:most_rate, p.per_second * power(2, s.seconds / :doubling_seconds)),
    tokens = least(:burst, p.tokens + p.per_second * s.seconds) - 1,
    refilled_at = greatest(p.refilled_at, now())
FROM (SELECT scope, greatest(0, extract(epoch FROM now() - refilled_at))::float8 AS seconds FROM model_pace
      WHERE scope = :scope FOR UPDATE) s
WHERE p.scope = s.scope AND p.throttled_at > now() - :forgotten::interval
RETURNING (greatest(0, extract(epoch FROM p.paused_until - now())) + greatest(0, -p.tokens) / p.per_second)::float8
          AS wait_seconds;
