"""What administrators do."""

from typing import Final

from regsvc.http.routes import Route

STAFF: Final[tuple[Route, ...]] = ()
