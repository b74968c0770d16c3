"""The command `quarterdeck`. It talks to the gateway through the client alone, and to the stack on this machine."""


def main() -> None:
    """Run the command line and exit with its code."""
    from quarterdeck.cli.app import app  # noqa: PLC0415 (importing a part of this package must not load all commands)

    app(prog_name="quarterdeck")
