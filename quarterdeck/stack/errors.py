"""What can go wrong with a local stack. Each message says what was wrong and what to do."""


class StackError(Exception):
    """The local stack could not do what was asked."""


class StackLockedError(StackError):
    """Another stack runs on this data folder."""


class StackStartError(StackError):
    """A part of the stack did not start."""


class ProcessFailedError(StackStartError):
    """A process ended, or did not get ready in time; its last log lines are in the message."""

    def __init__(self, name: str, what: str, log_tail: str, exit_code: int | None) -> None:
        detail = f"; its last log lines:\n{log_tail}" if log_tail else "; it logged nothing"
        super().__init__(f"{name} {what}{detail}")
        self.name = name
        self.log_tail = log_tail
        self.exit_code = exit_code


class StackNotRunningError(StackError):
    """No stack runs on this data folder."""
