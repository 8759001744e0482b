"""What must hold between settings, whatever each of them is."""

from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from regsvc.settings.values import EMBEDDED_ROOM, SECRET_MIN

if TYPE_CHECKING:
    from regsvc.settings.fields import Settings

ROUNDS_MIN: Final = 10  # of bcrypt outside of dev; OWASP Password Storage Cheat Sheet


def disagreements(told: "Settings") -> Iterable[tuple[bool, str]]:
    """What must hold between values, and what is said where it does not."""
    yield told.database_pool_min <= told.database_pool_max, "REGSVC_DATABASE_POOL_MIN is above DATABASE_POOL_MAX"
    asked = (told.workers + 1) * (told.database_pool_max + 1)  # while workers are replaced there is one more
    room = told.dsn is not None or asked <= EMBEDDED_ROOM
    yield (
        room,
        (
            f"REGSVC_WORKERS and REGSVC_DATABASE_POOL_MAX ask for {asked} connections, with the one worker more that "
            f"there is while workers are replaced; the embedded database has {EMBEDDED_ROOM}: take fewer, or name a "
            f"database in REGSVC_DATABASE_URL"
        ),
    )
    yield told.refresh_ttl <= told.session_max, "REGSVC_REFRESH_TTL is above SESSION_MAX"
    yield told.access_ttl <= told.session_max, "REGSVC_ACCESS_TTL is above SESSION_MAX"
    yield told.password_min <= told.password_max, "REGSVC_PASSWORD_MIN is above PASSWORD_MAX"
    argon2 = told.password_hash != "argon2id" or find_spec("argon2") is not None  # noqa: S105 - the name of a scheme
    yield argon2, "REGSVC_PASSWORD_HASH=argon2id needs a package that is not here: pip install 'regsvc[argon2]'"
    redis = told.rate_limit_store != "redis"
    yield redis or told.redis_url is not None, "REGSVC_RATE_LIMIT_STORE=redis needs REGSVC_REDIS_URL"
    coredis = redis or find_spec("coredis") is not None
    yield coredis, "REGSVC_RATE_LIMIT_STORE=redis needs a package that is not here: pip install 'regsvc[redis]'"
    otlp = told.otlp_endpoint is None or (find_spec("opentelemetry") and find_spec("opentelemetry.sdk")) is not None
    yield otlp, "REGSVC_OTLP_ENDPOINT needs a package that is not here: pip install 'regsvc[otlp]'"
    shared = told.rate_limit_store != "memory" or told.workers == 1
    yield shared, "REGSVC_RATE_LIMIT_STORE=memory counts in one process, and REGSVC_WORKERS says more: take postgres"
    yield bool(told.roles), "REGSVC_ROLES names no role; it takes some of http, mailer, sweeper"
    login = told.smtp_username is None or told.smtp_password is not None
    yield login, "REGSVC_SMTP_USERNAME needs REGSVC_SMTP_PASSWORD"
    if told.mail_channel == "smtp":
        yield told.smtp_host is not None, "REGSVC_MAIL_CHANNEL=smtp needs REGSVC_SMTP_HOST"
        yield "mail_from" in told.model_fields_set, "REGSVC_MAIL_CHANNEL=smtp needs REGSVC_MAIL_FROM"
    if told.profile == "production":
        missing = [
            name
            for name, there in (
                (f"REGSVC_SECRET ({SECRET_MIN} octets or more)", told.secret is not None),
                ("REGSVC_PUBLIC_URL", "public_url" in told.model_fields_set),
                ("REGSVC_MAIL_CHANNEL other than console", told.mail_channel != "console"),
            )
            if not there
        ]
        yield not missing, f"the production profile needs {', '.join(missing)}"
        rounds = (
            f"REGSVC_PASSWORD_ROUNDS: got {told.password_rounds}, takes {ROUNDS_MIN} to 16 outside of the dev profile"
        )
        yield told.password_rounds >= ROUNDS_MIN, rounds
