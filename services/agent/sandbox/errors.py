"""How running a command fails before the command has begun."""


class SandboxUnavailableError(Exception):
    """The command was not begun: there is no sandbox, or it could not be set up; the message says what to do."""
