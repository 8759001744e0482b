"""bcrypt in lanes: several of one cost at once, interleaved in one thread, with the results of any other bcrypt.

Knows nothing of regsvc. Written by hand because no package does it: each hashes one password at a time, which leaves
most of a core waiting for its own look-ups. Where the compiled part is missing, or does not pass its self-test, the
`bcrypt` package does the work, one after another; `open_engine` says which, and why.
"""

from regsvc.bcrypt_lanes.calibration import Pace, calibrate
from regsvc.bcrypt_lanes.engine import PASSWORD_MAX, Engine, Lanes, Package, open_engine
from regsvc.bcrypt_lanes.salts import Salt, check_many, hash_many, new_salt

__all__ = [
    "PASSWORD_MAX",
    "Engine",
    "Lanes",
    "Pace",
    "Package",
    "Salt",
    "calibrate",
    "check_many",
    "hash_many",
    "new_salt",
    "open_engine",
]
