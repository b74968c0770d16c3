-- name: of_run^
SELECT j.id, j.sealed FROM runs r JOIN jobs j ON j.id = r.job_id WHERE r.id = :id;

-- name: of_changeset^
SELECT j.id, j.sealed FROM changesets c JOIN jobs j ON j.id = c.job_id WHERE c.id = :id;

-- name: owner^
SELECT j.client_id, coalesce(j.metadata->>'clientId', '') AS customer
FROM runs r JOIN jobs j ON j.id = r.job_id WHERE r.id = :id;
