"""Codes that were not right: how many there are of everybody's, somebody should be told."""

from typing import Final

import trio

from regsvc.domain.refusals import Refusal, Refused
from regsvc.flows.errand import Errand

NOTING: Final = 1.0  # seconds; how long whoever hangs up is waited for, that no guess be missed


async def note_failed(done: object, errand: Errand) -> None:
    """Count an activation for the alarm if its code was wrong: after the commit, and even if its client hung up."""
    if isinstance(done, Refused) and done.why is Refusal.INVALID_ACTIVATION_CODE:
        with trio.move_on_after(NOTING, shield=True):
            await errand.meter.failed_activation()
