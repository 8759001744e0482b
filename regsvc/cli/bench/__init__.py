"""`regsvc bench`: load that comes whether or not the service keeps up, and what became of it.

Our own, and neither k6 nor wrk, for four reasons. It has to run where regsvc runs, with nothing else to install. Codes
are read from the development mailbox between two steps, which wrk cannot. wrk waits for answers before it asks again,
so that of a service that is bound by bcrypt it sees the times of those who were let in only; k6 does not, and wants a
core to itself for that, of the few that hash. And it speaks as the rest does: on Trio, with the statuses and signals
of every other verb. `benchmarks/agreement.py` holds it to wrk on a light endpoint.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from regsvc.cli.given import say

if TYPE_CHECKING:  # --help must not wait for them
    from regsvc.cli.bench.plan import Plan
    from regsvc.cli.bench.run import Run
    from regsvc.cli.bench.target import Cannot

SCENARIOS: Final = ("register", "activate", "login", "light", "mixed")
UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST: Final = 7 * 86400.0  # seconds
MOST: Final = 100_000.0  # a second; no generator in Python comes near


def seconds(_context: click.Context, _param: click.Parameter, text: str) -> float:
    """Read a time: 30, 30s, 2m, 1h."""
    unit = next((unit for unit in UNITS if text.endswith(unit)), "")
    try:
        found = float(text.removesuffix(unit)) * UNITS.get(unit, 1.0)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time: 30, 30s, 2m, 1h") from None
    if not 0 <= found <= LONGEST:
        raise click.BadParameter(f"{text!r} is not between 0 and a week")
    return found


def a_second(_context: click.Context, _param: click.Parameter, text: str) -> float | None:
    """Read arrivals a second; None for max."""
    if text == "max":
        return None
    try:
        rate = float(text.removesuffix("/s"))
    except ValueError:
        rate = 0.0
    if not 0 < rate <= MOST:
        raise click.BadParameter(f"{text!r} is neither max nor between 0 and {MOST:,.0f} a second")
    return rate


JSON_OR_FILE: Final = click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path)
FILE: Final = click.Path(dir_okay=False, writable=True, path_type=Path)
OLD_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Put load on a service of yours, and see how it does.")
@click.argument("url", metavar="[URL]", required=False)
@click.option("--scenario", type=click.Choice(SCENARIOS), default="light", show_default=True,
              help="What each who comes does.")  # fmt: skip
@click.option("--rate", callback=a_second, default="10", show_default=True, metavar="N|max",
              help="Who comes each second, whatever becomes of those before; max: closed loop, see above.")  # fmt: skip
@click.option("--duration", callback=seconds, default="30s", show_default=True, metavar="TIME",
              help="How long it is counted, as 30s, 2m, 1h.")  # fmt: skip
@click.option("--warm-up", callback=seconds, default="3s", show_default=True, metavar="TIME",
              help="The same load before, not counted.")  # fmt: skip
@click.option("--connections", type=click.IntRange(1, 10_000), default=256, show_default=True, metavar="N",
              help="Open at once, at most; who finds none free waits, and that counts.")  # fmt: skip
@click.option("--path", default="/livez", show_default=True, metavar="PATH", help="What light asks for.")
@click.option("--arrivals", type=click.Choice(["even", "random"]), default="even", show_default=True,
              help="At equal distances, or as people come who know nothing of each other.")  # fmt: skip
@click.option("--seed", type=int, default=1, show_default=True, metavar="N",
              help="Of random arrivals, and of who does what in mixed.")  # fmt: skip
@click.option("--timeout", callback=seconds, default="30s", show_default=True, metavar="TIME",
              help="How long after it was due an answer is waited for.")  # fmt: skip
@click.option("--accounts", type=click.IntRange(1, 1000), default=8, show_default=True, metavar="N",
              help="Signed up beforehand, for login and mixed.")  # fmt: skip
@click.option("--forwarded", is_flag=True,
              help="Give each an address of his own in X-Forwarded-For (REGSVC_TRUSTED_PROXIES).")  # fmt: skip
@click.option("--json", "json_to", type=JSON_OR_FILE, metavar="FILE", help="Everything for programs; - for stdout.")
@click.option("--html", "html_to", type=FILE, metavar="FILE", help="A page with charts, in one file.")
@click.option("--compare", type=OLD_FILE, nargs=2, metavar="A.json B.json",
              help="Show two runs beside each other, instead of running.")  # fmt: skip
@click.option("--i-own-this-host", "mine", is_flag=True, help="Needed where URL is not of this machine.")
def bench(
    url: str | None,
    json_to: Path | None,
    html_to: Path | None,
    compare: tuple[Path, Path] | None,
    *,
    mine: bool,
    **how: Any,  # noqa: ANN401 - the rest is a Plan's
) -> None:
    """Put load on the service at URL, and show how long it took to answer.

    People come at a constant rate, whether or not those before were answered, and what they do is timed from when they
    were due: a service that stalls cannot hide it. With --rate max each of --connections asks again as soon as it is
    answered, as wrk does; that shows how much is possible, and not how long people wait.

    \b
    Scenarios:
      light     GET --path
      register  POST /v1/users/register
      activate  register, read the code in the development mailbox, activate
      login     log in, GET /v1/users/me, exchange the refresh token
      mixed     80 of 100 light, 15 login, 5 activate

    The service is told REGSVC_ENABLE_RATE_LIMITING=false for it. activate, login and mixed need REGSVC_PROFILE=dev.
    All that register stay there: use a database that may be thrown away. Ctrl-C ends it and shows what there is.

    \b
    Examples:
      REGSVC_ENABLE_RATE_LIMITING=false regsvc serve
      regsvc bench http://127.0.0.1:8000 --rate 200
      regsvc bench http://127.0.0.1:8000 --scenario register --rate 8 --duration 2m --html register.html
      regsvc bench http://127.0.0.1:8000 --scenario mixed --rate 50 --arrivals random --json after.json
      regsvc bench http://127.0.0.1:8000 --rate max --connections 16 --path /v1/health
      regsvc bench --compare before.json after.json --html change.html

    Exit statuses: 0 measured, or ended by Ctrl-C; 1 not to be measured (limits met, nothing good came, no mailbox);
    2 wrong usage, or a host that is not yours; 75 it cannot be reached.
    """
    from regsvc.cli.bench.target import Cannot

    if (url is None) == (compare is None):
        raise click.UsageError("name either a URL, or two files to --compare")
    try:
        if compare is not None:
            _compare(compare, json_to, html_to)
        else:
            assert url is not None  # noqa: S101 - asked above
            _bench(url, how, json_to, html_to, mine=mine)
    except Cannot as why:
        _give_up(why)


def _bench(url: str, how: Mapping[str, Any], json_to: Path | None, html_to: Path | None, *, mine: bool) -> None:
    import trio

    from regsvc.cli.bench.live import open_progress
    from regsvc.cli.bench.session import measure
    from regsvc.cli.bench.target import target
    from regsvc.cli.bench.verdict import is_void

    plan = _plan(how)
    to = target(url, mine=mine)
    with open_progress() as tell:
        run = trio.run(measure, plan, to, tell)
    if run is None:
        say("ended before anything was counted")
        sys.exit(1)
    _write(run, json_to, html_to)
    if is_void(run):
        say(run.warnings[0])
        sys.exit(1)


def _plan(how: Mapping[str, Any]) -> "Plan":
    from regsvc.cli.bench.plan import Plan

    plan = Plan(**how)
    if not plan.path.startswith("/") or not plan.path.isascii() or not plan.path.isprintable() or " " in plan.path:
        raise click.BadParameter(f"{plan.path!r} is no path: it begins with / and has no spaces", param_hint="--path")
    if plan.duration < 1:
        raise click.BadParameter("less than a second shows nothing", param_hint="--duration")
    if not plan.timeout:
        raise click.BadParameter("nobody answers in no time", param_hint="--timeout")
    return plan


def _write(run: "Run", json_to: Path | None, html_to: Path | None) -> None:
    from regsvc.cli.bench.page import report
    from regsvc.cli.bench.table import result, show

    if json_to is not None and str(json_to) == "-":
        click.echo(json.dumps(run.as_json()))
    else:
        show(result(run))
        _keep(json_to, json.dumps(run.as_json(), indent=1) + "\n")
    _keep(html_to, None if html_to is None else report(run))


def _compare(files: tuple[Path, Path], json_to: Path | None, html_to: Path | None) -> None:
    from regsvc.cli.bench.compare import as_json
    from regsvc.cli.bench.page import beside
    from regsvc.cli.bench.table import comparison, show

    one, other = (_read(file) for file in files)
    names = (files[0].stem, files[1].stem)
    if json_to is not None and str(json_to) == "-":
        click.echo(json.dumps(as_json(one, other)))
    else:
        show(comparison(one, other, names))
        _keep(json_to, json.dumps(as_json(one, other), indent=1) + "\n")
    _keep(html_to, None if html_to is None else beside(one, other, names))


def _read(file: Path) -> "Run":
    from regsvc.cli.bench.run import NoRun, Run

    try:
        return Run.of(json.loads(file.read_text("utf-8")))
    except (NoRun, ValueError) as why:  # ValueError: no JSON, or no UTF-8
        raise click.BadParameter(f"{file}: {why}", param_hint="--compare") from why


def _keep(path: Path | None, text: str | None) -> None:
    if path is None or text is None:
        return
    try:
        path.write_text(text, "utf-8")
    except OSError as why:
        raise click.FileError(str(path), why.strerror) from why
    say(f"written: {path}")


def _give_up(why: "Cannot") -> None:
    if why.status == 2:
        raise click.UsageError(str(why))
    say(str(why))
    sys.exit(why.status)
