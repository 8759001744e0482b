"""The table of variables: each field's default, range and meaning, and what must hold between them."""

import ipaddress
import os
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from email.utils import parseaddr
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import quote, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from regsvc.domain.values import Email, Flaw, Secret
from regsvc.settings.words import as_text, variable

SECRET_MIN: Final = 32  # octets: as many as the SHA-256 keys derived from it have
ROUNDS_MIN: Final = 10  # of bcrypt outside of dev; OWASP Password Storage Cheat Sheet

_ORIGIN: Final = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([1-9][0-9]{0,4}))?")  # RFC 6454, 6.2
_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1: all else cannot be shown

EMBEDDED_ROOM: Final = 95  # connections of the embedded PostgreSQL's 100 that are not for its superuser or a verb

Role = Literal["http", "mailer", "sweeper"]
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _secret(value: object) -> object:
    return value if isinstance(value, Secret) else Secret(str(value))


def _seconds(value: object) -> object:
    try:
        return timedelta(seconds=float(value)) if isinstance(value, str) else value
    except OverflowError as error:
        raise ValueError("too long") from error


def _words(value: object) -> object:
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _count(value: object) -> object:
    return cores() if value == "auto" else value


def _web_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("not a web address")
    return value.rstrip("/")


def _database(value: Secret) -> Secret:
    if urlsplit(value.reveal()).scheme not in {"postgres", "postgresql"}:
        raise ValueError("not a PostgreSQL address")
    return value


def _redis(value: Secret) -> Secret:
    parts = urlsplit(value.reveal())
    number = parts.path.strip("/")
    if parts.scheme not in {"redis", "rediss"} or parts.port == 0 or not (number.isdecimal() or not number):
        raise ValueError("not a Redis address")  # reading the port says so itself
    return value


def _origin(value: str) -> str:
    found = _ORIGIN.fullmatch(value.lower())
    if found is None:
        raise ValueError("not an origin")
    scheme, host, port = found.groups()
    named = port is not None and port != {"http": "80", "https": "443"}[scheme]  # browsers leave out the usual one
    return f"{scheme}://{host}:{port}" if named else f"{scheme}://{host}"


def _sender(value: str) -> str:
    if isinstance(Email.parse(parseaddr(value)[1]), Flaw) or not value.isprintable():
        raise ValueError("not a sender")
    return value


def _long_enough(value: Secret) -> Secret:
    if len(value.reveal().encode()) < SECRET_MIN:
        raise ValueError("too short")
    return value


def _showable(value: Secret) -> Secret:
    if not _BEARER.fullmatch(value.reveal()):
        raise ValueError("no bearer token")
    return value


Hidden = Annotated[Secret, BeforeValidator(_secret)]
Seconds = Annotated[timedelta, BeforeValidator(_seconds)]


def _s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


def _field(
    default: object,
    meaning: str,
    *,
    least: int | timedelta | None = None,
    most: int | timedelta | None = None,
    also: str = "",
    takes: str = "",
    shown: str = "",
) -> Any:  # noqa: ANN401 - as pydantic's own Field, so that the annotation decides
    """Describe a variable: `also` is a name taken without the prefix, `takes` and `shown` read better than what is."""
    how: dict[str, Any] = {"default_factory": default} if callable(default) else {"default": default}
    extra: dict[str, Any] = {"also": also, "takes": takes, "shown": shown}
    return Field(description=meaning, ge=least, le=most, json_schema_extra=extra, **how)


def _names_database(known: Mapping[str, object]) -> bool:
    return known["database_url"] is not None or known["database_host"] is not None


def _own_url(known: Mapping[str, Any]) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(known["host"], known["host"])  # noqa: S104 - all: this one too
    return f"http://{_in_url(host)}:{known['port']}"


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


class Settings(BaseModel):
    """The effective settings; a field's variable is its name in capitals after `REGSVC_`."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True)

    database_url: Annotated[Hidden, AfterValidator(_database)] | None = _field(
        None, "Where PostgreSQL is; several hosts and `target_session_attrs` are understood. Without one, an embedded "
        "PostgreSQL is started. `DATABASE_HOST`, `_PORT`, `_NAME`, `_USER`, `_PASSWORD` say the same in parts.",
        also="DATABASE_URL", takes="postgresql://user:password@host:port/name", shown="embedded")  # fmt: skip
    database_host: str | None = _field(None, "PostgreSQL's host, in parts.", also="DATABASE_HOST")
    database_port: int = _field(5432, "PostgreSQL's port, in parts.", least=1, most=65535, also="DATABASE_PORT")
    database_name: str = _field("regsvc", "The database, in parts.", also="DATABASE_NAME")
    database_user: str = _field("regsvc", "Who to be there, in parts.", also="DATABASE_USER")
    database_password: Hidden | None = _field(None, "The password there, in parts.", also="DATABASE_PASSWORD")
    profile: Literal["dev", "production"] = _field(
        lambda known: "production" if _names_database(known) else "dev",
        "`dev`: generated secret, mail to console and mailbox, mailbox page, migrations at start. `production`: "
        "starts only with `SECRET`, `PUBLIC_URL` and a mail channel other than `console`.",
        shown="`dev`; `production` where a database is named")  # fmt: skip
    data_dir: Path = _field(Path(".regsvc"), "Where the embedded database and the generated secret lie.")
    pg_bin: Path | None = _field(None, "The folder of PostgreSQL's programs, for the embedded one.", shown="found")
    database_timeout: Seconds = _field(
        _s(5), "How long a connection or a statement is waited for.", least=_s(0.1), most=_s(600))  # fmt: skip
    database_statement_cache: int = _field(
        100, "Prepared statements kept per connection; 0 behind a pgbouncer that pools transactions.",
        least=0, most=10_000)  # fmt: skip
    host: str = _field("127.0.0.1", "Where to listen: an address, or a name that has one.")
    port: int = _field(8000, "The port to listen on; 0: any free one.", least=0, most=65535)
    workers: Annotated[int, BeforeValidator(_count)] = _field(
        1, "Worker processes; `auto`: one for each core.", least=1, most=256,
        takes="a whole number, 1 to 256, or auto")  # fmt: skip
    database_pool_min: int = _field(2, "Connections each worker keeps.", least=0, most=1000)
    database_pool_max: int = _field(
        lambda known: 10 if _names_database(known) else max(2, min(10, EMBEDDED_ROOM // known["workers"] - 1)),
        "Connections each worker opens at most, beside the one it listens on.", least=1, most=1000,
        shown="`10`; fewer where many workers share the embedded database")  # fmt: skip
    roles: Annotated[frozenset[Role], BeforeValidator(_words)] = _field(
        frozenset(("http", "mailer", "sweeper")), "What this process runs.",
        takes="some of http, mailer, sweeper, with commas between")  # fmt: skip
    public_url: Annotated[str, AfterValidator(_web_address)] = _field(
        _own_url,
        "How clients reach the service: the base of links and problem types.",
        takes="http(s)://host, without a query", shown="`http://HOST:PORT`")  # fmt: skip
    secret: Annotated[Hidden, AfterValidator(_long_enough)] | None = _field(
        None, "Every key is derived from it: those that hash passwords with it are lost without it.",
        takes=f"{SECRET_MIN} octets or more", shown="generated once in `dev`")  # fmt: skip
    secret_previous: Annotated[Hidden, AfterValidator(_long_enough)] | None = _field(
        None, "A second secret, whose codes, tokens, keys and passwords are good too: the new one before, the old one "
        "after `SECRET` is exchanged.",
        takes=f"{SECRET_MIN} octets or more")  # fmt: skip
    code_length: int = _field(4, "Digits of an activation code.", least=4, most=10)
    code_ttl: Seconds = _field(
        _s(60), "How long an activation code lives.", least=_s(10), most=_s(86_400),
        also="ACTIVATION_CODE_EXPIRY_SECONDS")  # fmt: skip
    code_attempts: int = _field(5, "Wrong tries that a code survives, less one.", least=1, most=100)
    code_failures_per_day: int = _field(10, "Wrong tries that an address has in 24 hours.", least=1, most=1000)
    resend_cooldown: Seconds = _field(
        _s(30), "How long after a mail the next may be asked for.", least=_s(0), most=_s(3600))  # fmt: skip
    resends_per_hour: int = _field(5, "Further mails that an address may ask for in an hour.", least=0, most=1000)
    pending_ttl: Seconds = _field(
        _s(86_400), "When a registration that nobody activated vanishes.",
        least=_s(600), most=_s(31_536_000))  # fmt: skip
    verify_code_length: int = _field(
        6, "Digits of a code that proves an address without the password.", least=6, most=10)  # fmt: skip
    verify_code_ttl: Seconds = _field(_s(600), "How long such a code lives.", least=_s(60), most=_s(86_400))
    link_ttl: Seconds = _field(
        _s(600), "How long the link in an activation mail works; it needs the password, and no try.",
        least=_s(60), most=_s(86_400))  # fmt: skip
    reset_ttl: Seconds = _field(
        _s(600), "How long the token for a new password lives.", least=_s(60), most=_s(86_400))  # fmt: skip
    access_ttl: Seconds = _field(_s(1800), "How long an access token lives.", least=_s(10), most=_s(86_400))
    refresh_ttl: Seconds = _field(
        _s(604_800), "How long a refresh token lives, from its making.", least=_s(60), most=_s(31_536_000))  # fmt: skip
    session_max: Seconds = _field(
        _s(2_592_000), "How long a session lives, however often it is refreshed.",
        least=_s(60), most=_s(31_536_000))  # fmt: skip
    refresh_grace: Seconds = _field(
        _s(10), "How long a used refresh token gives the same answer again.", least=_s(0), most=_s(60))  # fmt: skip
    jwt_algorithm: Literal["EdDSA", "HS256"] = _field("EdDSA", "How access tokens are signed.")
    jwt_issuer: str | None = _field(None, "The `iss` of access tokens.", shown="`PUBLIC_URL`")
    jwt_audience: str = _field("regsvc", "The `aud` of access tokens.")
    cookies: bool = _field(
        default=False,
        meaning="Refresh tokens in a cookie that scripts cannot read, instead of in the answer.",
    )
    admin_token: Annotated[Hidden, AfterValidator(_long_enough), AfterValidator(_showable)] | None = _field(
        None, "What a machine shows as its bearer token to administer.",
        takes=f"{SECRET_MIN} or more of A-Z a-z 0-9 - . _ ~ + /")  # fmt: skip
    duplicate_policy: Literal["conflict", "claims", "uniform"] = _field(
        "conflict", "A second registration of an address: `conflict` refuses it, `claims` takes it beside a live one, "
        "`uniform` answers all alike and tells the owner by mail.")  # fmt: skip
    password_hash: Literal["bcrypt", "argon2id"] = _field(
        "bcrypt", "How new passwords are hashed; all are verified, and made anew at a login. `argon2id` needs the "
        "extra `argon2`.")  # fmt: skip
    password_rounds: int = _field(
        12, f"bcrypt's cost, as a power of two; under {ROUNDS_MIN} only in `dev`.", least=4, most=16)  # fmt: skip
    password_min: int = _field(8, "Characters of a new password, at least.", least=1, most=128)
    password_max: int = _field(128, "Characters of a new password, at most.", least=8, most=1024)
    hash_threads: int = _field(
        lambda known: max(1, cores() // known["workers"]), "Passwords that each worker hashes at once.",
        least=1, most=256, shown="cores ÷ `WORKERS`, at least 1")  # fmt: skip
    hash_queue: int = _field(64, "Hashes that may wait; one more is refused with a 503.", least=0, most=100_000)
    hash_deadline: Seconds = _field(
        _s(5), "How long a hash may wait before it is refused with a 503.", least=_s(0.1), most=_s(60))  # fmt: skip
    mail_channel: Literal["smtp", "console", "mailbox", "console+mailbox"] = _field(
        lambda known: "console+mailbox" if known["profile"] == "dev" else "console",
        "The way mail goes.", shown="`console+mailbox` in `dev`")  # fmt: skip
    smtp_host: str | None = _field(None, "The relay.")
    smtp_port: int = _field(25, "The relay's port.", least=1, most=65535)
    smtp_username: str | None = _field(None, "Who to be at the relay.")
    smtp_password: Hidden | None = _field(None, "The password at the relay.")
    smtp_tls: Literal["none", "starttls", "implicit"] = _field("starttls", "How the way to the relay is encrypted.")
    mail_from: Annotated[str, AfterValidator(_sender)] = _field(
        "no-reply@regsvc.test", "The sender; `smtp` needs one of yours.", also="SMTP_FROM_EMAIL",
        takes="an address, or Name <address>")  # fmt: skip
    mail_concurrency: int = _field(8, "Mails that each worker hands over at once.", least=1, most=256)
    mail_timeout: Seconds = _field(
        _s(10), "How long the relay may be silent.", least=_s(0.1), most=_s(300))  # fmt: skip
    mail_attempts: int = _field(8, "Tries before a mail is given up; an outage costs none.", least=1, most=100)
    enable_rate_limiting: bool = _field(
        default=True, meaning="`false` lifts every limit below, and those on mails to an address; wrong codes count all"
        " the same.", also="ENABLE_RATE_LIMITING")  # fmt: skip
    rate_limit_store: Literal["memory", "postgres", "redis"] = _field(
        lambda known: "postgres" if _names_database(known) or known["workers"] > 1 else "memory",
        "Where limits are counted. A store that is away lets everything pass, and the log says so.",
        shown="`memory` with one worker and the embedded database; else `postgres`")  # fmt: skip
    redis_url: Annotated[Hidden, AfterValidator(_redis)] | None = _field(
        None, "Where Redis is (6 or newer, no cluster), for `RATE_LIMIT_STORE=redis`; needs the extra `redis`.",
        also="REDIS_URL", takes="redis://user:password@host:port/number, or rediss://")  # fmt: skip
    rate_limit_registration_per_hour: int = _field(
        5, "Registrations of a client.", least=1, most=1_000_000,
        also="RATE_LIMIT_REGISTRATION_PER_HOUR")  # fmt: skip
    rate_limit_activation_per_minute: int = _field(
        3, "Codes shown for a registration, with its password.", least=1, most=1_000_000,
        also="RATE_LIMIT_ACTIVATION_PER_MINUTE")  # fmt: skip
    rate_limit_login_per_minute: int = _field(
        10, "Log-ins at an account; a client may try three times as many, over all accounts.", least=1, most=1_000_000,
        also="RATE_LIMIT_LOGIN_PER_MINUTE")  # fmt: skip
    rate_limit_global_per_minute: int = _field(
        1000, "Requests of a client to one endpoint.", least=1, most=1_000_000,
        also="RATE_LIMIT_GLOBAL_PER_MINUTE")  # fmt: skip
    connections_max: int = _field(
        4096, "Connections that each worker has open; one more meets a 503.", least=1, most=100_000)  # fmt: skip
    requests_max: int = _field(
        512, "Requests that each worker has in hand; one more meets a 503.", least=1, most=100_000)  # fmt: skip
    request_deadline: Seconds = _field(
        _s(20), "How long a request may take, beside what it asked to wait.", least=_s(1), most=_s(600))  # fmt: skip
    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(_words)] = _field(
        (), "Whose `X-Forwarded-For` is believed.",
        takes="networks such as 10.0.0.0/8, with commas between")  # fmt: skip
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_words)] = _field(
        (), "Pages of which origins may call from a browser.",
        takes="origins such as https://app.example.com, with commas between")  # fmt: skip
    log_level: Literal["debug", "info", "warning", "error"] = _field("info", "The least that is logged.")
    log_format: Literal["json", "pretty"] = _field(
        lambda _: "pretty" if sys.stdout.isatty() else "json", "A JSON object a line, or lines for people.",
        shown="`json`; `pretty` on a terminal")  # fmt: skip
    log_pii: bool = _field(default=False, meaning="Log addresses as they are instead of a keyed hash.")
    drain_seconds: Seconds = _field(
        _s(30), "How long work in flight has to finish once told to stop.", least=_s(0), most=_s(3600))  # fmt: skip

    @property
    def dsn(self) -> Secret | None:
        """Where PostgreSQL is, or None: the embedded one."""
        if self.database_url is not None or self.database_host is None:
            return self.database_url
        password = f":{quote(self.database_password.reveal(), safe='')}" if self.database_password else ""
        host = _in_url(self.database_host)
        if host.startswith("/"):  # a socket's folder
            place = f"/{quote(self.database_name, safe='')}?host={quote(host)}&port={self.database_port}"
        else:
            place = f"{host}:{self.database_port}/{quote(self.database_name, safe='')}"
        return Secret(f"postgresql://{quote(self.database_user, safe='')}{password}@{place}")

    @property
    def issuer(self) -> str:
        """The `iss` of access tokens."""
        return self.jwt_issuer or self.public_url

    def telling(self, **changed: object) -> Self:
        """Return settings with some values changed by the program itself; they are not checked again."""
        return self.model_copy(update=changed)

    def listening_on(self, port: int) -> Self:
        """Return settings with the port the kernel chose, where it was asked to; links lead there then too."""
        if self.port or not port:
            return self
        moved = self.telling(port=port)
        return moved if "public_url" in self.model_fields_set else moved.telling(public_url=_own_url(vars(moved)))

    def variables(self) -> dict[str, str]:
        """Return every value as its variable, **secrets in clear**: what workers are told, and can load."""
        told = {name: getattr(self, name) for name in type(self).model_fields}
        return {variable(name): as_text(value) for name, value in told.items() if as_text(value)}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if wrong := [why for holds, why in _disagreements(self) if not holds]:
            raise ValueError("; ".join(wrong))
        return self


def _disagreements(told: Settings) -> Iterable[tuple[bool, str]]:
    """What must hold between values, and what is said where it does not."""
    yield told.database_pool_min <= told.database_pool_max, "REGSVC_DATABASE_POOL_MIN is above DATABASE_POOL_MAX"
    asked = told.workers * (told.database_pool_max + 1)
    room = told.dsn is not None or asked <= EMBEDDED_ROOM
    yield (
        room,
        (
            f"REGSVC_WORKERS and REGSVC_DATABASE_POOL_MAX ask for {asked} connections, the embedded database has "
            f"{EMBEDDED_ROOM}: take fewer, or name a database in REGSVC_DATABASE_URL"
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
