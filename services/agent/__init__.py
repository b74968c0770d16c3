"""Agents: claim runs, drive model and tools, checkpoint, hand over. They hold no credential of Git or of a forge."""
