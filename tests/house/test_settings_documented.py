"""Whatever documents tell of settings is what the settings themselves say."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from regsvc.cli.told import env_example, variables_table
from regsvc.http.door import Limits
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
    [
        "README.md",
        "compose.yml",
        "Dockerfile",
        ".github/CONTRIBUTING.md",
        ".github/workflows/ci.yml",
        "CHANGELOG.md",
        "docs/regsvc.service",
    ],
)
def test_no_document_names_a_variable_that_is_not_there(name: str) -> None:
    told = set(TOLD.findall((HERE / name).read_text("utf-8")))
    assert told <= KNOWN


@pytest.mark.parametrize("name", ["app1", "app2", "migrate"])
def test_compose_tells_what_the_service_takes(name: str) -> None:
    service = compose()["services"][name]
    settings = load_settings(service["environment"])
    assert (settings.profile, settings.mail_channel, settings.rate_limit_store) == ("production", "smtp", "postgres")
    if name != "migrate":
        grace = int(service["stop_grace_period"].removesuffix("s"))
        assert grace > (settings.lame_duck_seconds + settings.drain_seconds).total_seconds() + MARGIN


def test_compose_can_count_limits_in_redis() -> None:
    file = compose(REGSVC_RATE_LIMIT_STORE="redis")
    settings = load_settings(file["services"]["app1"]["environment"])
    assert settings.rate_limit_store == "redis"
    assert settings.redis_url is not None
    assert "redis" in file["services"][settings.redis_url.reveal().partition("//")[2].partition(":")[0]]["profiles"]
    assert "redis" in file["services"]["app1"]["build"]["args"]["EXTRAS"]


def test_the_extras_of_the_image_are_there() -> None:
    project = tomllib.loads((HERE / "pyproject.toml").read_text("utf-8"))["project"]
    [default] = re.findall(r"^ARG EXTRAS=(\S*)$", (HERE / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert set(default.split(",")) <= project["optional-dependencies"].keys()
    assert default == compose()["services"]["app1"]["build"]["args"]["EXTRAS"]


def test_compose_believes_its_proxy_and_nobody_else() -> None:
    file = compose()
    on_front = {name for name, service in file["services"].items() if "front" in service.get("networks", ())}
    assert on_front == {"app1", "app2", "proxy"}
    [subnet] = file["networks"]["front"]["ipam"]["config"]
    settings = load_settings(file["services"]["app1"]["environment"])
    assert [str(network) for network in settings.trusted_proxies] == [subnet["subnet"]]


def test_compose_has_the_proxy_notice_who_leaves_before_he_is_gone() -> None:
    """It looks each interval and waits the timeout at most; then its idle connections end by themselves."""
    file = compose()
    [text] = [config["content"] for config in file["configs"].values()]
    seconds = {name: int(found) for name, found in re.findall(r"^\s*(\w+) (\d+)s$", text, re.MULTILINE)}
    settings = load_settings(file["services"]["app1"]["environment"])
    noticed = seconds["health_interval"] + seconds["health_timeout"] + seconds["keepalive"]
    assert settings.lame_duck_seconds.total_seconds() >= noticed
    assert seconds["keepalive"] < Limits().idle


def compose(**given: str) -> dict[str, Any]:
    """compose.yml, as compose reads it where nothing is set but `given` and what has to be."""
    file: dict[str, Any] = substituted(yaml.safe_load((HERE / "compose.yml").read_text("utf-8")), given)
    return file


def substituted(part: Any, given: Mapping[str, str]) -> Any:
    match part:
        case dict():
            return {name: substituted(value, given) for name, value in part.items()}
        case list():
            return [substituted(value, given) for value in part]
        case str():
            part = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: given.get(found[1], found[2]), part)
            return re.sub(r"\$\{\w+:\?[^}]*\}", "x" * 40, part)
        case _:
            return part


def test_the_image_is_told_what_the_service_takes() -> None:
    dockerfile = (HERE / "Dockerfile").read_text("utf-8")
    told = dict(re.findall(r"(REGSVC_\w+)=(\S+)", dockerfile))
    settings = load_settings(told)
    assert (settings.host, str(settings.data_dir)) == ("0.0.0.0", "/var/lib/regsvc")  # noqa: S104 - inside a container
    assert f"EXPOSE {settings.port}" in dockerfile
