-- The order of publication is kept for what was told together, and no more with each event: an event is written once.
-- Safe beside the code before it: what that tells is batched like everything else, and published by the code after it.
-- Whoever writes events waits for this no longer than for anything else: a reader that holds it up has it tried again.
SET LOCAL lock_timeout = '1s';

CREATE TABLE event_batches (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The events that one statement told, side by side. The jobs were locked: of two batches that tell of one job, the
    -- earlier has the lower id.
    job_ids       uuid[] NOT NULL,
    numbers       integer[] NOT NULL,
    last_sequence bigint UNIQUE              -- of its last event, whose sequence is this; null: not given out yet
);
CREATE INDEX event_batches_next ON event_batches (id) WHERE last_sequence IS NULL;

CREATE FUNCTION batch_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO event_batches (job_ids, numbers)
    SELECT array_agg(job_id ORDER BY job_id, number), array_agg(number ORDER BY job_id, number) FROM told
    HAVING count(*) > 0;
    RETURN NULL;
END
$$;

LOCK TABLE events IN ACCESS EXCLUSIVE MODE;
CREATE TRIGGER events_are_batched AFTER INSERT ON events
    REFERENCING NEW TABLE AS told FOR EACH STATEMENT EXECUTE FUNCTION batch_events();
-- A scheduler of before looks for events without this: from now on it finds none, and publishes none a second time.
ALTER TABLE events ALTER COLUMN published_at SET DEFAULT now();
INSERT INTO event_batches (job_ids, numbers)
SELECT array_agg(job_id ORDER BY place), array_agg(number ORDER BY place)
FROM (SELECT job_id, number, row_number() OVER (ORDER BY job_id, number) AS place FROM events WHERE published_at IS NULL) e
GROUP BY (place - 1) / 500 ORDER BY (place - 1) / 500;
UPDATE events SET published_at = now() WHERE published_at IS NULL;
DROP INDEX events_unpublished;

-- What NATS has, as the code after this one says it. A scheduler of before knows no batches, and takes what they have been given
-- for published.
ALTER TABLE event_cursor ADD COLUMN sent bigint NOT NULL DEFAULT 0;
UPDATE event_cursor SET sent = published;
