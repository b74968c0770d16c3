-- Heartbeats are numbered: an agent knows when it sent the one after which it was given a run. Safe beside the code before it,
-- whose agents are given nothing that they need not claim.
ALTER TABLE nodes ADD COLUMN beat bigint NOT NULL DEFAULT 0;
