"""What stands for everything outside that is away."""

from datetime import timedelta


class Unavailable(Exception):  # noqa: N818 - it is a state of the world, not a mistake
    """Something outside is away or full: `what` names it (database, hasher, transaction), `retry_after` is worth it."""

    def __init__(self, what: str, why: str = "", *, retry_after: timedelta = timedelta(seconds=1)) -> None:
        super().__init__(f"{what}: {why}" if why else what)
        self.what = what
        self.why = why
        self.retry_after = retry_after
