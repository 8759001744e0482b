"""Everything cryptographic: keys, digests, password hashes, access tokens and the keys that sign them."""

from regsvc.adapters.crypto.digests import Crypto
from regsvc.adapters.crypto.forms import Forms
from regsvc.adapters.crypto.keyring import Keyring, Use
from regsvc.adapters.crypto.keys import Keys
from regsvc.adapters.crypto.passwords import Argon2id, Bcrypt, Hashes, Scheme, choose, common_passwords
from regsvc.adapters.crypto.receipts import Seals
from regsvc.adapters.crypto.seal import Algorithm
from regsvc.adapters.crypto.tokens import Tokens

__all__ = [
    "Algorithm",
    "Argon2id",
    "Bcrypt",
    "Crypto",
    "Forms",
    "Hashes",
    "Keyring",
    "Keys",
    "Scheme",
    "Seals",
    "Tokens",
    "Use",
    "choose",
    "common_passwords",
]
