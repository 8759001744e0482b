"""The composition root: the only place that names concrete classes.

Nothing is built at import. `building` builds, `running` says who lives as long as whom, `process` is a worker's
process, `verbs` is what the command line opens.
"""

from regsvc.world.building import World, open_world, passwords, relay, rules
from regsvc.world.process import run_worker
from regsvc.world.running import Doorman, Life, checks, live, openapi_document
from regsvc.world.verbs import apply_migrations, open_desk, open_keys, open_staff, open_transfer

__all__ = [
    "Doorman",
    "Life",
    "World",
    "apply_migrations",
    "checks",
    "live",
    "open_desk",
    "open_keys",
    "open_staff",
    "open_transfer",
    "open_world",
    "openapi_document",
    "passwords",
    "relay",
    "rules",
    "run_worker",
]
