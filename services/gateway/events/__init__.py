"""A job's events as a stream that can be broken off anywhere and taken up again."""
