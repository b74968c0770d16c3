-- name: insert^
-- Nothing where the client has one of this name, the id is taken, or an earlier try has made it.
INSERT INTO customers (id, client_id, name) VALUES (:id, :client_id, :name)
ON CONFLICT DO NOTHING
RETURNING id, name, created_at;

-- name: customer^
SELECT id, name, created_at FROM customers WHERE id = :id AND client_id = :client_id;

-- name: locked^
-- Whoever gives a customer a repository comes alone.
SELECT id, name, created_at FROM customers WHERE id = :id AND client_id = :client_id FOR NO KEY UPDATE;

-- name: named$
SELECT id FROM customers WHERE client_id = :client_id AND name = :name;

-- name: customers
-- By name.
SELECT id, name, created_at FROM customers WHERE client_id = :client_id ORDER BY name;

-- name: repositories
-- Of all customers, and those that are nobody's; ids are ordered by time of creation.
SELECT r.id, r.customer_id, r.name, r.url, r.base_ref FROM repositories r
WHERE r.client_id = :client_id ORDER BY r.id;

-- name: of_customer
SELECT r.id, r.customer_id, r.name, r.url, r.base_ref FROM repositories r
WHERE r.customer_id = :customer_id AND r.client_id = :client_id ORDER BY r.id;

-- name: repository^
SELECT r.id, r.customer_id, r.name, r.url, r.base_ref FROM repositories r
WHERE r.client_id = :client_id AND r.id = :id;

-- name: add_repository^
-- Nothing where the client has one of this name.
INSERT INTO repositories (id, client_id, customer_id, name, url, base_ref)
VALUES (:id, :client_id, :customer_id, :name, :url, :base_ref)
ON CONFLICT DO NOTHING
RETURNING id, customer_id, name, url, base_ref;
