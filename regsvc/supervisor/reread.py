"""The settings read once more: what holds from now on, and what only a restart would change.

The environment of a process is what it was at its start, for nobody can change it; what changes is the file `.env`.
"""

from collections.abc import Collection, Mapping
from typing import Final, Protocol

from regsvc.settings import Settings, with_secret
from regsvc.settings.words import as_text, variable

FIXED: Final = ("host", "port", "workers", "data_dir", "pg_bin")
_DATABASE: Final = (
    "database_url",
    "database_host",
    "database_port",
    "database_name",
    "database_user",
    "database_password",
)


class Read(Protocol):
    """Reads the settings."""

    def __call__(self, before: Mapping[str, str], without: Collection[str], /) -> Settings:
        """Read the variables in `before` before all else, and not the fields in `without`. Raises SettingsError."""
        ...


def reread(read: Read, was: Settings) -> tuple[Settings, list[str]]:
    """Return the settings as they are from now on, and the variables whose change waits for a restart.

    What stays is read with the rest: defaults of others depend on it. Raises SettingsError.
    """
    found = read({}, ())
    kept = [name for name in FIXED if getattr(found, name) != getattr(was, name)]
    if ("http" in found.roles) != ("http" in was.roles):
        kept.append("roles")
    stays = [*kept]
    if (found.dsn is None) != (was.dsn is None):
        kept.append("database_url")
        stays += [*_DATABASE, "profile"]  # which is another by itself where a database is named
    if stays:
        texts = {name: as_text(getattr(was, name)) for name in stays}
        told = {variable(name): text for name, text in texts.items() if text}
        found = read(told, [name for name, text in texts.items() if not text])
    return with_secret(found), [variable(name) for name in kept]
