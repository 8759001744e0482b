"""The table of variables: each field's default, range and meaning."""

import sys
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

from regsvc.domain.values import Secret
from regsvc.settings.agreement import ROUNDS_MIN, disagreements
from regsvc.settings.values import (
    EMBEDDED_ROOM,
    SECRET_MIN,
    Hidden,
    Network,
    Role,
    Seconds,
    cores,
    count_of,
    database_address,
    field,
    in_url,
    lanes_of,
    long_enough,
    names_database,
    origin,
    own_url,
    redis_address,
    s,
    sender,
    showable,
    web_address,
    words_of,
)
from regsvc.settings.words import as_text, variable


class Settings(BaseModel):
    """The effective settings; a field's variable is its name in capitals after `REGSVC_`."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True, extra="forbid", hide_input_in_errors=True)

    database_url: Annotated[Hidden, AfterValidator(database_address)] | None = field(
        None, "Where PostgreSQL is; several hosts and `target_session_attrs` are understood. Without one, an embedded "
        "PostgreSQL is started. `DATABASE_HOST`, `_PORT`, `_NAME`, `_USER`, `_PASSWORD` say the same in parts.",
        also="DATABASE_URL", takes="postgresql://user:password@host:port/name", shown="embedded")  # fmt: skip
    database_host: str | None = field(None, "PostgreSQL's host, in parts.", also="DATABASE_HOST")
    database_port: int = field(5432, "PostgreSQL's port, in parts.", least=1, most=65535, also="DATABASE_PORT")
    database_name: str = field("regsvc", "The database, in parts.", also="DATABASE_NAME")
    database_user: str = field("regsvc", "Who to be there, in parts.", also="DATABASE_USER")
    database_password: Hidden | None = field(None, "The password there, in parts.", also="DATABASE_PASSWORD")
    profile: Literal["dev", "production"] = field(
        lambda known: "production" if names_database(known) else "dev",
        "`dev`: generated secret, mail to console and mailbox, mailbox page, migrations at start. `production`: "
        "starts only with `SECRET`, `PUBLIC_URL` and a mail channel other than `console`.",
        shown="`dev`; `production` where a database is named")  # fmt: skip
    data_dir: Path = field(Path(".regsvc"), "Where the embedded database and the generated secret lie.")
    pg_bin: Path | None = field(None, "The folder of PostgreSQL's programs, for the embedded one.", shown="found")
    database_timeout: Seconds = field(
        s(5), "How long a connection or a statement is waited for.", least=s(0.1), most=s(600))  # fmt: skip
    database_statement_cache: int = field(
        100, "Prepared statements kept per connection; 0 behind a pgbouncer that pools transactions.",
        least=0, most=10_000)  # fmt: skip
    host: str = field("127.0.0.1", "Where to listen: an address, or a name that has one.")
    port: int = field(8000, "The port to listen on; 0: any free one.", least=0, most=65535)
    workers: Annotated[int, BeforeValidator(count_of)] = field(
        1, "Worker processes; `auto`: one for each core.", least=1, most=256,
        takes="a whole number, 1 to 256, or auto")  # fmt: skip
    database_pool_min: int = field(2, "Connections each worker keeps.", least=0, most=1000)
    database_pool_max: int = field(
        lambda known: 10 if names_database(known) else max(2, min(10, EMBEDDED_ROOM // (known["workers"] + 1) - 1)),
        "Connections each worker opens at most, beside the one it listens on.", least=1, most=1000,
        shown="`10`; fewer where many workers share the embedded database")  # fmt: skip
    roles: Annotated[frozenset[Role], BeforeValidator(words_of)] = field(
        frozenset(("http", "mailer", "sweeper")), "What this process runs.",
        takes="some of http, mailer, sweeper, with commas between")  # fmt: skip
    public_url: Annotated[str, AfterValidator(web_address)] = field(
        own_url,
        "How clients reach the service: the base of links and problem types.",
        takes="http(s)://host, without a query", shown="`http://HOST:PORT`")  # fmt: skip
    secret: Annotated[Hidden, AfterValidator(long_enough)] | None = field(
        None, "Every key is derived from it: those that hash passwords with it are lost without it.",
        takes=f"{SECRET_MIN} octets or more", shown="generated once in `dev`")  # fmt: skip
    secret_previous: Annotated[Hidden, AfterValidator(long_enough)] | None = field(
        None, "A second secret, whose codes, tokens, keys and passwords are good too: the new one before, the old one "
        "after `SECRET` is exchanged.",
        takes=f"{SECRET_MIN} octets or more")  # fmt: skip
    code_length: int = field(4, "Digits of an activation code.", least=4, most=10)
    code_ttl: Seconds = field(
        s(60), "How long an activation code lives.", least=s(10), most=s(86_400),
        also="ACTIVATION_CODE_EXPIRY_SECONDS")  # fmt: skip
    code_attempts: int = field(5, "Wrong tries that a code survives, less one.", least=1, most=100)
    code_failures_per_day: int = field(10, "Wrong tries that an address has in 24 hours.", least=1, most=1000)
    resend_cooldown: Seconds = field(
        s(30), "How long after a mail the next may be asked for.", least=s(0), most=s(3600))  # fmt: skip
    resends_per_hour: int = field(5, "Further mails that an address may ask for in an hour.", least=0, most=1000)
    events_kept: Seconds = field(
        s(31_536_000), "How long the audit trail is kept, by whole months.",
        least=s(2_678_400), most=s(315_360_000))  # fmt: skip
    pending_ttl: Seconds = field(
        s(86_400), "When a registration that nobody activated vanishes.",
        least=s(600), most=s(31_536_000))  # fmt: skip
    verify_code_length: int = field(
        6, "Digits of a code that proves an address without the password.", least=6, most=10)  # fmt: skip
    verify_code_ttl: Seconds = field(s(600), "How long such a code lives.", least=s(60), most=s(86_400))
    link_ttl: Seconds = field(
        s(600), "How long the link in an activation mail works; it needs the password, and no try.",
        least=s(60), most=s(86_400))  # fmt: skip
    reset_ttl: Seconds = field(
        s(600), "How long the token for a new password lives.", least=s(60), most=s(86_400))  # fmt: skip
    access_ttl: Seconds = field(s(1800), "How long an access token lives.", least=s(10), most=s(86_400))
    refresh_ttl: Seconds = field(
        s(604_800), "How long a refresh token lives, from its making.", least=s(60), most=s(31_536_000))  # fmt: skip
    session_max: Seconds = field(
        s(2_592_000), "How long a session lives, however often it is refreshed.",
        least=s(60), most=s(31_536_000))  # fmt: skip
    refresh_grace: Seconds = field(
        s(10), "How long a used refresh token gives the same answer again.", least=s(0), most=s(60))  # fmt: skip
    jwt_algorithm: Literal["EdDSA", "HS256"] = field("EdDSA", "How access tokens are signed.")
    jwt_issuer: str | None = field(None, "The `iss` of access tokens.", shown="`PUBLIC_URL`")
    jwt_audience: str = field("regsvc", "The `aud` of access tokens.")
    cookies: bool = field(
        default=False,
        meaning="Refresh tokens in a cookie that scripts cannot read, instead of in the answer.",
    )
    admin_token: Annotated[Hidden, AfterValidator(long_enough), AfterValidator(showable)] | None = field(
        None, "What a machine shows as its bearer token to administer.",
        takes=f"{SECRET_MIN} or more of A-Z a-z 0-9 - . _ ~ + /")  # fmt: skip
    duplicate_policy: Literal["conflict", "claims", "uniform"] = field(
        "conflict", "A second registration of an address: `conflict` refuses it, `claims` takes it beside a live one, "
        "`uniform` answers all alike and tells the owner by mail.")  # fmt: skip
    password_hash: Literal["bcrypt", "argon2id"] = field(
        "bcrypt", "How new passwords are hashed; all are verified, and made anew at a login. `argon2id` needs the "
        "extra `argon2`.")  # fmt: skip
    password_rounds: int = field(
        12, f"bcrypt's cost, as a power of two; under {ROUNDS_MIN} only in `dev`.", least=4, most=16)  # fmt: skip
    password_min: int = field(8, "Characters of a new password, at least.", least=1, most=128)
    password_max: int = field(128, "Characters of a new password, at most.", least=8, most=1024)
    hash_threads: int = field(
        lambda known: max(1, cores() // known["workers"]), "Passwords that each worker hashes at once.",
        least=1, most=256, shown="cores ÷ `WORKERS`, at least 1")  # fmt: skip
    hash_lanes: Annotated[int | None, BeforeValidator(lanes_of)] = field(
        None, "Bcrypts that a thread does at once, interleaved; 0: the `bcrypt` package does them one by one.",
        least=0, most=6, takes="a whole number, 0 to 6, or auto", shown="`auto`: measured at start")  # fmt: skip
    hash_queue: int = field(64, "Hashes that may wait; one more is refused with a 503.", least=0, most=100_000)
    hash_deadline: Seconds = field(
        s(5), "How long a hash may wait, else a 503; which comes at once if it would not be done in 3/4 of that.",
        least=s(0.1), most=s(60))  # fmt: skip
    mail_channel: Literal["smtp", "console", "mailbox", "console+mailbox"] = field(
        lambda known: "console+mailbox" if known["profile"] == "dev" else "console",
        "The way mail goes.", shown="`console+mailbox` in `dev`")  # fmt: skip
    smtp_host: str | None = field(None, "The relay.")
    smtp_port: int = field(25, "The relay's port.", least=1, most=65535)
    smtp_username: str | None = field(None, "Who to be at the relay.")
    smtp_password: Hidden | None = field(None, "The password at the relay.")
    smtp_tls: Literal["none", "starttls", "implicit"] = field("starttls", "How the way to the relay is encrypted.")
    mail_from: Annotated[str, AfterValidator(sender)] = field(
        "no-reply@regsvc.test", "The sender; `smtp` needs one of yours.", also="SMTP_FROM_EMAIL",
        takes="an address, or Name <address>")  # fmt: skip
    mail_concurrency: int = field(8, "Mails that each worker hands over at once.", least=1, most=256)
    mail_timeout: Seconds = field(
        s(10), "How long the relay may be silent.", least=s(0.1), most=s(300))  # fmt: skip
    mail_attempts: int = field(8, "Tries before a mail is given up; an outage costs none.", least=1, most=100)
    enable_rate_limiting: bool = field(
        default=True, meaning="`false` lifts every limit below, and those on mails to an address; wrong codes count all"
        " the same.", also="ENABLE_RATE_LIMITING")  # fmt: skip
    rate_limit_store: Literal["memory", "postgres", "redis"] = field(
        lambda known: "postgres" if names_database(known) or known["workers"] > 1 else "memory",
        "Where limits are counted. A store that is away lets everything pass, and the log says so.",
        shown="`memory` with one worker and the embedded database; else `postgres`")  # fmt: skip
    redis_url: Annotated[Hidden, AfterValidator(redis_address)] | None = field(
        None, "Where Redis is (6 or newer, no cluster), for `RATE_LIMIT_STORE=redis`; needs the extra `redis`.",
        also="REDIS_URL", takes="redis://user:password@host:port/number, or rediss://")  # fmt: skip
    rate_limit_registration_per_hour: int = field(
        5, "Registrations of a client.", least=1, most=1_000_000,
        also="RATE_LIMIT_REGISTRATION_PER_HOUR")  # fmt: skip
    rate_limit_activation_per_minute: int = field(
        3, "Codes shown for a registration, with its password.", least=1, most=1_000_000,
        also="RATE_LIMIT_ACTIVATION_PER_MINUTE")  # fmt: skip
    rate_limit_login_per_minute: int = field(
        10, "Log-ins at an account; a client may try three times as many, over all accounts.", least=1, most=1_000_000,
        also="RATE_LIMIT_LOGIN_PER_MINUTE")  # fmt: skip
    rate_limit_global_per_minute: int = field(
        1000, "Requests of a client to one endpoint.", least=1, most=1_000_000,
        also="RATE_LIMIT_GLOBAL_PER_MINUTE")  # fmt: skip
    connections_max: int = field(
        4096, "Connections that each worker has open; one more meets a 503.", least=1, most=100_000)  # fmt: skip
    requests_max: int = field(
        512, "Requests that each worker has in hand; one more meets a 503.", least=1, most=100_000)  # fmt: skip
    request_deadline: Seconds = field(
        s(20), "How long a request may take, beside what it asked to wait.", least=s(1), most=s(600))  # fmt: skip
    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(words_of)] = field(
        (), "Whose `X-Forwarded-For` is believed.",
        takes="networks such as 10.0.0.0/8, with commas between")  # fmt: skip
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(origin)], ...], BeforeValidator(words_of)] = field(
        (), "Pages of which origins may call from a browser.",
        takes="origins such as https://app.example.com, with commas between")  # fmt: skip
    enable_metrics: bool = field(
        default=True, meaning="`false`: nothing is counted, and `/metrics` and `/v1/metrics` are not there.",
        also="ENABLE_METRICS")  # fmt: skip
    metrics_token: Annotated[Hidden, AfterValidator(long_enough), AfterValidator(showable)] | None = field(
        None, "What is shown as a bearer token to read the metrics. Without one, whoever reaches them reads them.",
        takes=f"{SECRET_MIN} or more of A-Z a-z 0-9 - . _ ~ + /")  # fmt: skip
    otlp_endpoint: Annotated[str, AfterValidator(web_address)] | None = field(
        None, "Where traces go by OTLP over HTTP; needs the extra `otlp`.",
        takes="http(s)://host:port, the collector's base address")  # fmt: skip
    log_level: Literal["debug", "info", "warning", "error"] = field("info", "The least that is logged.")
    log_format: Literal["json", "pretty"] = field(
        lambda _: "pretty" if sys.stdout.isatty() else "json", "A JSON object a line, or lines for people.",
        shown="`json`; `pretty` on a terminal")  # fmt: skip
    log_pii: bool = field(default=False, meaning="Log addresses as they are instead of a keyed hash.")
    lame_duck_seconds: Seconds = field(
        s(0), "How long, once told to stop, the service serves on while `/readyz` says no: what a proxy needs to "
        "notice.", least=s(0), most=s(600))  # fmt: skip
    drain_seconds: Seconds = field(
        s(30), "How long work in flight has to finish once told to stop.", least=s(0), most=s(3600))  # fmt: skip

    @property
    def dsn(self) -> Secret | None:
        """Where PostgreSQL is, or None: the embedded one."""
        if self.database_url is not None or self.database_host is None:
            return self.database_url
        password = f":{quote(self.database_password.reveal(), safe='')}" if self.database_password else ""
        host = in_url(self.database_host)
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
        return moved if "public_url" in self.model_fields_set else moved.telling(public_url=own_url(vars(moved)))

    def variables(self) -> dict[str, str]:
        """Return every value as its variable, **secrets in clear**: what workers are told, and can load."""
        told = {name: getattr(self, name) for name in type(self).model_fields}
        return {variable(name): as_text(value) for name, value in told.items() if as_text(value)}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if wrong := [why for holds, why in disagreements(self) if not holds]:
            raise ValueError("; ".join(wrong))
        return self
