-- Every state lives here. Where a state is final, a CHECK ties it to its timestamp.

CREATE TABLE clients (
    id           uuid PRIMARY KEY,
    name         text NOT NULL UNIQUE,
    api_key_hash bytea UNIQUE,               -- SHA-256 of the key; the key itself is nowhere
    created_at   timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE jobs (
    id                  uuid PRIMARY KEY,    -- version 7: ordered by time of creation
    client_id           uuid NOT NULL REFERENCES clients,
    kind                text NOT NULL CHECK (kind IN ('code', 'task')),
    name                text,
    prompt              text NOT NULL,
    options             jsonb NOT NULL,
    priority            integer NOT NULL DEFAULT 0,
    not_before          timestamptz,
    state               text NOT NULL DEFAULT 'queued'
                        CHECK (state IN ('queued', 'running', 'cancelling', 'completed', 'failed', 'cancelled')),
    outcome             text CHECK (outcome IN ('all', 'partial')),
    retry_of            uuid REFERENCES jobs,
    -- How many of its runs are where; kept in the transaction that moves a run.
    runs_total          integer NOT NULL,
    runs_started        integer NOT NULL DEFAULT 0,
    runs_active         integer NOT NULL DEFAULT 0,
    runs_completed      integer NOT NULL DEFAULT 0,
    runs_failed         integer NOT NULL DEFAULT 0,
    runs_cancelled      integer NOT NULL DEFAULT 0,
    last_event_number   integer NOT NULL DEFAULT 0,
    created_at          timestamptz NOT NULL DEFAULT now(),
    started_at          timestamptz,
    finished_at         timestamptz,
    cancel_requested_at timestamptz,
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK (runs_completed + runs_failed + runs_cancelled <= runs_total)
);
CREATE INDEX jobs_of_client ON jobs (client_id, id DESC);
CREATE INDEX jobs_of_client_in_state ON jobs (client_id, state, id DESC);

CREATE TABLE runs (
    id                  uuid PRIMARY KEY,
    job_id              uuid NOT NULL REFERENCES jobs,
    client_id           uuid NOT NULL REFERENCES clients,
    position            integer NOT NULL,    -- place among the job's repositories, from 0
    queue               text NOT NULL CHECK (queue IN ('code', 'task', 'review')),
    repository          text,                -- as the client gave it
    base_ref            text,
    base_sha            text,                -- set at the first prepare, then fixed
    base_branch         text,
    branch              text,                -- fixed when the run is created
    priority            integer NOT NULL,
    max_parallel        integer,             -- of the job, copied for admission
    not_before          timestamptz,
    state               text NOT NULL DEFAULT 'queued'
                        CHECK (state IN ('queued', 'dispatched', 'running', 'waiting', 'publishing',
                                         'completed', 'failed', 'cancelled')),
    outcome             text CHECK (outcome IN ('delivered', 'stored', 'no_changes', 'unverified', 'answered')),
    exit_reason         text,
    error               text,
    summary             text,
    dispatch            integer NOT NULL DEFAULT 0,
    attempt             integer NOT NULL DEFAULT 0,  -- claims so far; fences with lease_token
    attempts_spent      integer NOT NULL DEFAULT 0,  -- attempts that count against max_attempts
    times_lost          integer NOT NULL DEFAULT 0,
    lease_token         uuid,                        -- set while an agent holds the run
    agent               text,
    turns               integer NOT NULL DEFAULT 0,
    input_tokens        bigint NOT NULL DEFAULT 0,
    output_tokens       bigint NOT NULL DEFAULT 0,
    cache_read_input_tokens     bigint NOT NULL DEFAULT 0,
    cache_creation_input_tokens bigint NOT NULL DEFAULT 0,
    created_at          timestamptz NOT NULL DEFAULT now(),
    dispatched_at       timestamptz,
    started_at          timestamptz,
    finished_at         timestamptz,
    cancel_requested_at timestamptz,
    UNIQUE (job_id, position),
    CHECK ((state IN ('completed', 'failed', 'cancelled')) = (finished_at IS NOT NULL)),
    CHECK ((state = 'completed') = (outcome IS NOT NULL)),
    CHECK ((state = 'failed') = (exit_reason IS NOT NULL)),
    CHECK ((state = 'running') = (lease_token IS NOT NULL))
);
-- Admission: highest priority first, then oldest.
CREATE INDEX runs_queued ON runs (queue, priority DESC, id) WHERE state = 'queued';
CREATE INDEX runs_holding_a_slot ON runs (queue) WHERE state IN ('dispatched', 'running');
CREATE INDEX runs_dispatched ON runs (dispatched_at) WHERE state = 'dispatched';
CREATE INDEX runs_to_cancel ON runs (cancel_requested_at)
    WHERE cancel_requested_at IS NOT NULL AND state NOT IN ('completed', 'failed', 'cancelled');
-- One active run on a repository and branch at most; admission holds the others back. By the repository's hash,
-- since an index takes no text of over 2,704 bytes and would refuse the run when it is admitted.
CREATE UNIQUE INDEX runs_one_on_a_branch ON runs (md5(repository), branch)
    WHERE state IN ('dispatched', 'running', 'waiting', 'publishing');

CREATE INDEX runs_of_repository ON runs (md5(repository), job_id);

-- A table of its own, so that a locked run blocks no renewal. The id is a run's or a changeset's.
CREATE TABLE leases (
    id         uuid PRIMARY KEY,
    kind       text NOT NULL CHECK (kind IN ('run', 'changeset')),
    token      uuid NOT NULL,
    holder     text NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX leases_by_holder ON leases (holder);
CREATE INDEX leases_by_expiry ON leases (kind, expires_at);

CREATE TABLE messages (
    run_id     uuid NOT NULL REFERENCES runs,
    number     integer NOT NULL,             -- from 1, without holes
    attempt    integer NOT NULL,
    role       text NOT NULL CHECK (role IN ('user', 'assistant')),
    body       bytea NOT NULL,               -- exact bytes: jsonb would reorder them
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, number)
);

CREATE TABLE checkpoints (
    run_id        uuid PRIMARY KEY REFERENCES runs,
    attempt       integer NOT NULL,
    message       integer NOT NULL,          -- the last message that the patch belongs to
    patch         bytea NOT NULL,            -- the working tree against the base
    read_versions jsonb NOT NULL,            -- path → hash of the version that the model has read
    updated_at    timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE changesets (
    id            uuid PRIMARY KEY,
    run_id        uuid NOT NULL UNIQUE REFERENCES runs,
    job_id        uuid NOT NULL REFERENCES jobs,
    client_id     uuid NOT NULL REFERENCES clients,
    repository    text NOT NULL,
    branch        text NOT NULL,
    base_sha      text NOT NULL,
    base_branch   text,
    commit_sha    text NOT NULL,
    commit_author_name  text NOT NULL,
    commit_author_email text NOT NULL,
    commit_time   timestamptz NOT NULL,
    commit_message text NOT NULL,
    patch         bytea NOT NULL,
    files         jsonb NOT NULL,
    insertions    integer NOT NULL,
    deletions     integer NOT NULL,
    expected_remote_sha text NOT NULL DEFAULT '',  -- empty: the branch must not exist
    state         text NOT NULL
                  CHECK (state IN ('stored', 'queued', 'pushing', 'open', 'merged', 'closed', 'failed')),
    dispatch      integer NOT NULL DEFAULT 0,
    dispatched_at timestamptz,
    attempts      integer NOT NULL DEFAULT 0,
    not_before    timestamptz,
    lease_token   uuid,
    url           text,
    error         text,
    created_at    timestamptz NOT NULL DEFAULT now(),
    published_at  timestamptz,
    CHECK ((state = 'pushing') = (lease_token IS NOT NULL)),
    CHECK ((state IN ('open', 'merged', 'closed')) = (published_at IS NOT NULL))
);
CREATE INDEX changesets_of_client ON changesets (client_id, id DESC);
CREATE INDEX changesets_queued ON changesets (dispatched_at NULLS FIRST) WHERE state = 'queued';

CREATE TABLE events (
    job_id       uuid NOT NULL REFERENCES jobs,
    number       integer NOT NULL,           -- from 1, without holes, handed out under the job's row lock
    id           uuid NOT NULL,
    run_id       uuid,
    attempt      integer NOT NULL,
    kind         text NOT NULL,
    data         jsonb NOT NULL,             -- the payload as proto3 JSON
    created_at   timestamptz NOT NULL,
    published_at timestamptz,
    PRIMARY KEY (job_id, number)
);
CREATE INDEX events_unpublished ON events (job_id, number) WHERE published_at IS NULL;
CREATE INDEX events_of_run ON events (run_id, number);

CREATE TABLE idempotency_keys (
    client_id  uuid NOT NULL REFERENCES clients,
    key        text NOT NULL,
    body_hash  bytea NOT NULL,
    job_id     uuid NOT NULL REFERENCES jobs DEFERRABLE INITIALLY DEFERRED,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (client_id, key)
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- The processes that live: agents with their capacity, vcs nodes with their address.
CREATE TABLE nodes (
    name       text PRIMARY KEY,             -- unique to one life of a process
    kind       text NOT NULL CHECK (kind IN ('agent', 'vcs')),
    capacity   integer NOT NULL,             -- runs at once; 0 for a vcs
    address    text,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX nodes_seen ON nodes (kind, seen_at);
