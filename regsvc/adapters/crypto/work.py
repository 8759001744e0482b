"""What there is to do with a password, planned: quick to plan, slow to do; what is alike can be done at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from regsvc.bcrypt_lanes import Engine, Salt, hash_many


@dataclass(frozen=True, slots=True)
class Laned:
    """A bcrypt: of these octets (72 at most) with that salt; `end` makes the result of the hash."""

    octets: bytes = field(repr=False)
    salt: Salt = field(repr=False)
    end: Callable[[bytes], object] = field(repr=False)

    @property
    def together(self) -> int | None:
        """Works that are equal in this can be done at once: bcrypts of one cost."""
        return self.salt.cost


@dataclass(frozen=True, slots=True)
class Alone:
    """Anything else."""

    run: Callable[[], object] = field(repr=False)
    together: int | None = None


Work = Laned | Alone


def do(engine: Engine, works: Sequence[Work]) -> list[object]:
    """Do works that belong together on this thread, or a single one; return a result for each, in their order."""
    laned = [work for work in works if isinstance(work, Laned)]
    hashes = iter(hash_many(engine, [work.octets for work in laned], [work.salt for work in laned]))
    return [work.end(next(hashes)) if isinstance(work, Laned) else work.run() for work in works]
