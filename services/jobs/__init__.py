"""The shared domain: states, models, and the repository through which every service reads and moves jobs."""
