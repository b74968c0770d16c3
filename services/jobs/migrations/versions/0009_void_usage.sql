-- What was paid for without a turn to show for it, and the places in the line for a model service that is short.
-- Safe beside the code before it: nothing that it reads or writes is taken away, and what is added has a default.

-- Places handed out in the line: `taken + tokens` of them were reached. Before what locks runs: it may have to wait for
-- a reader, and nobody is to wait for that.
ALTER TABLE model_pace ADD COLUMN taken bigint NOT NULL DEFAULT 0;

-- What each request to a model used whose reply came to nothing: thrown away, or cut off with its attempt.
CREATE TABLE void_usage (
    id            uuid PRIMARY KEY,          -- made by the agent, so that it is counted once
    run_id        uuid NOT NULL REFERENCES runs,
    attempt       integer NOT NULL,
    client_id     uuid NOT NULL,
    model         text NOT NULL,
    input_tokens  bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cache_read_input_tokens     bigint NOT NULL,
    cache_creation_input_tokens bigint NOT NULL,
    cost_microusd bigint,                    -- null: the model has no known price
    raw           jsonb NOT NULL,            -- the service's own usage object, as far as it was told
    created_at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX void_usage_of_run ON void_usage (run_id);
