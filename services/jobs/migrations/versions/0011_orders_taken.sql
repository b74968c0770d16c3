-- A lease is granted with the order that gives a run to an agent, for a few seconds, and prolonged once the agent has taken
-- it up. Safe beside the code before it: what that grants was taken up already, and its agents are given nothing.
ALTER TABLE leases ADD COLUMN taken boolean NOT NULL DEFAULT true;
ALTER TABLE nodes ADD COLUMN hears_orders boolean NOT NULL DEFAULT false;
