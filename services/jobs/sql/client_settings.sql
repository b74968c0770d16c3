-- name: settings^
SELECT settings, sealed FROM client_settings WHERE client_id = :client_id;

-- name: ensure!
-- A row to lock.
INSERT INTO client_settings (client_id, settings) VALUES (:client_id, '{}'::jsonb) ON CONFLICT (client_id) DO NOTHING;

-- name: locked^
-- One change of a client's settings at a time.
SELECT settings, sealed FROM client_settings WHERE client_id = :client_id FOR UPDATE;

-- name: replace!
UPDATE client_settings SET settings = :settings, sealed = :sealed, updated_at = now() WHERE client_id = :client_id;

-- name: remove!
DELETE FROM client_settings WHERE client_id = :client_id;
