"""Some histories in one process. A module of its own: what a process is started by, those it spawns do not import."""

from tests.simulation.town import History, simulate


def run_batch(seeds: range) -> tuple[list[History], int]:
    """Run some seeds; return the histories that break something, and how many there were."""
    return [history for history in map(simulate, seeds) if history.broken], len(seeds)
