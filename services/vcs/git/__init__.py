"""Git itself: how it is run, what it may reach, and what is read from it."""
