"""`regsvc config` and `regsvc openapi`: what the service is told, and what it tells its clients."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import click

from regsvc.cli.given import DOTENV, settings

if TYPE_CHECKING:  # --help must not wait for them
    from regsvc.settings import Origin, Settings


@click.command(short_help="Show the effective settings.")
@click.option("--json", "form", flag_value="json", help="A JSON object for programs.")
@click.option("--table", "form", flag_value="table", help="All variables as the README's table.")
@click.option("--env-example", "form", flag_value="env-example", help="All variables as a commented .env file.")
def config(form: str | None) -> None:
    """Show the effective settings, secrets masked, and where each came from.

    The environment goes before .env, and .env before the defaults. A wrong value or a mistyped name is refused here as
    it is by `regsvc serve`.

    \b
    Examples:
      regsvc config
      regsvc config --json | jq .REGSVC_WORKERS
      regsvc config --env-example > .env

    Exit statuses: 0 fine, 78 misconfigured.
    """
    if form in _FORMS:
        click.echo(_FORMS[form](), nl=False)
        return
    from regsvc.settings import read_settings

    told, origins = read_settings(os.environ, DOTENV)
    shown = _shown(told, origins)
    if form == "json":
        click.echo(json.dumps({name: {"value": value, "from": origin} for name, value, origin in shown}, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("variable", "value", "from", box=None, pad_edge=False)
    for name, value, origin in shown:
        table.add_row(name, value, origin, style=None if origin != "default" else "dim")
    wide = None if sys.stdout.isatty() else 200  # a pipe has no width, and a program wants whole lines
    Console(width=wide, highlight=False, markup=False).print(table)


def _shown(told: "Settings", origins: Mapping[str, "Origin"]) -> list[tuple[str, str, str]]:
    from regsvc.bcrypt_lanes import Package, open_engine
    from regsvc.settings import secret_file
    from regsvc.settings.words import as_shown, variable

    shown = {name: (as_shown(getattr(told, name)), str(origin)) for name, origin in origins.items()}
    if told.secret is None:
        kept = secret_file(told)
        shown["secret"] = ("…" if kept.exists() else "made at the first start", f"generated, in {kept}")
    engine, why = open_engine(told.hash_lanes)  # what comes of it is this machine's to say
    computes = "the bcrypt package" if isinstance(engine, Package) else f"up to {engine.lanes} lanes"
    value, origin = shown["hash_lanes"]
    shown["hash_lanes"] = (value or "auto", f"{origin}; here: {computes}, for {why}")
    return [(variable(name), value, origin) for name, (value, origin) in shown.items()]


def variables_table() -> str:
    """Return all variables as a Markdown table."""
    from regsvc.settings import Settings
    from regsvc.settings.words import also, shown_default, takes, variable

    lines = ["| variable | default | takes | meaning |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        other = f" (`{also(field)}`)" if also(field) else ""
        text = f"`{variable(name)}`{other} | {shown_default(field)} | {takes(field)} | {field.description}"
        lines.append(f"| {text} |")
    return "\n".join(lines) + "\n"


def env_example() -> str:
    """Return all variables as a file to begin a .env with; every line is a comment."""
    from regsvc.settings import Settings
    from regsvc.settings.words import also, as_text, shown_default, takes, variable

    lines = [
        "# What the service is told; `regsvc config` shows what comes of it. Made by `regsvc config --env-example`."
    ]
    for name, field in Settings.model_fields.items():
        other = f" Also read without the prefix, as {also(field)}." if also(field) else ""
        default = shown_default(field).replace("`", "")
        lines += ["", f"# {field.description}".replace("`", ""), f"# Takes {takes(field)}; default: {default}.{other}"]
        lines.append(f"# {variable(name)}={as_text(None if field.default_factory else field.default)}")
    return "\n".join(lines) + "\n"


_FORMS: Mapping[str | None, Callable[[], str]] = {"table": variables_table, "env-example": env_example}


@click.command(short_help="Print the OpenAPI document.")
@click.option("--indent/--no-indent", default=True, help="For people, or in one line.")
def openapi(*, indent: bool) -> None:
    """Print the OpenAPI 3.1 document that the service serves at /openapi.json, made with the settings in effect.

    \b
    Examples:
      regsvc openapi > openapi.json
      REGSVC_PUBLIC_URL=https://accounts.example.org regsvc openapi --no-indent
    """
    from regsvc.world import openapi_document

    document = openapi_document(settings())
    click.echo(json.dumps(json.loads(document), indent=2, ensure_ascii=False) if indent else document.decode())
