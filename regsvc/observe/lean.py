"""structlog, loaded as it is where nobody has rich: with it each worker holds 4 MB more, and starts 0.2 s later.

structlog takes rich, and pygments with it, for tracebacks on a terminal, which our lines have as text. The command line
has a use for rich, and loads it by itself. Imported first of this package, so that nobody gets the other one.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def without(name: str) -> Iterator[None]:
    """Have imports of a module fail while the block runs."""
    held = {name: sys.modules[name]} if name in sys.modules else {}
    sys.modules[name] = None  # type: ignore[assignment]  # what makes them fail; see the reference of the import system
    try:
        yield
    finally:
        del sys.modules[name]
        sys.modules.update(held)


with without("rich"):
    import_module("structlog")
