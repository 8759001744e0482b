"""BEGIN and COMMIT of our own: asyncpg's Transaction must not be left by a cancelled task.

Rule 1. A body that ended well is committed, shielded: who was cancelled by then finds it done.
Rule 2. A body that did not is rolled back, shielded: first the statement that was cut is over, then ROLLBACK.
Rule 3. Each shield has a deadline; past it the connection is dropped, which rolls back what was not committed.
Rule 4. Nothing is reported as committed that was not: the answer to COMMIT is read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

import trio
from asyncpg import exceptions

if TYPE_CHECKING:
    from regsvc.trio_asyncpg.connection import Connection

Isolation: TypeAlias = Literal["serializable", "repeatable_read", "read_committed", "read_uncommitted"]

ISOLATION: Final[dict[str, str]] = {
    "serializable": "SERIALIZABLE",
    "repeatable_read": "REPEATABLE READ",
    "read_committed": "READ COMMITTED",
    "read_uncommitted": "READ UNCOMMITTED",
}
COMMIT_TIMEOUT: Final = 5.0  # seconds; a synchronous standby may take its time
ROLLBACK_TIMEOUT: Final = 1.0  # seconds, the end of a cancelled statement included


class Transaction:
    """All of an `async with` block, or nothing of it; a savepoint within another one.

    Errors: what the body raised. InFailedSQLTransactionError when the body hid an error that had ended the transaction.
    ConnectionLost or TimeoutError from COMMIT mean that its outcome is unknown.
    """

    __slots__ = ("_begin", "_connection", "_savepoint")

    def __init__(
        self, connection: "Connection", *, isolation: Isolation | None, readonly: bool, deferrable: bool
    ) -> None:
        if isolation is not None and isolation not in ISOLATION:
            raise ValueError(f"isolation is one of {', '.join(ISOLATION)}, not {isolation!r}")
        self._connection = connection
        self._savepoint: str | None = None
        words = ["BEGIN"]
        if isolation is not None:
            words.append(f"ISOLATION LEVEL {ISOLATION[isolation]}")
        if readonly:
            words.append("READ ONLY")
        if deferrable:
            words.append("DEFERRABLE")
        self._begin = " ".join(words)

    async def __aenter__(self) -> Self:
        connection = self._connection
        if connection.is_in_transaction():
            if self._begin != "BEGIN":
                raise exceptions.InterfaceError("a savepoint has the isolation of the transaction it is in")
            self._savepoint = connection.new_savepoint()
            self._begin = f"SAVEPOINT {self._savepoint}"
        try:
            await connection.execute(self._begin)
        except BaseException:
            # It may have begun: the answer was cut, not the statement.
            await self._undo()  # noqa: ASYNC102  # shielded there, with a deadline
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            await self._undo()  # noqa: ASYNC102  # shielded there, with a deadline
        elif self._savepoint is None:
            await self._commit()  # noqa: ASYNC102  # shielded there, with a deadline
        else:
            # Cancelled here, it is the transaction around that is undone.
            await self._connection.execute(f"RELEASE {self._savepoint}")  # noqa: ASYNC102  # no error is lost

    async def _commit(self) -> None:
        with self._shielded(COMMIT_TIMEOUT, "COMMIT"):
            status = await self._connection.execute("COMMIT", timeout=COMMIT_TIMEOUT)
            if status != "COMMIT":
                raise exceptions.InFailedSQLTransactionError(
                    "nothing was committed: an error within the transaction had ended it"
                )

    async def _undo(self) -> None:
        connection = self._connection
        if connection.is_closed():
            return
        with self._shielded(ROLLBACK_TIMEOUT, "ROLLBACK"):
            await connection.settled()
            if connection.is_closed() or not connection.is_in_transaction():
                return
            if self._savepoint is None:
                await connection.execute("ROLLBACK", timeout=ROLLBACK_TIMEOUT)
            else:
                await connection.execute(
                    f"ROLLBACK TO {self._savepoint}; RELEASE {self._savepoint}", timeout=ROLLBACK_TIMEOUT
                )

    @contextmanager
    def _shielded(self, seconds: float, what: str) -> Iterator[None]:
        """Shield the block for `seconds`; where it fails to end the transaction, drop the connection, which does."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds) as scope:
            try:
                yield
            except OSError:
                self._connection.terminate()
                if what == "COMMIT":
                    raise
        if scope.cancelled_caught:
            self._connection.terminate()
            if what == "COMMIT":
                raise TimeoutError(f"{what} was not answered within {seconds} s")
