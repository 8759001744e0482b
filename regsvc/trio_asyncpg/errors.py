"""The errors this package adds to asyncpg's own."""


class ConnectionLost(ConnectionError):  # noqa: N818  # the name says what is the matter
    """The connection to the server ended before its answer came; what a statement under way did is unknown.

    Also raised by every later use of that connection. `__cause__` holds the server's last word, if it had one.
    """
