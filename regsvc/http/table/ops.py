"""What operators ask."""

from typing import Final

from regsvc.http import kinds, models
from regsvc.http.metrics import MetricsReport
from regsvc.http.routes import OPENMETRICS, Auth, Route, Success, Tag, under_v1
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

_LATENCY: Final = {"count": 3, "p50": 251.0, "p95": 260.1, "p99": 260.1, "min": 240.2, "max": 262.0}
METRICS: Final = (
    Route(
        name="metrics",
        method="GET",
        path="/metrics",
        tag=Tag.OPERATIONS,
        summary="The numbers, for Prometheus",
        description="OpenMetrics 1.0, or Prometheus' older text where that is asked for (`Accept: text/plain`); all "
        "workers of the machine added up. Where `REGSVC_METRICS_TOKEN` is set, it is shown as a bearer token.",
        auth=Auth.METRICS,
        success=Success("All that was counted since the service started.", media_type=OPENMETRICS),
        problems=(kinds.INVALID_ACCESS_TOKEN,),
    ),
    Route(
        name="metrics_report",
        method="GET",
        path="/v1/metrics",
        aliases=under_v1("/metrics"),
        tag=Tag.OPERATIONS,
        summary="The numbers as JSON",
        description="With percentiles for each route. Where `REGSVC_METRICS_TOKEN` is set, it is shown as a bearer "
        "token, or what lets an administrator in.",
        auth=Auth.METRICS,
        success=Success(
            "All that was counted since the service started.",
            MetricsReport,
            {
                "timestamp": NOON,
                "version": "0.1.0",
                "instance": "accounts-1",
                "uptime_s": 12.3,
                "workers": {"asked": 3, "alive": 3, "restarts": 0},
                "request_counts": {"POST /v1/users/register": 3},
                "status_counts": {"201": 3},
                "error_count": 0,
                "business_metrics": {
                    "registrations": 3,
                    "activations": 0,
                    "logins": 0,
                    "refreshes": 0,
                    "codes_minted": 3,
                    "codes_expired": 0,
                    "mails_sent": 3,
                    "mails_deferred": 0,
                    "mails_dead": 0,
                    "rate_limited": 0,
                },
                "refusals": {},
                "events": {"registration_created": 3},
                "latencies": {"POST /v1/users/register": _LATENCY},
                "timings": {"hash_duration": _LATENCY},
                "gauges": {
                    "hash_queue_waiting": 0,
                    "hash_queue_running": 0,
                    "hash_lanes": 4,
                    "outbox_ready": 0,
                    "outbox_leased": 0,
                    "outbox_dead": 0,
                    "outbox_oldest_seconds": 0.0,
                    "pool_idle": 2,
                    "pool_in_use": 0,
                    "pool_waiting": 0,
                    "connections": 3,
                    "requests_in_hand": 1,
                    "loop_lag_seconds": 0.0004,
                    "sweeper_lag_seconds": 0.0,
                    "database_up": 1,
                    "resident_memory_bytes": 61000000,
                    "log_lines_dropped": 0,
                },
            },
        ),
        problems=(kinds.INVALID_ACCESS_TOKEN, kinds.FORBIDDEN, kinds.SERVICE_UNAVAILABLE),
    ),
)
