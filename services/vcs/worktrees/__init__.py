"""Worktrees of attempts: made, read as patches, put back, committed."""
