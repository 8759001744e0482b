"""A layout with few routes, what a request's line says, and how metrics are read, for the tests of counting."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.openmetrics import parser

from regsvc.observe import Labels, RouteLabel, layout_of
from regsvc.observe.figures import Figures, of_cells
from regsvc.observe.metrics import Meter

LABELS: Final = Labels(
    (
        RouteLabel("POST /v1/users/register", "account", (("POST", "/v1/users/register"), ("POST", "/users/register"))),
        RouteLabel("GET /livez", "operations", (("GET", "/livez"), ("HEAD", "/livez"), ("OPTIONS", "/livez"))),
    ),
    ("invalid_code", "rate_limited"),
)
LAYOUT: Final = layout_of(LABELS)
openmetrics: Final[Callable[[str], Iterable[Metric]]] = parser.text_string_to_metric_families  # which has no types
REGISTER, LIVEZ = (route.name for route in LABELS.routes)


def said(method: str = "GET", route: str = "/livez", status: int = 200, **more: Any) -> dict[str, object]:
    """Return the fields of an `http_request`."""
    given = {"method": method, "route": route, "status": status, "duration_ms": 1.5, "refusal": None}
    return given | more


def read(*meters: Meter) -> Figures:
    """Add up what they counted."""
    return of_cells(meters[0].layout, [list(meter.cells[: meter.layout.size]) for meter in meters])


def series(found: Iterable[Metric]) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and its labels."""
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in found
        for sample in family.samples
    }
