"""What operators ask."""

from typing import Final

from regsvc.http import kinds, models
from regsvc.http.routes import Route, Success, Tag, under_v1
from regsvc.http.table.parts import NOON

OPERATIONS: Final = (
    Route(
        name="livez",
        method="GET",
        path="/livez",
        tag=Tag.OPERATIONS,
        summary="Does the process turn",
        description="Asks nobody; what it does not answer is to be restarted.",
        success=Success("It does.", models.Alive, {"status": "ok"}),
    ),
    Route(
        name="readyz",
        method="GET",
        path="/readyz",
        tag=Tag.OPERATIONS,
        summary="Is the process ready for requests",
        description="Database reachable (asked once a second at most), migrations applied, not draining.",
        success=Success("It is.", models.Ready, {"status": "ready"}),
        problems=(kinds.SERVICE_UNAVAILABLE,),
    ),
    Route(
        name="health",
        method="GET",
        path="/v1/health",
        aliases=under_v1("/health", bare="/health"),
        tag=Tag.OPERATIONS,
        summary="See how the parts do",
        description="Answers 200 whenever the process turns; `status` and `checks` tell the rest.",
        success=Success(
            "How they do.",
            models.Health,
            {
                "status": "ok",
                "version": "0.1.0",
                "timestamp": NOON,
                "checks": {
                    "database": {"status": "ok", "detail": None},
                    "mailer": {"status": "ok", "detail": None},
                    "sweeper": {"status": "ok", "detail": None},
                },
            },
        ),
    ),
    Route(
        name="health_db",
        method="GET",
        path="/v1/health/db",
        aliases=under_v1("/health/db", bare="/health/db"),
        tag=Tag.OPERATIONS,
        summary="Ask the database something",
        success=Success("It answered.", models.DatabaseHealth, {"status": "ok", "latency_ms": 0.412}),
        problems=(kinds.SERVICE_UNAVAILABLE,),
    ),
)
