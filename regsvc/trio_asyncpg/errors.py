"""The errors this package adds to asyncpg's own."""


class ConnectionLost(ConnectionError):
    """The connection to the server ended before its answer came; what a statement under way did is unknown.

    Also raised by every later use of that connection. `__cause__` holds the server's last word, if it had one.
    """
