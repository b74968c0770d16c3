-- Whether the stored tree of a run is behind what its transcript tells: the worktree was too large to be stored.
-- Safe beside the code before it, which writes nothing here: what that stores is taken for up to date, as it was before.
ALTER TABLE checkpoints ADD COLUMN is_behind boolean NOT NULL DEFAULT false;
