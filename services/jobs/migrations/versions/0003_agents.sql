-- What agents are told, what they may spend and did spend, and what they keep beside the worktree.
-- Safe beside the code before it: what is added is null or has a default, and nothing that it reads or writes is taken away.

-- What a client's runs take where their job says nothing; see `ClientSettings` in services/contracts/rest.py.
CREATE TABLE client_settings (
    client_id  uuid PRIMARY KEY REFERENCES clients,
    settings   jsonb NOT NULL,
    sealed     bytea,                        -- secrets, encrypted with QUARTERDECK_SECRET_KEY; the key is nowhere here
    updated_at timestamptz NOT NULL DEFAULT now()
);

ALTER TABLE jobs ADD COLUMN sealed bytea;    -- secrets of this job alone, encrypted likewise

ALTER TABLE runs
    ADD COLUMN head           bytea,         -- system prompt and tools as the first request had them, byte by byte
    ADD COLUMN cost_microusd  bigint NOT NULL DEFAULT 0,
    ADD COLUMN unpriced_turns integer NOT NULL DEFAULT 0;

-- What each request to a model used, as the model service told it.
CREATE TABLE model_usage (
    run_id        uuid NOT NULL REFERENCES runs,
    turn          integer NOT NULL,          -- from 1, over all attempts
    attempt       integer NOT NULL,
    client_id     uuid NOT NULL,
    model         text NOT NULL,
    input_tokens  bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cache_read_input_tokens     bigint NOT NULL,
    cache_creation_input_tokens bigint NOT NULL,
    cost_microusd bigint,                    -- null: the model has no known price
    raw           jsonb NOT NULL,            -- the service's own usage object
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, turn)
);

-- What a client has used on a UTC day.
CREATE TABLE spending (
    client_id uuid NOT NULL REFERENCES clients,
    day       date NOT NULL,
    tokens    bigint NOT NULL DEFAULT 0,
    microusd  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (client_id, day)
);
CREATE INDEX spending_of_day ON spending (day);

-- What may be used. An empty name: the default of its scope.
CREATE TABLE budgets (
    scope    text NOT NULL CHECK (scope IN ('day', 'client', 'client_day')),
    name     text NOT NULL DEFAULT '',
    tokens   bigint CHECK (tokens >= 0),
    microusd bigint CHECK (microusd >= 0),
    PRIMARY KEY (scope, name)
);

-- The worst that the request under way of a run can come to; gone when its usage is stored.
CREATE TABLE reservations (
    run_id     uuid PRIMARY KEY REFERENCES runs,
    attempt    integer NOT NULL,
    job_id     uuid NOT NULL,
    client_id  uuid NOT NULL,
    tokens     bigint NOT NULL,
    microusd   bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX reservations_of_job ON reservations (job_id);
CREATE INDEX reservations_of_client ON reservations (client_id);

-- Long outputs of tools, which the model reads like files; part of a checkpoint.
CREATE TABLE outputs (
    run_id     uuid NOT NULL REFERENCES runs,
    name       text NOT NULL,
    body       bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, name)
);

-- How fast the fleet may send requests with one key to one model service, while that asks for less.
CREATE TABLE model_pace (
    scope         text PRIMARY KEY,          -- a hash of address and key
    per_second    double precision NOT NULL,
    tokens        double precision NOT NULL,
    refilled_at   timestamptz NOT NULL,
    paused_until  timestamptz NOT NULL,
    throttled_at  timestamptz NOT NULL
);

ALTER TABLE changesets
    ADD COLUMN is_draft boolean NOT NULL DEFAULT false,
    ADD COLUMN verified boolean;             -- whether its tests passed; null: none were run
