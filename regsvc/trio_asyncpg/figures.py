"""What a pool may do, and what it is doing and did."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Limits:
    """The knobs of a pool, in seconds where they are times."""

    min_size: int
    max_size: int
    acquire_timeout: float
    max_lifetime: float
    max_idle: float
    health_check: float
    reset: Literal["when_needed", "always"]

    def __post_init__(self) -> None:
        if not 0 <= self.min_size <= self.max_size or self.max_size < 1:
            raise ValueError(f"0 <= min_size <= max_size and 1 <= max_size, not {self.min_size} and {self.max_size}")
        if min(self.acquire_timeout, self.max_lifetime, self.max_idle, self.health_check) <= 0:
            raise ValueError("the times of a pool are above zero")


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """What a pool is and was doing; the counts below `waiting` only grow."""

    size: int  # open connections: idle + in_use + recovering
    idle: int
    in_use: int
    recovering: int  # given back unclean
    opening: int
    waiting: int  # tasks
    opened: int
    refused: int  # attempts to open that failed
    lost: int  # ended by the server, or the way to it
    dropped: int  # ended by us, because they did not recover or answer
    expired: int  # ended by us, because of their age or because they lay idle
    recovered: int
    timed_out: int  # waits that met their deadline


@dataclass(slots=True)
class Counts:
    """The counting half of `PoolStatistics`, as it grows."""

    opened: int = 0
    refused: int = 0
    lost: int = 0
    dropped: int = 0
    expired: int = 0
    recovered: int = 0
    timed_out: int = 0
