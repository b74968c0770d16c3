"""The gateway: validates, authenticates, writes jobs, and serves what clients read. It never runs work."""
