"""Events with their sequences, as SQL: each kept its own before ADR 21, and from then on its batch has it."""

SEQUENCED = """(
    SELECT e.*, coalesce(e.sequence, b.place) AS place FROM events e LEFT JOIN (
        SELECT o.job_id, o.number, t.last_sequence - cardinality(t.numbers) + o.place AS place
        FROM event_batches t
        CROSS JOIN LATERAL unnest(t.job_ids, t.numbers) WITH ORDINALITY AS o (job_id, number, place)
    ) b ON b.job_id = e.job_id AND b.number = e.number
)"""
"""A table of all events, whose column ``place`` is the sequence; null: it has none yet."""
