"""Chaos: the real stack under load while its processes are killed, stopped and restarted at random."""
