"""Open files: as many as the connections may need, or else fewer connections than the settings allow.

Each connection is a file. A worker that has none left accepts nobody, not even a probe, so it must never come to that:
whoever is one too many is told so (see http.crowd), which takes a file too.
"""

import resource
from contextlib import suppress
from typing import Final

from regsvc import observe
from regsvc.http.server import Limits
from regsvc.settings import Settings

MARGIN: Final = 128  # the log, pipes, sockets that listen, what libraries open for a moment
GUESTS: Final = 256  # connections beyond those allowed, to be told so


def room(settings: Settings) -> Limits:
    """Raise the limit of open files to what `settings` may need, and return how many connections there is room for."""
    others = settings.database_pool_max + settings.mail_concurrency + MARGIN
    files = _raise_to(settings.connections_max + GUESTS + others)
    guests = max(1, min(GUESTS, (files - others) // 2))
    connections = min(settings.connections_max, max(1, files - others - guests))
    if connections < settings.connections_max:
        reason = f"a process may open {files} files here, which is enough for {connections}: raise ulimit -n"
        observe.emit("settings_warning", setting="REGSVC_CONNECTIONS_MAX", reason=reason)
    return Limits(connections=connections, guests=guests)


def _raise_to(needed: int) -> int:
    """Have the process open so many files, or as many as it may; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    with suppress(ValueError, OSError):  # a system may have a bound of its own
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
