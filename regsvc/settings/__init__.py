"""What the service is told: one frozen `Settings`, read once at start from the environment, `.env`, then defaults.

Rule 1. Every variable has an effect, and every variable's name, range and meaning stands here and nowhere else:
        README's table, `.env.example` and the lines that refuse a wrong value are made from these fields.
Rule 2. A wrong value or a mistyped name stops the start with one line: what it is called, what it got, what it takes.
Rule 3. What a secret was is in no line.

pydantic-settings is not used: it passes over a mistyped REGSVC_… in silence, cannot tell where a value came from or be
given a mapping instead of the process's environment (workers get theirs through a pipe), decodes lists as JSON, and
imports asyncio, 0.1 s of each process's start. What is left of it is the loop in `_given`.
"""

from regsvc.settings.fields import Settings
from regsvc.settings.reading import (
    Origin,
    SettingsError,
    load_settings,
    read_settings,
    secret_file,
    with_secret,
)
from regsvc.settings.values import Role, cores

__all__ = [
    "Origin",
    "Role",
    "Settings",
    "SettingsError",
    "cores",
    "load_settings",
    "read_settings",
    "secret_file",
    "with_secret",
]
