"""What the service is told: sources, names, ranges, what must hold together, secrets."""

import ipaddress
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regsvc.domain.values import Secret
from regsvc.settings import Settings, SettingsError, cores, load_settings, read_settings, secret_file, with_secret
from regsvc.settings.words import also, as_shown, shown_default, takes, variable

LONG = "a secret that is certainly long enough"
PRODUCTION = {
    "REGSVC_PROFILE": "production",
    "REGSVC_SECRET": LONG,
    "REGSVC_PUBLIC_URL": "https://accounts.example.org",
    "REGSVC_MAIL_CHANNEL": "smtp",
    "REGSVC_SMTP_HOST": "relay.example.org",
    "REGSVC_MAIL_FROM": "Accounts <no-reply@example.org>",
}


def refusal(**environ: str) -> str:
    """The one line that `environ` is refused with."""
    with pytest.raises(SettingsError) as refused:
        load_settings(environ)
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_nothing_given_is_a_service_for_development() -> None:
    settings = load_settings({})
    assert (settings.profile, settings.mail_channel, settings.dsn) == ("dev", "console+mailbox", None)
    assert settings.public_url == "http://127.0.0.1:8000"
    assert settings.hash_threads == cores()
    assert settings.roles == {"http", "mailer", "sweeper"}


def test_the_environment_goes_before_the_file_and_the_file_before_defaults(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("REGSVC_PORT=1111\nREGSVC_CODE_LENGTH=6\n# REGSVC_NOTHING=1\n")
    settings, origins = read_settings({"REGSVC_PORT": "2222", "HOME": "/"}, dotenv)
    assert (settings.port, settings.code_length, settings.workers) == (2222, 6, 1)
    assert [origins[name] for name in ("port", "code_length", "workers")] == ["environment", ".env", "default"]


def test_an_empty_variable_is_not_given() -> None:
    assert load_settings({"REGSVC_PORT": " ", "REGSVC_SECRET": ""}) == load_settings({})


def test_a_file_that_is_no_text_is_refused_in_one_line(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(b"REGSVC_PORT=\xff\xfe")
    with pytest.raises(SettingsError, match=r"\.env cannot be read"):
        load_settings({}, dotenv)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("ACTIVATION_CODE_EXPIRY_SECONDS", "code_ttl"),
        ("REGSVC_ACTIVATION_CODE_EXPIRY_SECONDS", "code_ttl"),
        ("REGSVC_CODE_TTL", "code_ttl"),
    ],
)
def test_a_bracketed_name_means_the_same(name: str, field: str) -> None:
    assert getattr(load_settings({name: "90"}), field) == timedelta(seconds=90)


def test_the_prefixed_name_goes_before_the_other() -> None:
    given_both = load_settings({"ACTIVATION_CODE_EXPIRY_SECONDS": "90", "REGSVC_CODE_TTL": "120"})
    assert given_both.code_ttl == timedelta(seconds=120)


def test_a_mistyped_name_is_refused_with_the_nearest() -> None:
    assert "did you mean REGSVC_WORKERS?" in refusal(REGSVC_WORKER="2")
    assert "regsvc config --table" in refusal(REGSVC_XYZZY="2")
    assert load_settings({"REGSVC_TEST_ANYTHING": "the tests' own"}) == load_settings({})


@pytest.mark.parametrize(
    ("name", "got", "said"),
    [
        ("REGSVC_PORT", "http", "a whole number, 0 to 65535"),
        ("REGSVC_PORT", "65536", "a whole number, 0 to 65535"),
        ("REGSVC_CODE_LENGTH", "3", "a whole number, 4 to 10"),
        ("REGSVC_CODE_TTL", "9", "seconds, 10 to 86400"),
        ("REGSVC_CODE_TTL", "soon", "seconds, 10 to 86400"),
        ("REGSVC_CODE_TTL", "inf", "seconds, 10 to 86400"),
        ("REGSVC_CODE_TTL", "nan", "seconds, 10 to 86400"),
        ("REGSVC_WORKERS", "all", "1 to 256, or auto"),
        ("REGSVC_ROLES", "http,cook", "some of http, mailer, sweeper"),
        ("REGSVC_SMTP_TLS", "yes", "none, starttls or implicit"),
        ("REGSVC_ENABLE_RATE_LIMITING", "perhaps", "true or false"),
        ("REGSVC_TRUSTED_PROXIES", "10.0.0.0/8,everybody", "networks such as 10.0.0.0/8"),
        ("REGSVC_PUBLIC_URL", "example.org", "http(s)://host"),
        ("REGSVC_PUBLIC_URL", "https://example.org/?a=b", "http(s)://host"),
        ("REGSVC_MAIL_FROM", "nobody", "an address, or Name <address>"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_takes(name: str, got: str, said: str) -> None:
    line = refusal(**{name: got})
    assert line.startswith(f"{name}: got {got!r}, takes ")
    assert said in line


def test_all_wrong_values_are_said_at_once() -> None:
    line = refusal(REGSVC_PORT="x", REGSVC_HASH_QUEUE="-1", REGSVC_WORKERS="none")
    assert all(name in line for name in ("REGSVC_PORT", "REGSVC_HASH_QUEUE", "REGSVC_WORKERS"))
    assert "HASH_THREADS" not in line  # a default that waits for a wrong value is not itself wrong


def test_a_wrong_secret_is_not_repeated() -> None:
    assert "xyzzy" not in refusal(REGSVC_SECRET="xyzzy")
    assert "xyzzy" not in refusal(DATABASE_URL="mysql://root:xyzzy@db/x")


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://cache", "redis://:xyzzy@cache:x", "redis://cache:0/1", "redis://cache/one"]
)
def test_an_address_of_redis_is_read_before_the_start(url: str) -> None:
    line = refusal(REGSVC_REDIS_URL=url)
    assert line.startswith("REGSVC_REDIS_URL: ")
    assert "xyzzy" not in line


@pytest.mark.parametrize(
    "origin", ["*", "app.example.com", "https://app.example.com/", "https://a@b.example.com/x", "ftp://x"]
)
def test_an_origin_is_an_origin(origin: str) -> None:
    assert refusal(REGSVC_CORS_ORIGINS=f"https://fine.example.com,{origin}").startswith("REGSVC_CORS_ORIGINS: got ")


def test_an_admin_token_has_to_be_one_that_can_be_shown() -> None:
    token = "a-token.of_the~kind+that/goes=="
    shown = f"{token:a>40}"
    assert load_settings({"REGSVC_ADMIN_TOKEN": shown}).admin_token == Secret(shown)
    for wrong in ("too-short", f"{LONG} with blanks", "ä" * 40):
        assert "REGSVC_ADMIN_TOKEN: got a value that is not shown, takes 32 or more" in refusal(
            REGSVC_ADMIN_TOKEN=wrong
        )


def test_what_lives_shorter_than_its_parts_is_refused() -> None:
    for name in ("REFRESH_TTL", "ACCESS_TTL"):
        line = refusal(**{"REGSVC_SESSION_MAX": "60", f"REGSVC_{name}": "61"})
        assert f"REGSVC_{name} is above SESSION_MAX" in line
    assert "REGSVC_VERIFY_CODE_LENGTH: got '5', takes a whole number, 6 to 10" in refusal(REGSVC_VERIFY_CODE_LENGTH="5")


def test_production_says_all_that_it_lacks_at_once() -> None:
    line = refusal(REGSVC_PROFILE="production")
    assert all(name in line for name in ("REGSVC_SECRET (32", "REGSVC_PUBLIC_URL", "REGSVC_MAIL_CHANNEL other than"))
    for name in ("REGSVC_SECRET", "REGSVC_PUBLIC_URL", "REGSVC_MAIL_CHANNEL"):
        assert name in refusal(**{k: v for k, v in PRODUCTION.items() if k != name})
    assert load_settings(PRODUCTION).profile == "production"


def test_a_named_database_means_production() -> None:
    assert "the production profile" in refusal(DATABASE_URL="postgresql://db/regsvc")
    assert "the production profile" in refusal(DATABASE_HOST="db")
    assert load_settings({"DATABASE_HOST": "db", "REGSVC_PROFILE": "dev"}).profile == "dev"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"REGSVC_DATABASE_POOL_MIN": "11"}, "DATABASE_POOL_MIN is above"),
        ({"REGSVC_WORKERS": "10", "REGSVC_DATABASE_POOL_MAX": "10"}, "ask for 121 connections"),
        ({"REGSVC_PASSWORD_MIN": "100", "REGSVC_PASSWORD_MAX": "99"}, "PASSWORD_MIN is above"),
        ({"REGSVC_ROLES": ","}, "REGSVC_ROLES names no role"),
        ({"REGSVC_SMTP_USERNAME": "me"}, "needs REGSVC_SMTP_PASSWORD"),
        ({"REGSVC_MAIL_CHANNEL": "smtp", "REGSVC_MAIL_FROM": "a@example.org"}, "needs REGSVC_SMTP_HOST"),
        ({"REGSVC_MAIL_CHANNEL": "smtp", "REGSVC_SMTP_HOST": "relay"}, "needs REGSVC_MAIL_FROM"),
        ({**PRODUCTION, "REGSVC_PASSWORD_ROUNDS": "9"}, "takes 10 to 16 outside of the dev profile"),
        ({**PRODUCTION, "REGSVC_MAIL_CHANNEL": "console"}, "REGSVC_MAIL_CHANNEL other than console"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(wrong: dict[str, str], said: str) -> None:
    assert said in refusal(**wrong)


@pytest.mark.parametrize(
    ("parts", "dsn"),
    [
        ({"DATABASE_HOST": "db"}, "postgresql://regsvc@db:5432/regsvc"),
        (
            {"DATABASE_HOST": "::1", "DATABASE_PORT": "6432", "DATABASE_USER": "a b", "DATABASE_PASSWORD": "p/w:@"},
            "postgresql://a%20b:p%2Fw%3A%40@[::1]:6432/regsvc",
        ),
        (
            {"DATABASE_HOST": "/run/postgresql", "DATABASE_NAME": "n"},
            "postgresql://regsvc@/n?host=/run/postgresql&port=5432",
        ),
        ({"DATABASE_HOST": "db", "DATABASE_URL": "postgresql://other/x"}, "postgresql://other/x"),
    ],
)
def test_a_database_can_be_named_in_parts(parts: dict[str, str], dsn: str) -> None:
    found = load_settings({**parts, "REGSVC_PROFILE": "dev"}).dsn
    assert found == Secret(dsn)


def test_workers_share_the_cores() -> None:
    assert load_settings({"REGSVC_WORKERS": "auto"}).workers == cores()
    assert load_settings({"REGSVC_WORKERS": "auto"}).hash_threads == 1
    assert load_settings({"REGSVC_WORKERS": str(cores() + 1)}).hash_threads == 1


@given(st.integers(1, 30))
def test_the_embedded_database_has_room_for_all_workers_by_default(workers: int) -> None:
    settings = load_settings({"REGSVC_WORKERS": str(workers)})
    assert 2 <= settings.database_pool_max <= 10
    elsewhere = load_settings({"REGSVC_WORKERS": str(workers), "DATABASE_HOST": "db", "REGSVC_PROFILE": "dev"})
    assert elsewhere.database_pool_max == 10


def test_lists_and_networks_are_read() -> None:
    settings = load_settings({"REGSVC_ROLES": "http, mailer", "REGSVC_TRUSTED_PROXIES": "10.0.0.0/8, ::1"})
    assert settings.roles == {"http", "mailer"}
    assert settings.trusted_proxies == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))


@pytest.mark.parametrize(
    ("given", "origin"),
    [
        ("https://app.example.org", "https://app.example.org"),
        ("HTTPS://App.Example.org:443", "https://app.example.org"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_origins_are_kept_as_browsers_write_them(given: str, origin: str) -> None:
    assert load_settings({"REGSVC_CORS_ORIGINS": given}).cors_origins == (origin,)


@pytest.mark.parametrize(
    "given",
    ["*", "null", "https://*.example.org", "https://app.example.org/", "app.example.org", "ftp://app.example.org",
     "https://me@app.example.org", "https://b\u00fccher.example", "https://app.example.org:0", "https://a b"],
)  # fmt: skip
def test_what_no_browser_calls_an_origin_is_refused(given: str) -> None:
    assert refusal(REGSVC_CORS_ORIGINS=given).startswith("REGSVC_CORS_ORIGINS: got ")


@pytest.mark.parametrize("environ", [{}, PRODUCTION, {"DATABASE_HOST": "db", "REGSVC_PROFILE": "dev"}])
def test_workers_are_told_exactly_what_was_read(environ: dict[str, str]) -> None:
    settings = load_settings(environ).telling(secret=Secret(LONG), database_url=Secret("postgresql://a:b@c/d"))
    assert load_settings(settings.variables()) == settings


@given(st.dictionaries(st.sampled_from([variable(name) for name in Settings.model_fields]), st.text(max_size=20)))
def test_whatever_is_given_is_read_or_refused(environ: dict[str, str]) -> None:
    with suppress(SettingsError):  # any other error is a bug
        settings = load_settings(environ)
        assert load_settings(settings.variables()) == settings


def test_a_port_that_the_kernel_chose_is_told() -> None:
    settings = load_settings({"REGSVC_PORT": "0", "REGSVC_HOST": "::1"}).listening_on(4711)
    assert (settings.port, settings.public_url) == (4711, "http://[::1]:4711")
    elsewhere = load_settings({"REGSVC_PORT": "0", "REGSVC_PUBLIC_URL": "https://example.org/"}).listening_on(4711)
    assert elsewhere.public_url == "https://example.org"
    assert load_settings({}).listening_on(4711).port == 8000


@pytest.mark.parametrize(("host", "url"), [("0.0.0.0", "http://127.0.0.1:8000"), ("::", "http://[::1]:8000")])  # noqa: S104
def test_links_do_not_lead_to_an_address_that_means_all_of_them(host: str, url: str) -> None:
    assert load_settings({"REGSVC_HOST": host}).public_url == url


def test_no_secret_can_be_read_off_settings() -> None:
    settings = load_settings(
        {**PRODUCTION, "DATABASE_URL": "postgresql://me:xyzzy@db/x", "REGSVC_SMTP_PASSWORD": "xyzzy"}
    )
    assert "xyzzy" not in repr(settings)
    assert LONG not in repr(settings)
    assert as_shown(settings.database_url) == "postgresql://…@db/x"
    assert as_shown(settings.smtp_password) == "…"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}).port = 1


def test_a_secret_is_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    settings = load_settings({"REGSVC_DATA_DIR": str(tmp_path / "data")})
    with ThreadPoolExecutor(8) as pool:  # services that start at once come to the same
        made = {found.secret for found in pool.map(with_secret, [settings] * 8)}
    assert len(made) == 1
    assert made == {with_secret(settings).secret}
    assert stat.S_IMODE(secret_file(settings).stat().st_mode) == 0o600
    assert [entry.name for entry in (tmp_path / "data").iterdir()] == ["secret"]


def test_a_secret_that_is_given_is_kept_nowhere(tmp_path: Path) -> None:
    settings = load_settings({"REGSVC_DATA_DIR": str(tmp_path / "data"), "REGSVC_SECRET": LONG})
    assert with_secret(settings) is settings
    assert not (tmp_path / "data").exists()


def test_a_secret_that_cannot_be_kept_or_was_damaged_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="no secret can be kept"):
        with_secret(load_settings({"REGSVC_DATA_DIR": str(tmp_path / "file")}))
    (tmp_path / "secret").write_text("short")
    with pytest.raises(SettingsError, match="holds no secret of 32 octets"):
        with_secret(load_settings({"REGSVC_DATA_DIR": str(tmp_path)}))


def test_every_variable_says_what_it_is() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert takes(field), name
        assert shown_default(field), name
        assert also(field) == also(field).upper()
