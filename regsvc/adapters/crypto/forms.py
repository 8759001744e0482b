"""Stored password hashes as they look: which could ever be right here, and what the others are.

Rule 1. What is called readable is what `passwords` reads: the same patterns and bounds, and base64 that it can decode.
Rule 2. No word of a reason is from the hash: it may be a password in plain text.
"""

import base64
import re
from dataclasses import dataclass
from typing import Final

from regsvc.adapters.crypto.keys import Keys
from regsvc.adapters.crypto.passwords import _ARGON2, _BCRYPT, ROUNDS_MAX, ROUNDS_MIN, _bearable, argon2
from regsvc.domain.values import Flaw

TAKEN: Final = "bcrypt ($2a$, $2b$, $2y$), $argon2id$, those of another regsvc, or null for no password"
_OTHERS: Final = tuple(
    (re.compile(pattern, re.IGNORECASE | re.ASCII | re.DOTALL), name)
    for pattern, name in (
        (r"\$argon2(id|i|d)\$.*", "argon2 of another kind or version"),
        (r"\$2.?\$.*", "bcrypt that is damaged or of another kind"),
        (r"(\$scrypt\$|\$7\$|scrypt[:$]).*", "scrypt"),
        (r"\$?pbkdf2[_:$-].*", "PBKDF2"),
        (r"\$[156]\$.*", "crypt with MD5 or SHA"),
        (r"\$(y|gy)\$.*", "yescrypt"),
        (r"\$apr1\$.*", "Apache's MD5"),
        (r"\$[PH]\$.*", "phpass"),
        (r"\{\w{1,20}\}.*", "an LDAP scheme"),
        (r"[0-9a-f]{32}", "MD5"),
        (r"[0-9a-f]{40}", "SHA-1"),
        (r"[0-9a-f]{64}", "SHA-256"),
        (r"[0-9a-f]{128}", "SHA-512"),
    )
)


@dataclass(frozen=True, slots=True)
class Forms:
    """Implements ports.HashForms."""

    keys: Keys
    previous: Keys | None = None

    def flaw(self, stored: str) -> Flaw | None:
        """Say why no password could ever be checked against it, in words that do not repeat it; None: it can be."""
        if found := _BCRYPT.fullmatch(stored):
            return _bcrypt(found)
        if found := _ARGON2.fullmatch(stored):
            return _argon2(found)
        name = next((name for pattern, name in _OTHERS if pattern.fullmatch(stored)), None)
        looks = f"looks like {name}, which" if name else "has a form that"
        return Flaw("unknown_hash", f"This {looks} is not taken; these are: {TAKEN}.")

    def foreign(self, stored: str) -> bool:
        """Tell whether it was made under a secret that is not known here: well formed, and never right."""
        found = _BCRYPT.fullmatch(stored) or _ARGON2.fullmatch(stored)
        if found is None or found["pepper"] is None:
            return False
        return all(known is None or known.pepper_id != found["pepper"] for known in (self.keys, self.previous))


def _bcrypt(found: re.Match[str]) -> Flaw | None:
    if not ROUNDS_MIN <= int(found["rounds"]) <= ROUNDS_MAX:
        return Flaw("hash_cost", f"bcrypt of {ROUNDS_MIN} to {ROUNDS_MAX} rounds is taken.")
    # 22 digits of 6 bits are a salt of 128, and 31 a hash of 184: with a bit beyond, bcrypt decodes or makes no such.
    if found["made"][-32] not in ".Oeu" or found["made"][-1] not in ".CGKOSWaeimquy26":
        return Flaw("damaged_hash", "This looks like bcrypt, and is damaged.")
    return None


def _argon2(found: re.Match[str]) -> Flaw | None:
    memory, passes, lanes = int(found["m"]), int(found["t"]), int(found["p"])
    if not _bearable(memory, passes, lanes) or memory < 8 * lanes:  # the second by RFC 9106 3.1
        return Flaw("hash_cost", "This argon2id asks for too much memory or time, or for less than there must be.")
    if not all(map(_decodes, found["made"].split("$")[-2:])):
        return Flaw("damaged_hash", "This looks like argon2id, and is damaged.")
    if argon2 is None:
        return Flaw("no_argon2", "Hashes of argon2id need the extra: pip install 'regsvc[argon2]'.")
    return None


def _decodes(text: str) -> bool:
    """Tell whether it is base64 without padding, with no bit beyond its octets."""
    try:
        octets = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        return False
    return base64.b64encode(octets).rstrip(b"=").decode("ascii") == text
