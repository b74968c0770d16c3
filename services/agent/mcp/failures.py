"""What can go wrong with a server, in words for the model and the run's log; never a secret among them."""


class ServerError(Exception):
    """The server did not do what it was asked for; the message completes `the server …`."""


class AwayError(ServerError):
    """The server cannot be started or connected to; what it was to be asked was not asked."""


class RefusedError(ServerError):
    """The server answered that it would not or could not; it goes on."""


class EndedError(ServerError):
    """The server died, hung, or answered nonsense: its session is of no use any more."""
