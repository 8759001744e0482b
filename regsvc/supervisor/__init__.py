"""The parent of all: one listening socket, the embedded PostgreSQL, N workers; it restarts and drains them.

Written by hand because Hypercorn's own master ends with status 0 when one worker dies, and gunicorn, circus and the
like know neither our drain nor our database. Synchronous, no Trio: nothing here waits for more than one `select`.

Rule 1. A worker ends with this process, however it ends: the kernel is told so (PR_SET_PDEATHSIG), and where it cannot
        be, the lifeline tells: a pipe that nobody writes to any more.
Rule 2. Settings go down the lifeline, never through arguments or the environment: others can read those.
Rule 3. Workers start before the database does: they import meanwhile, and wait for their settings.
Rule 4. With two workers or more another one waits, which has imported all it needs: whoever dies is replaced by it.
Rule 5. A hang-up that comes from no terminal has the settings read again and the workers replaced, one at a time. What
        cannot be used changes nothing.
Rule 6. The exit status tells the truth: 0 asked for, 75 try again, 78 misconfigured.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from regsvc.observe.shared import Shared
from regsvc.settings import Settings
from regsvc.supervisor.door import CannotListen, listening
from regsvc.supervisor.reread import Read
from regsvc.supervisor.signals import Signals, Stop
from regsvc.supervisor.watch import Database, Watch
from regsvc.supervisor.workers import COMMAND, Crew, end_with, read_orders

__all__ = ["CannotListen", "Database", "end_with", "listening", "read_orders", "supervise"]


def supervise(
    settings: Settings,
    open_database: Callable[[], AbstractContextManager[Database]] | None,
    *,
    shared: Shared,
    read: Read | None = None,
    tell: Callable[[str], None] = lambda _: None,
    command: Sequence[str] = COMMAND,
) -> int:
    """Run the service until it is told to stop, or cannot go on; return the exit status.

    For the main thread. `open_database` opens the embedded one, None where the settings name another; `tell` is told, a
    line each, what a person at the terminal wants to know; `command` is what a worker runs. `shared` has a slab for
    this process, the first one, and two for each worker: the next one of a place begins before the last one has ended,
    and one waits.
    `read` reads the settings once more; without it they stay.
    No process is left when this returns. Raises CannotListen, and what `open_database` raises.
    """
    began = time.monotonic()
    with (
        Signals() as signals,
        listening(settings) as door,
        Crew(settings.workers, door, shared, command) as crew,
        ExitStack() as stack,
    ):
        crew.start()
        try:
            with signals.interrupting():
                database = None if open_database is None else stack.enter_context(open_database())
        except Stop:
            return os.EX_OK
        return Watch(settings, crew, database, signals, door, tell, began, read or (lambda *_: settings)).run()
