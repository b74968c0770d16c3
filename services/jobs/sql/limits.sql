-- name: limits
SELECT scope, name, slots FROM limits;

-- name: known_clients
SELECT name FROM clients WHERE name = ANY(:names::text[]);

-- name: lock!
-- One change at a time; readers go on.
LOCK TABLE limits IN SHARE ROW EXCLUSIVE MODE;

-- name: clear!
DELETE FROM limits;

-- name: insert!
-- No admission goes by what was there before.
WITH changed AS (
    UPDATE admissions SET count = count + 1
)
INSERT INTO limits (scope, name, slots) SELECT * FROM unnest(:scopes::text[], :names::text[], :slots::int[]);
