"""From the environment and `.env` to `Settings`, or to one line that says what is wrong; and the generated secret."""

import difflib
import os
import secrets
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import ValidationError

from regsvc.domain.values import Secret
from regsvc.settings.fields import Settings
from regsvc.settings.values import SECRET_MIN
from regsvc.settings.words import PREFIX, also, takes, variable

TESTS: Final = "REGSVC_TEST_"  # what the test suite itself is told by
SHOWN_MAX: Final = 80  # characters of a wrong value that are repeated

Origin = Literal["environment", ".env", "default", "generated"]


class SettingsError(Exception):
    """The service is told something it cannot do; the message is one line for the operator."""


def load_settings(environ: Mapping[str, str], dotenv: Path | None = None, *, without: Collection[str] = ()) -> Settings:
    """Read the settings from `environ`, then from the file `dotenv` if it is there, then the defaults.

    The fields in `without` have their defaults, whatever is told. Raises SettingsError.
    """
    return read_settings(environ, dotenv, without=without)[0]


def read_settings(
    environ: Mapping[str, str], dotenv: Path | None = None, *, without: Collection[str] = ()
) -> tuple[Settings, dict[str, Origin]]:
    """Do as `load_settings`, and say where each field's value came from. A variable that is empty is not given."""
    sources: list[tuple[Origin, Mapping[str, str]]] = [("environment", environ), (".env", _file(dotenv))]
    known = {name for field in Settings.model_fields for name in _names(field)}
    if wrong := [_mistyped(name, source, known) for source, told in sources for name in sorted(told)
                 if name.startswith(PREFIX) and name not in known and not name.startswith(TESTS)]:  # fmt: skip
        raise SettingsError("; ".join(wrong))
    given = {
        field: found
        for field in Settings.model_fields
        if field not in without and (found := _given(field, sources)) is not None
    }
    try:
        settings = Settings.model_validate({field: text for field, (_, _, text) in given.items()})
    except ValidationError as error:
        raise SettingsError("; ".join(_explained(error, given))) from None  # its text would hold what was given
    origins: dict[str, Origin] = dict.fromkeys(Settings.model_fields, "default")
    return settings, origins | {field: source for field, (source, _, _) in given.items()}


def _names(field: str) -> list[str]:
    extra = also(Settings.model_fields[field])
    return [variable(field), *([extra, PREFIX + extra] if extra else [])]


def _given(field: str, sources: Iterable[tuple[Origin, Mapping[str, str]]]) -> tuple[Origin, str, str] | None:
    """Return where the field's value is from, by what name, and its text."""
    for source, told in sources:
        for name in _names(field):
            if text := told.get(name, "").strip():
                return source, name, text
    return None


def _file(dotenv: Path | None) -> Mapping[str, str]:
    if dotenv is None or not dotenv.is_file():
        return {}
    from dotenv import dotenv_values  # noqa: PLC0415 - 26 ms that a worker and a container need not spend

    try:
        return {name: text for name, text in dotenv_values(dotenv, interpolate=False).items() if text is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{dotenv} cannot be read: {error}") from error


def _mistyped(name: str, source: Origin, known: Iterable[str]) -> str:
    ours = [known_name.removeprefix(PREFIX) for known_name in known if known_name.startswith(PREFIX)]
    near = difflib.get_close_matches(name.removeprefix(PREFIX), ours, 1)  # the prefix makes all of them alike
    hint = f": did you mean {PREFIX}{near[0]}?" if near else "; `regsvc config --table` lists those there are"
    return f"{name} ({source}) is no variable of this service{hint}"


def _explained(error: ValidationError, given: Mapping[str, tuple[Origin, str, str]]) -> Iterable[str]:
    seen = set()
    for flaw in error.errors(include_input=False, include_url=False):
        if not flaw["loc"]:
            yield str(flaw["ctx"]["error"])
        elif (field := str(flaw["loc"][0])) in given and field not in seen:  # not a default that waits for another
            seen.add(field)
            _, name, text = given[field]
            about = Settings.model_fields[field]
            got = "a value that is not shown" if "Secret" in str(about.annotation) else repr(text[:SHOWN_MAX])
            yield f"{name}: got {got}, takes {takes(about)}"


def with_secret(settings: Settings) -> Settings:
    """Return settings that have a secret: in `dev` one is made once and kept in the data folder (mode 0600).

    Raises SettingsError if it cannot be kept.
    """
    if settings.secret is not None:
        return settings
    path = secret_file(settings)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return settings.telling(secret=Secret(_kept(path)))
    except OSError as error:
        raise SettingsError(
            f"no secret can be kept in {path.parent}: {error}; set REGSVC_SECRET, or a REGSVC_DATA_DIR of yours"
        ) from error


def secret_file(settings: Settings) -> Path:
    """Return where the generated secret is kept."""
    return settings.data_dir / "secret"


def _kept(path: Path) -> str:
    """Read `path`, written whole by the first who asks: others see all of it or nothing."""
    if not path.exists():
        descriptor, name = tempfile.mkstemp(prefix="secret.", dir=path.parent)  # mode 0600
        aside = Path(name)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(aside)
        except FileExistsError:  # another process was first: its secret counts
            pass
        finally:
            aside.unlink()
    text = path.read_text("utf-8").strip()
    if len(text.encode()) < SECRET_MIN:
        raise SettingsError(f"{path} holds no secret of {SECRET_MIN} octets: put the right one back, or delete it")
    return text
