"""What is stored, and how: PostgreSQL behind the ports, raw SQL by name.

`open_store` opens all of it; `migrations` brings a database up to date; `embedded` owns a PostgreSQL of our own.
"""

from regsvc.store.store import Store, open_store

__all__ = ["Store", "open_store"]
