"""Changesets on their way to a forge, and what is done and seen there afterwards."""
