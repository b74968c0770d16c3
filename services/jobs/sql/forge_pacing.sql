-- name: before^
-- How long the fleet is to leave the forge alone, and, for a creation, a token of its bucket where one is there; else
-- its place behind those that wait already: come back all at once, they would push all over again for one's turn.
WITH pace AS (
    INSERT INTO forge_pace AS p (scope, creations) VALUES (:scope, :burst)
    ON CONFLICT (scope) DO UPDATE
    SET creations = least(:burst, p.creations + :per_second * greatest(0, extract(epoch FROM now() - p.refilled_at))::float8),
        refilled_at = greatest(p.refilled_at, now())
    RETURNING scope, creations, paused_until, reason
), taken AS (
    SELECT :creates::bool AND creations >= 1 AND paused_until <= now() AS is_taken FROM pace
)
SELECT greatest(0, extract(epoch FROM p.paused_until - now()))::float8 AS paused_seconds, p.reason,
       CASE WHEN :creates::bool AND p.creations < 1
            THEN (1 - p.creations + (SELECT count(*) FROM changesets WHERE state = 'queued' AND not_before > now()))
                 / :per_second
            ELSE 0 END AS short_seconds,
       t.is_taken
FROM pace p, taken t;

-- name: take!
UPDATE forge_pace SET creations = creations - 1 WHERE scope = :scope;

-- name: pause!
INSERT INTO forge_pace AS p (scope, creations, paused_until, reason)
VALUES (:scope, :burst, now() + :seconds * interval '1 second', :reason)
ON CONFLICT (scope) DO UPDATE
SET paused_until = greatest(p.paused_until, excluded.paused_until),
    reason = CASE WHEN excluded.paused_until > p.paused_until THEN excluded.reason ELSE p.reason END;
