-- What forges know of changesets, which repositories clients keep, and how checkouts are made.
-- Safe beside the code before it: what is added is null or has a default, and nothing that it reads or writes is taken away.
-- Tables in the order in which that code locks them: jobs, runs, changesets, and what their foreign keys look at.

ALTER TABLE jobs ADD COLUMN metadata jsonb NOT NULL DEFAULT '{}';  -- of the client; nothing here looks at it

ALTER TABLE runs
    ADD COLUMN checkout jsonb,               -- path, lfs and submodules, where they were asked for
    DROP CONSTRAINT runs_outcome_check,
    -- Not looked at for the rows that are there: they obeyed a narrower one.
    ADD CONSTRAINT runs_outcome_check
        CHECK (outcome IN ('delivered', 'stored', 'no_changes', 'unverified', 'answered', 'skipped')) NOT VALID;

ALTER TABLE changesets
    ADD COLUMN publish        text NOT NULL DEFAULT 'pull_request' CHECK (publish IN ('pull_request', 'draft', 'branch')),
    ADD COLUMN forge          text,          -- which one shows it; null: not published
    ADD COLUMN number         integer,       -- of its pull request
    ADD COLUMN superseded_by  uuid REFERENCES changesets,
    ADD COLUMN head_sha       text,          -- from here on: what the forge said when it was last asked
    ADD COLUMN checks         text NOT NULL DEFAULT 'none' CHECK (checks IN ('none', 'pending', 'passing', 'failing')),
    ADD COLUMN review         text NOT NULL DEFAULT 'none' CHECK (review IN ('none', 'approved', 'changes_requested')),
    ADD COLUMN mergeable      text NOT NULL DEFAULT 'unknown' CHECK (mergeable IN ('yes', 'no', 'unknown')),
    ADD COLUMN merge_sha      text,
    ADD COLUMN observed_at    timestamptz,
    ADD COLUMN observe_at     timestamptz,   -- when a vcs is to ask next; null: nothing can change any more
    ADD COLUMN close_comment  text,          -- to be closed, with this comment, by whichever vcs asks next
    ADD COLUMN deletes_branch boolean NOT NULL DEFAULT false,  -- and its branch deleted
    ADD COLUMN closed_at      timestamptz;   -- merged or closed

ALTER TABLE clients ADD COLUMN disabled_at timestamptz;  -- its keys open nothing from then on

-- What a client keeps under a name of its own, to be used in jobs and mirrored in advance.
CREATE TABLE repositories (
    id          uuid PRIMARY KEY,
    client_id   uuid NOT NULL REFERENCES clients,
    name        text NOT NULL,
    url         text NOT NULL,
    base_ref    text,                        -- where work starts; null: the remote's default branch
    description text,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (client_id, name)
);

-- What the whole fleet obeys towards a forge, by credential.
CREATE TABLE forge_pace (
    scope        text PRIMARY KEY,           -- a hash of address and credential
    paused_until timestamptz NOT NULL DEFAULT now(),
    reason       text NOT NULL DEFAULT '',
    creations    double precision NOT NULL,  -- pull requests that may be opened at once
    refilled_at  timestamptz NOT NULL DEFAULT now()
);

-- Deliveries of webhooks that were seen, so that none starts anything twice.
CREATE TABLE webhook_deliveries (
    source      text NOT NULL,
    delivery    text NOT NULL,
    event       text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (source, delivery)
);
CREATE INDEX webhook_deliveries_by_age ON webhook_deliveries (received_at);

-- What tells repositories apart, however their addresses are spelt: a hash of host/owner/name. As `parse_repository` in
-- services/vcs reads them, but for what is percent-encoded.
CREATE FUNCTION repository_key(url text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT md5(lower(split_part(address, '/', 1)) || substr(address, length(split_part(address, '/', 1)) + 1))
    FROM (SELECT regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace(url,
        '^([A-Za-z+]+://)?([^@/]*@)?', ''),   -- scheme and user
        '^([^/:]+):(443|80|22)/', '\1/'),     -- the port that goes without saying
        '^([^/:]+):(?![0-9]+/)', '\1/'),      -- host:owner/name
        '/+$', ''),
        '\.git$', '') AS address) AS plain
$$;
