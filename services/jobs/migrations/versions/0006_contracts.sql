-- What the published APIs and GitHub's webhooks need.
-- Safe beside the code before it: what is added is null or has a default, and nothing that it reads or writes is taken away.

-- For whom a client works: whose repositories it keeps, and whose jobs it submits.
CREATE TABLE customers (
    id          uuid PRIMARY KEY,
    client_id   uuid NOT NULL REFERENCES clients,
    name        text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    UNIQUE (client_id, name)
);
ALTER TABLE repositories ADD COLUMN customer_id uuid REFERENCES customers;
CREATE INDEX repositories_by_customer ON repositories (customer_id) WHERE customer_id IS NOT NULL;

-- GitHub Apps that were made by a manifest. The private key is for vcs alone, the webhook's secret for gateways.
CREATE TABLE forge_apps (
    app_id          bigint PRIMARY KEY,
    slug            text NOT NULL,
    name            text NOT NULL,
    owner           text NOT NULL,
    url             text NOT NULL,           -- its page, from which it is installed
    sealed          bytea NOT NULL,          -- private key and client secret
    webhook_sealed  bytea,                   -- null: it has no webhook
    created_at      timestamptz NOT NULL DEFAULT now()
);

-- Where an App is installed, as its webhook told.
CREATE TABLE forge_installations (
    installation_id bigint PRIMARY KEY,
    app_id          bigint NOT NULL,
    account         text NOT NULL,
    repositories    text[] NOT NULL DEFAULT '{}',   -- owner/name, in order
    has_all         boolean NOT NULL DEFAULT false, -- all of the account's, also those to come
    suspended_at    timestamptz,
    removed_at      timestamptz,
    updated_at      timestamptz NOT NULL DEFAULT now()
);

-- A delivery is kept until what it asks for was done, by whichever gateway takes it.
ALTER TABLE webhook_deliveries
    ADD COLUMN payload    bytea,             -- null: nothing is left to be done
    ADD COLUMN due_at     timestamptz,       -- when it is to be taken; null: it was handled, or given up
    ADD COLUMN attempts   integer NOT NULL DEFAULT 0,
    ADD COLUMN error      text;              -- why the last attempt failed
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (due_at) WHERE due_at IS NOT NULL;

-- What happened on a forge and became a job: an issue, a review's comment, a failed check.
CREATE TABLE work_items (
    id            uuid PRIMARY KEY,
    client_id     uuid NOT NULL REFERENCES clients,
    kind          text NOT NULL CHECK (kind IN ('issue', 'review', 'check')),
    repository    text NOT NULL,             -- its URL
    number        integer NOT NULL,          -- of the issue or pull request
    subject       text NOT NULL DEFAULT '',  -- what of it: nothing for an issue, else the comment, review or commit
    in_reply_to   text,                      -- the review comment whose thread is to be answered in
    job_id        uuid NOT NULL REFERENCES jobs,
    changeset_id  uuid REFERENCES changesets,-- what was reviewed or checked
    created_at    timestamptz NOT NULL DEFAULT now(),
    answered_at   timestamptz                -- the end of the job was told there
);
-- One work item per issue, comment or commit, however often and by whichever way it is told.
CREATE UNIQUE INDEX work_items_once ON work_items (client_id, kind, repository_key(repository), number, subject);
CREATE INDEX work_items_by_job ON work_items (job_id);
CREATE INDEX work_items_unanswered ON work_items (created_at) WHERE answered_at IS NULL;
CREATE INDEX work_items_by_changeset ON work_items (changeset_id) WHERE changeset_id IS NOT NULL;

-- What is to be said on a forge, by whichever vcs takes it.
CREATE TABLE forge_comments (
    id            uuid PRIMARY KEY,          -- marks the comment, by which it is found again
    work_item_id  uuid NOT NULL REFERENCES work_items,
    repository    text NOT NULL,
    number        integer NOT NULL,
    in_reply_to   text,                      -- a review comment; null: a comment on the issue or pull request
    body          text NOT NULL,
    due_at        timestamptz DEFAULT now(), -- null: posted, or given up
    attempts      integer NOT NULL DEFAULT 0,
    url           text,                      -- where it was posted
    error         text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    posted_at     timestamptz
);
CREATE INDEX forge_comments_due ON forge_comments (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX forge_comments_by_item ON forge_comments (work_item_id);
