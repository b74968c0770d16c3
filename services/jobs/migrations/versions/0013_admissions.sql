-- How often runs were given away, or limits were changed: what was decided on what was there before the last time is not
-- written.
CREATE TABLE admissions (
    id    boolean PRIMARY KEY DEFAULT true CHECK (id),
    count bigint NOT NULL DEFAULT 0
);
INSERT INTO admissions DEFAULT VALUES;
