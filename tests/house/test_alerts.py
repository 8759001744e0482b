"""The alert rules and the dashboard name what there is, and promtool finds them right where it is installed."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from regsvc.http.metrics import labels_of
from regsvc.http.table import routes
from regsvc.observe import EVENTS, layout_of
from regsvc.observe.catalogue import CLASSES, ROOMS
from regsvc.observe.exposition import Exposition
from regsvc.observe.figures import of_cells

HERE: Final = Path(__file__).parents[2]
ALERTS: Final = HERE / "docs" / "alerts.yml"
NAME: Final = re.compile(r"(?<![\w\"/])regsvc[\w:]*\w(?!\w*\")")
MATCH: Final = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (of Prometheus) is not here")


@cache
def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


@cache
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((HERE / "docs" / "grafana.json").read_text("utf-8"))
    return found


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel, those in folded rows too."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", ())


def asked_by_panels() -> list[str]:
    return [target["expr"] for panel in panels(dashboard()) for target in panel.get("targets", ())]


def expressions() -> list[str]:
    return [*(rule["expr"] for rule in rules()), *asked_by_panels()]


@cache
def series() -> set[str]:
    """Every name that the service exposes, with its suffix, and those that the rules record."""
    layout = layout_of(labels_of(routes(development=True)))
    empty = of_cells(layout, [[0.0] * layout.size])
    found = {rule["record"] for rule in rules() if "record" in rule}
    for family in Exposition(empty, "0").collect():
        match family.type:
            case "counter":
                found.add(f"{family.name}_total")
            case "histogram":
                found |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
            case "info":
                found.add(f"{family.name}_info")
            case _:
                found.add(family.name)
    return found


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_names_series_that_there_are(expression: str) -> None:
    named = set(NAME.findall(expression)) - {"regsvc"}
    assert named <= series()
    assert named or "up{" in expression


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_asks_for_labels_that_there_are(expression: str) -> None:
    known: dict[str, set[str]] = {
        "event": set(EVENTS),
        "room": set(ROOMS),
        "route": {f"{route.method} {route.path}" for route in routes(development=True)},
    }
    for label, how, value in MATCH.findall(expression):
        match label:
            case "status":
                assert value in CLASSES or re.fullmatch(r"\[?[1-5\-]+\]?(\.\.|xx)", value)
            case "event" | "room" | "route" if not value.startswith("$"):
                wanted = re.compile(value if "~" in how else re.escape(value))
                found = [name for name in known[label] if wanted.fullmatch(name)]
                assert len(found) >= (1 + value.count("|") if "~" in how else 1), f"{label} {value}"
            case _:
                assert label in {"job", "state", "instance", "le", "event", "room", "route"}, label


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_what_it_is_and_where_to_read_on(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning"}
    about = alert["annotations"]
    assert about.keys() == {"summary", "description", "runbook"}
    assert all(text.endswith((".", alert["alert"].lower())) for text in about.values())
    assert about["runbook"] == f"docs/operations.md#{alert['alert'].lower()}"
    handbook = (HERE / "docs" / "operations.md").read_text("utf-8")
    assert f"\n### {alert['alert']}\n" in handbook


def test_the_handbook_explains_no_alert_that_is_not_there() -> None:
    handbook = (HERE / "docs" / "operations.md").read_text("utf-8")
    assert re.findall(r"^### (Regsvc\w+)$", handbook, re.MULTILINE) == [alert["alert"] for alert in alerts()]


def test_each_alert_has_its_story() -> None:
    stories = yaml.safe_load((HERE / "tests" / "house" / "alerts_test.yml").read_text("utf-8"))["tests"]
    told = [case for story in stories for case in story["alert_rule_test"]]
    assert {case["alertname"] for case in told if case["exp_alerts"]} == {alert["alert"] for alert in alerts()}


@needs_promtool
def test_promtool_takes_the_rules() -> None:
    promtool("check", "rules", str(ALERTS))


@needs_promtool
def test_the_rules_tell_of_the_stories_what_they_should(tmp_path: Path) -> None:
    """Without their words: promtool would want each of them repeated."""
    told = yaml.safe_load(ALERTS.read_text("utf-8"))  # one of our own, to change
    for group in told["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(told))
    shutil.copy(HERE / "tests" / "house" / "alerts_test.yml", tmp_path)
    promtool("test", "rules", str(tmp_path / "alerts_test.yml"))


@needs_promtool
def test_promtool_takes_what_the_dashboard_asks(tmp_path: Path) -> None:
    asked = [re.sub(r"\$__\w+", "5m", text).replace("$instance", "a") for text in asked_by_panels()]
    recorded = [{"record": f"regsvc:panel:{number}", "expr": text} for number, text in enumerate(asked)]
    written = tmp_path / "panels.yml"
    written.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": recorded}]}))
    promtool("check", "rules", str(written))


def promtool(*words: str) -> None:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_one_that_grafana_can_import() -> None:
    board = dashboard()
    numbers = [panel["id"] for panel in panels(board)]
    assert len(set(numbers)) == len(numbers)
    assert board["id"] is None
    assert board["schemaVersion"] >= 39  # of Grafana 11
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for panel in panels(board):
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
            assert panel["description"], panel["title"]
            assert panel["targets"], panel["title"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_no_two_panels_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels(dashboard()):
        place = panel["gridPos"]
        here = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not here & taken, panel["title"]
        assert max(x for x, _ in here) < 24
        taken |= here
