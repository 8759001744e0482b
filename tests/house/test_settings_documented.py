"""Whatever documents tell of settings is what the settings themselves say."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from regsvc.cli.told import env_example, variables_table
from regsvc.settings import Settings, load_settings
from regsvc.settings.words import PREFIX, also, variable
from regsvc.supervisor.watch import MARGIN

HERE = Path(__file__).parents[2]
TOLD = re.compile(r"\bREGSVC_[A-Z_]+[A-Z]\b")
KNOWN = {variable(name) for name in Settings.model_fields} | {
    PREFIX + also(field) for field in Settings.model_fields.values() if also(field)
}


def test_the_readme_has_the_table_of_today() -> None:
    readme = (HERE / "README.md").read_text("utf-8")
    [table] = re.findall(r"<!-- settings -->\n(.*?)<!-- /settings -->", readme, re.DOTALL)
    assert table == variables_table(), "put `regsvc config --table` between the marks"


def test_the_example_is_the_one_of_today() -> None:
    assert (HERE / ".env.example").read_text("utf-8") == env_example(), (
        "run `regsvc config --env-example > .env.example`"
    )


@pytest.mark.parametrize(
    "name",
    ["README.md", "compose.yml", "Dockerfile", ".github/CONTRIBUTING.md", ".github/workflows/ci.yml", "CHANGELOG.md"],
)
def test_no_document_names_a_variable_that_is_not_there(name: str) -> None:
    told = set(TOLD.findall((HERE / name).read_text("utf-8")))
    assert told <= KNOWN


@pytest.mark.parametrize("name", ["app", "migrate"])
def test_compose_tells_what_the_service_takes(name: str) -> None:
    compose: dict[str, Any] = yaml.safe_load((HERE / "compose.yml").read_text("utf-8"))
    settings = load_settings({k: substituted(v) for k, v in compose["services"][name]["environment"].items()})
    assert (settings.profile, settings.mail_channel) == ("production", "smtp")
    grace = int(compose["services"]["app"]["stop_grace_period"].removesuffix("s"))
    assert grace > settings.drain_seconds.total_seconds() + MARGIN


def substituted(value: str) -> str:
    """As compose does it, where nothing is set but what has to be."""
    value = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)
    return re.sub(r"\$\{\w+:\?[^}]*\}", "x" * 40, value)


def test_the_image_is_told_what_the_service_takes() -> None:
    dockerfile = (HERE / "Dockerfile").read_text("utf-8")
    told = dict(re.findall(r"(REGSVC_\w+)=(\S+)", dockerfile))
    settings = load_settings(told)
    assert (settings.host, str(settings.data_dir)) == ("0.0.0.0", "/var/lib/regsvc")  # noqa: S104 - inside a container
    assert f"EXPOSE {settings.port}" in dockerfile
