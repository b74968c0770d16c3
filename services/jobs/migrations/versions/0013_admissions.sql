-- How many admissions there have been: one that was decided on what was there before the last writes nothing.
CREATE TABLE admissions (
    id    boolean PRIMARY KEY DEFAULT true CHECK (id),
    count bigint NOT NULL DEFAULT 0
);
INSERT INTO admissions DEFAULT VALUES;
