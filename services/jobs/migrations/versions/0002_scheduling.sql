-- Fair admission under limits that can be changed, retries, conversations that wait, and one order over all events.
-- Safe beside the code before it: what is added has a default, and nothing that it reads or writes is taken away.

ALTER TABLE clients ADD COLUMN is_operator boolean NOT NULL DEFAULT false;  -- may change the limits

ALTER TABLE jobs
    ADD COLUMN queue        text CHECK (queue IN ('code', 'task', 'review')),  -- null: the one named like its kind
    ADD COLUMN max_parallel integer,
    -- Its place in the turns of its client's jobs; see services/jobs/fairness.py.
    ADD COLUMN fair_tag     bigint NOT NULL DEFAULT 0,
    -- Not looked at by admission before this; null: at once.
    ADD COLUMN ready_from   timestamptz;
UPDATE jobs SET max_parallel = (options ->> 'maxParallel')::integer
WHERE state IN ('queued', 'running') AND options ->> 'maxParallel' IS NOT NULL;
UPDATE jobs SET ready_from = not_before WHERE state = 'queued' AND not_before > now();

ALTER TABLE runs
    ADD COLUMN held_since     timestamptz,  -- queued, but its repository or branch has no room for it
    ADD COLUMN queue_seconds  integer,      -- how long it may stay queued
    ADD COLUMN queue_deadline timestamptz,
    ADD COLUMN run_seconds    integer,      -- how long agents may work on it, over all attempts
    ADD COLUMN time_left      interval,     -- of that, while no agent holds it
    ADD COLUMN run_deadline   timestamptz,  -- while one does
    ADD COLUMN idle_seconds   integer,      -- how long it may wait for its user
    ADD COLUMN idle_deadline  timestamptz,
    ADD COLUMN resumes        uuid REFERENCES runs;  -- begins from this run's checkpoint

-- What a user says to a run that is under way. Read once its words are in the transcript.
CREATE TABLE inbox (
    id         uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    run_id     uuid NOT NULL REFERENCES runs,
    number     integer NOT NULL,             -- from 1, without holes
    kind       text NOT NULL CHECK (kind IN ('message', 'complete')),
    body       text NOT NULL,
    interrupt  boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    read_at    timestamptz,
    PRIMARY KEY (run_id, number)
);
CREATE INDEX inbox_unread ON inbox (created_at) WHERE read_at IS NULL;

-- How many runs may hold a slot at once. An empty name: the default of its scope.
CREATE TABLE limits (
    scope text NOT NULL CHECK (scope IN ('fleet', 'queue', 'client', 'repository', 'queued')),
    name  text NOT NULL DEFAULT '',
    slots integer NOT NULL CHECK (slots >= 0),
    PRIMARY KEY (scope, name)
);

-- How far the turns of a client's jobs have come in each queue.
CREATE TABLE fair_clocks (
    client_id uuid NOT NULL REFERENCES clients,
    queue     text NOT NULL,
    clock     bigint NOT NULL,
    PRIMARY KEY (client_id, queue)
);

ALTER TABLE events
    ADD COLUMN client_id uuid,
    ADD COLUMN sequence  bigint;             -- over all jobs, in the order of publication, without holes
-- One row: the last sequence that was given out, and the last that NATS has.
CREATE TABLE event_cursor (
    id        boolean PRIMARY KEY DEFAULT true CHECK (id),
    assigned  bigint NOT NULL DEFAULT 0,
    published bigint NOT NULL DEFAULT 0
);
INSERT INTO event_cursor DEFAULT VALUES;

-- Events and runs are only ever written under the lock of their job's row (services/jobs/unit.py), which has the client:
-- to look both up again for each row took a sixth of PostgreSQL's time for a job.
ALTER TABLE events DROP CONSTRAINT IF EXISTS events_job_id_fkey;
ALTER TABLE runs DROP CONSTRAINT IF EXISTS runs_client_id_fkey;
