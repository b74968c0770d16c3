-- name: store!
-- Stored again, it is the newest.
INSERT INTO forge_apps (app_id, slug, name, owner, url, sealed, webhook_sealed, created_at)
VALUES (:app_id, :slug, :name, :owner, :url, :sealed, :webhook_sealed, clock_timestamp())
ON CONFLICT (app_id) DO UPDATE SET
    slug = excluded.slug, name = excluded.name, owner = excluded.owner, url = excluded.url, sealed = excluded.sealed,
    webhook_sealed = excluded.webhook_sealed, created_at = excluded.created_at;

-- name: current^
SELECT app_id, slug, name, owner, url, sealed, webhook_sealed, created_at FROM forge_apps
ORDER BY created_at DESC, app_id DESC LIMIT 1;

-- name: record_installation!
-- What is known already stays where this is older. An App of 0: it was only told of what happened to it afterwards.
INSERT INTO forge_installations AS i (installation_id, app_id, account, repositories, has_all, updated_at)
VALUES (:installation_id, :app_id, :account, :repositories::text[], :has_all, coalesce(:at::timestamptz, now()))
ON CONFLICT (installation_id) DO UPDATE SET
    app_id = excluded.app_id, account = excluded.account,
    repositories = CASE WHEN i.app_id = 0
                        THEN ARRAY(SELECT DISTINCT r FROM unnest(i.repositories || excluded.repositories) r ORDER BY r)
                        WHEN i.updated_at <= excluded.updated_at THEN excluded.repositories
                        ELSE i.repositories END,
    has_all = CASE WHEN i.app_id = 0 OR i.updated_at <= excluded.updated_at THEN excluded.has_all ELSE i.has_all END,
    updated_at = greatest(i.updated_at, excluded.updated_at);

-- name: change_repositories!
INSERT INTO forge_installations AS i (installation_id, app_id, account, repositories, has_all, updated_at)
VALUES (:installation_id, 0, '', :added::text[], coalesce(:has_all::bool, false), coalesce(:at::timestamptz, now()))
ON CONFLICT (installation_id) DO UPDATE SET
    repositories = ARRAY(SELECT DISTINCT r FROM unnest(i.repositories || excluded.repositories) r
                         WHERE r <> ALL(:removed::text[]) ORDER BY r),
    has_all = coalesce(:has_all::bool, i.has_all),
    updated_at = greatest(i.updated_at, excluded.updated_at);

-- name: suspend!
INSERT INTO forge_installations AS i (installation_id, app_id, account, suspended_at, updated_at)
VALUES (:installation_id, 0, '', coalesce(:at::timestamptz, now()), coalesce(:at::timestamptz, now()))
ON CONFLICT (installation_id) DO UPDATE SET suspended_at = excluded.suspended_at, updated_at = excluded.updated_at
WHERE i.updated_at <= excluded.updated_at;

-- name: unsuspend!
INSERT INTO forge_installations AS i (installation_id, app_id, account, updated_at)
VALUES (:installation_id, 0, '', coalesce(:at::timestamptz, now()))
ON CONFLICT (installation_id) DO UPDATE SET
    suspended_at = NULL, updated_at = greatest(i.updated_at, excluded.updated_at)
WHERE i.suspended_at IS NULL OR i.suspended_at <= excluded.updated_at;

-- name: remove!
-- For good: an App that is installed again has another number.
INSERT INTO forge_installations AS i (installation_id, app_id, account, removed_at)
VALUES (:installation_id, 0, '', coalesce(:at::timestamptz, now()))
ON CONFLICT (installation_id) DO UPDATE SET removed_at = coalesce(i.removed_at, excluded.removed_at);

-- name: installations
SELECT installation_id, app_id, account, repositories, has_all, suspended_at, updated_at FROM forge_installations
WHERE removed_at IS NULL AND app_id <> 0 ORDER BY account, installation_id;
