-- name: insert^
-- Nothing where the client has one of this name, or an earlier try has made it.
INSERT INTO repositories (id, client_id, name, url, base_ref, description)
VALUES (:id, :client_id, :name, :url, :base_ref, :description)
ON CONFLICT DO NOTHING
RETURNING *;

-- name: repository^
SELECT * FROM repositories WHERE id = :id AND client_id = :client_id;

-- name: page
-- By name; ``after`` and ``name``, a pattern of LIKE, may be null.
SELECT * FROM repositories
WHERE client_id = :client_id AND (:after::text IS NULL OR name > :after) AND (:name::text IS NULL OR name LIKE :name)
ORDER BY name LIMIT :most;

-- name: change^
UPDATE repositories
SET name = :name, url = :url, base_ref = :base_ref, description = :description, updated_at = now()
WHERE id = :id AND client_id = :client_id
RETURNING *;

-- name: locked^
SELECT * FROM repositories WHERE id = :id AND client_id = :client_id FOR UPDATE;

-- name: remove^
DELETE FROM repositories WHERE id = :id AND client_id = :client_id RETURNING *;

-- name: import!
-- Those whose name and URL the client does not have yet.
INSERT INTO repositories (id, client_id, name, url, description)
SELECT w.id, :client_id, w.name, w.url, w.description
FROM unnest(:ids::uuid[], :names::text[], :urls::text[], :descriptions::text[]) AS w (id, name, url, description)
WHERE NOT EXISTS (SELECT FROM repositories r WHERE r.client_id = :client_id AND r.url = w.url)
ON CONFLICT DO NOTHING;

-- name: imported
SELECT * FROM repositories WHERE id = ANY(:ids::uuid[]) AND client_id = :client_id ORDER BY name;

-- name: own_runs
-- Which of these runs are the client's.
SELECT id FROM runs WHERE id = ANY(:ids::uuid[]) AND client_id = :client_id;
