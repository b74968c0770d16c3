-- name: keep
-- Keep a delivery that is new; what it asks for is due at once. One that was given up is taken up again where it comes
-- again, since its sender was asked to; and so is one that nothing was to be done for, by the rules of that time.
INSERT INTO webhook_deliveries (source, delivery, event, payload, due_at)
VALUES (:source, :delivery, :event, :payload, CASE WHEN :payload::bytea IS NOT NULL THEN now() END)
ON CONFLICT (source, delivery) DO UPDATE
    SET event = excluded.event, payload = excluded.payload, due_at = excluded.due_at, attempts = 0, error = NULL
    WHERE webhook_deliveries.due_at IS NULL
      AND (webhook_deliveries.error IS NOT NULL OR (webhook_deliveries.attempts = 0 AND excluded.payload IS NOT NULL))
RETURNING delivery;

-- name: take
-- Take what is due, the longest due first; whoever takes it has `again` to do it, and then somebody else may.
UPDATE webhook_deliveries d SET due_at = now() + :again::interval, attempts = attempts + 1
WHERE (source, delivery) IN (SELECT source, delivery FROM webhook_deliveries WHERE due_at <= now()
                             ORDER BY due_at LIMIT :most FOR UPDATE SKIP LOCKED)
RETURNING source, delivery, event, payload, attempts;

-- name: done!
UPDATE webhook_deliveries SET payload = NULL, due_at = NULL, error = NULL
WHERE source = :source AND delivery = :delivery AND attempts = :attempt;

-- name: defer!
UPDATE webhook_deliveries SET due_at = now() + :delay::interval, error = :error
WHERE source = :source AND delivery = :delivery AND attempts = :attempt;

-- name: give_up!
UPDATE webhook_deliveries SET payload = NULL, due_at = NULL, error = :error
WHERE source = :source AND delivery = :delivery AND attempts = :attempt;

-- name: totals^
-- Of the days for which deliveries are remembered.
SELECT count(*) AS count, max(received_at) AS last_received_at FROM webhook_deliveries
WHERE :source::text IS NULL OR source = :source;
