"""The signing keys in memory: the newest that is due signs, all that are not retired verify.

Rule 1. The database's clock decides what is due and what is retired: read at each load, and carried on by Trio's.
Rule 2. A ring that could not be loaded anew stays as it is: an outage ends no session.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

import trio

from regsvc import observe
from regsvc.adapters.crypto.keys import Keys
from regsvc.adapters.crypto.seal import Algorithm, Key, Seal, retired
from regsvc.ports import KeyShelf, SigningKey, Unavailable

ASK_EVERY: Final = 1.0  # seconds; strangers can name keys that nobody has, and must not make us ask for each
LATE: Final = timedelta(seconds=60)  # how long a process may go on signing with a key whose turn is over
KEPT: Final = timedelta(days=1)  # how long a retired key is still listed


class Use(Enum):
    """What a key is for now; the value is the word an operator reads."""

    NEXT = "next"
    SIGNING = "signing"
    VERIFYING = "verifying"
    RETIRED = "retired"
    UNREADABLE = "unreadable"  # sealed under a secret that is neither of ours


@dataclass(frozen=True, slots=True)
class _Ring:
    """What the latest load found, newest first."""

    keys: tuple[Key, ...]
    known: Mapping[str, Key]
    read_at: datetime
    heard_at: float  # the same moment on Trio's clock


class Keyring:
    """The keys of access tokens. Make one, `load` it, and have it loaded anew now and then.

    `lifetime` is that of an access token: as long does a key verify after its turn to sign is over.
    """

    def __init__(
        self, shelf: KeyShelf, keys: Keys, previous: Keys | None = None, *, algorithm: Algorithm, lifetime: timedelta
    ) -> None:
        self._shelf = shelf
        self._seal = Seal(keys, previous)
        self._algorithm = algorithm
        self._overlap = lifetime + LATE
        self._ring: _Ring | None = None
        self._loading = trio.Lock()
        self._asked_at = float("-inf")  # when a key that nobody knew was asked for
        self._away: Unavailable | None = None  # what came of it
        self._told: object = None  # what the log was told last
        self._complained: set[str] = set()  # of which unreadable keys the log was told

    @property
    def loaded(self) -> bool:
        """Whether there was a load that came to its end."""
        return self._ring is not None

    async def load(self) -> None:
        """Read all keys, and make the first of our algorithm where there is none. Raises Unavailable."""
        async with self._loading:
            await self._load()

    async def _load(self) -> None:
        rows, now = await self._shelf.list()
        if not any(row.algorithm == self._algorithm and not retired(row, now) for row in rows):
            await self._make_the_first()
            rows, now = await self._shelf.list()
        heard_at = trio.current_time()
        keys = [key for row in rows if (key := await self._open(row, now)) is not None]
        if any(row.retired_at is not None and row.retired_at + KEPT <= now for row in rows):
            await self._shelf.prune()
        self._ring, self._away = _Ring(tuple(keys), {key.kid: key for key in keys}, now, heard_at), None
        self._tell()

    async def _make_the_first(self) -> None:
        kid, public, sealed = self._new()
        if await self._shelf.first(kid, self._algorithm, public, sealed):
            observe.emit("signing_key_made", kid=kid, algorithm=self._algorithm)

    async def rotate(self, lead: timedelta) -> tuple[str, datetime]:
        """Store a new key that signs from now + `lead` on; return its kid and when that is. Raises Unavailable."""
        kid, public, sealed = self._new()
        signs_from = await self._shelf.rotate(kid, self._algorithm, public, sealed, lead=lead, overlap=self._overlap)
        return kid, signs_from

    async def uses(self) -> Sequence[tuple[SigningKey, Use]]:
        """Return all keys, the newest first, and what each is for now; changes nothing. Raises Unavailable."""
        rows, now = await self._shelf.list()
        opened = [key for row in rows if (key := self._seal.opened(row)) is not None]
        signing = _signing(opened, self._algorithm, now)
        return [(row, _use(row, opened, signing, now)) for row in rows]

    # ------------------------------------------------------------------------------------------ what is known now

    def now(self) -> datetime:
        """Return the database's time, as far as it is known. Raises Unavailable before the first load."""
        ring = self._known()
        return ring.read_at + timedelta(seconds=trio.current_time() - ring.heard_at)

    def signing(self) -> Key:
        """Return the key that signs. Raises Unavailable where none can be read."""
        key = _signing(self._known().keys, self._algorithm, self.now())
        if key is None:
            raise Unavailable(
                "keys",
                f"no {self._algorithm} key can be read with REGSVC_SECRET: name the former one in "
                "REGSVC_SECRET_PREVIOUS, or make a new key with `regsvc keys rotate`",
            )
        return key

    def verifying(self, kid: str) -> Key | None:
        """Return the key of that name if what it signed is worth anything."""
        key = self._known().known.get(kid)
        return None if key is None or retired(key, self.now()) else key

    async def find(self, kid: str) -> Key | None:
        """Return the key of that name; one that is not known is asked for, at most once a second.

        Raises Unavailable when that would be needed and cannot be.
        """
        if not self._has(kid):
            async with self._loading:  # who waited for another's load has its keys now
                if not self._has(kid):
                    await self._ask()
        return self.verifying(kid)

    def public(self) -> Mapping[str, object]:
        """Return what verifies as a JWK set (RFC 7517), the coming key too, so that everybody knows it in time."""
        now = self.now()
        keys = [
            {**key.material.public, "kid": key.kid, "use": "sig", "alg": key.material.algorithm}
            for key in self._known().keys
            if key.material.public and not retired(key, now)
        ]
        return {"keys": keys}

    def due_in(self) -> timedelta | None:
        """Return how long until a key begins to sign or retires; None when all stays as it is."""
        if self._ring is None:
            return None
        now = self.now()
        moments = [moment for key in self._ring.keys for moment in (key.not_before, key.retired_at)]
        return min((moment - now for moment in moments if moment is not None and moment > now), default=None)

    # --------------------------------------------------------------------------------------------------- inside

    def _has(self, kid: str) -> bool:
        return self._ring is not None and kid in self._ring.known

    async def _ask(self) -> None:
        """Load for somebody who names a key that we lack, unless that was done a moment ago."""
        if trio.current_time() >= self._asked_at + ASK_EVERY:
            self._asked_at = trio.current_time()
            try:
                await self._load()
            except Unavailable as away:
                self._away = away
        if self._away is not None:
            raise Unavailable(self._away.what, self._away.why, retry_after=self._away.retry_after)

    def _known(self) -> _Ring:
        if self._ring is None:
            raise Unavailable("keys", "they are not loaded yet")
        return self._ring

    def _new(self) -> tuple[str, Mapping[str, str], bytes]:
        return self._seal.new(self._algorithm)

    async def _open(self, row: SigningKey, now: datetime) -> Key | None:
        """Open a key; one that was sealed under the previous secret is sealed anew."""
        key = self._seal.opened(row)
        if key is None:
            if not retired(row, now) and row.kid not in self._complained:
                self._complained.add(row.kid)
                observe.emit("signing_key_unreadable", kid=row.kid, reason="sealed under another secret, or damaged")
            return None
        if (sealed := self._seal.renewed(row)) is not None:
            await self._shelf.reseal(row.kid, sealed)
        before = self._ring.known.get(row.kid) if self._ring is not None else None
        if before is not None and before.material == key.material:  # the very same: what it verified stays verified
            return replace(key, material=before.material)
        return key

    def _tell(self) -> None:
        ring = self._known()
        signing = _signing(ring.keys, self._algorithm, ring.read_at)
        told = frozenset(ring.known), signing and signing.kid
        if told != self._told:
            self._told = told
            observe.emit("signing_keys_loaded", keys=len(ring.known), signing=signing.kid if signing else None)


def _signing(keys: Sequence[Key], algorithm: str, now: datetime) -> Key | None:
    """Choose the newest that is due; before any is, the first that will be: everybody verifies with it already."""
    ours = [key for key in keys if key.material.algorithm == algorithm and not retired(key, now)]
    due = [key for key in ours if key.not_before <= now]
    if due:
        return max(due, key=lambda key: (key.not_before, key.kid))
    return min(ours, key=lambda key: (key.not_before, key.kid), default=None)


def _use(row: SigningKey, opened: Sequence[Key], signing: Key | None, now: datetime) -> Use:
    if retired(row, now):
        return Use.RETIRED
    if row.kid not in {key.kid for key in opened}:
        return Use.UNREADABLE
    if signing is not None and row.kid == signing.kid:
        return Use.SIGNING
    return Use.NEXT if row.not_before > now else Use.VERIFYING
