"""Trio instruments for tests."""

import trio


class HangUp(trio.abc.Instrument):
    """Cancels `scope` at its n-th scheduling point: whoever waits for it leaves exactly there."""

    def __init__(self, scope: trio.CancelScope, n: int) -> None:
        self.scope, self.left = scope, n

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if self.left == 0:
            self.scope.cancel(reason="the n-th scheduling point")
