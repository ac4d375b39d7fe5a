"""Grafana: the dashboards are what their table says, fit its schema, and keep a linter's rules.

The rules are those of grafana/dashboard-linter, which no Go proxy serves; what a query answers is
tested end to end, in e2e/test_dashboards.py.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pages import PAGES, render_page
from promql import name as metric_name

from otel_bedrock import signals

GRAFANA = Path(__file__).parent.parent / "collector/grafana"
DASHBOARDS = {
    path.stem: json.loads(path.read_text()) for path in (GRAFANA / "dashboards").glob("*.json")
}
PANELS = [
    (name, panel)
    for name, dashboard in DASHBOARDS.items()
    for panel in dashboard["panels"]
    if panel["type"] != "row"
]
IDS = [f"{name}: {panel['title']}" for name, panel in PANELS]
UNITS = {"short", "none", "s", "percentunit", "currencyUSD"}
METRIC = re.compile(r"\b((?:gen_ai|bedrock)_[a-z0-9_]+)\{")


RECORD = re.compile(r"\b(bedrock_\w*:[\w:]+)")


def _records():
    rules = yaml.safe_load((GRAFANA.parent / "rules/recording.yaml").read_text())
    return {rule["record"] for group in rules["groups"] for rule in group["rules"]}


def test_the_files_are_what_the_table_says():
    assert sorted(DASHBOARDS) == sorted(page.name for page in PAGES)
    for page in PAGES:
        assert render_page(page) == DASHBOARDS[page.name], "run collector/grafana/build"


def test_build_says_which_file_is_stale(tmp_path):
    for path in ("build", "pages.py", "panels.py", "promql.py", "rows.py"):
        (tmp_path / path).write_bytes((GRAFANA / path).read_bytes())
    (tmp_path / "dashboards").mkdir()
    command = [sys.executable, tmp_path / "build"]
    missing = subprocess.run([*command, "--check"], capture_output=True, text=True)
    assert missing.returncode == 1
    assert "otel-bedrock-model.json" in missing.stderr
    assert not any((tmp_path / "dashboards").iterdir())
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert subprocess.run([*command, "--check"], capture_output=True).returncode == 0
    for path in (GRAFANA / "dashboards").iterdir():
        assert (tmp_path / "dashboards" / path.name).read_text() == path.read_text()


# --- Schema: what Grafana's own SDK makes of a dashboard is what we wrote -------------------


def _leaves(found, at=""):
    """Yield what is said, by its place; empty lists and objects say nothing."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield from _leaves(value, f"{at}.{key}")
    elif isinstance(found, list):
        for place, value in enumerate(found):
            yield from _leaves(value, f"{at}[{place}]")
    else:
        yield at, found


def _unknown(dashboard):
    """Return what of a dashboard the SDK's models do not know, or understand differently."""
    pytest.importorskip(
        "grafana_foundation_sdk", reason="grafana-foundation-sdk needs Python 3.11 or newer"
    )
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    understood = json.loads(
        JSONEncoder().encode(Dashboard.from_json(json.loads(json.dumps(dashboard))))
    )
    return sorted(set(_leaves(dashboard)) - set(_leaves(understood)))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_fits_the_schema(name):
    assert _unknown(DASHBOARDS[name]) == []


def test_what_does_not_fit_the_schema_is_found():
    page = json.loads(json.dumps(DASHBOARDS["otel-bedrock"]))
    panel = next(panel for panel in page["panels"] if panel["type"] == "timeseries")
    panel["titel"] = "misspelt"
    panel["targets"][0]["legend"] = "misspelt"
    panel["options"]["legend"]["place"] = "misspelt"
    assert len(_unknown(page)) == 3


# --- The linter's rules ---------------------------------------------------------------------


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_is_read_only_and_has_no_ids_of_a_database(name):
    dashboard = DASHBOARDS[name]
    assert dashboard["editable"] is False
    assert "id" not in dashboard
    assert dashboard["uid"] == name
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(numbers) == len(set(numbers))
    uids = {
        ref["uid"]
        for panel in dashboard["panels"]
        for ref in [panel.get("datasource"), *(t["datasource"] for t in panel.get("targets", ()))]
        if ref
    }
    assert uids == {"${datasource}", "${traces}"}


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_variables_are_there_and_read_anew_with_the_time_range(name):
    variables = {row["name"]: row for row in DASHBOARDS[name]["templating"]["list"]}
    assert list(variables) == ["datasource", "traces", "service", "model", "tenant", "error"]
    assert [variables[key]["type"] for key in variables] == ["datasource"] * 2 + ["query"] * 4
    for row in variables.values():
        assert row["label"]
        if row["type"] == "query":
            assert row["refresh"] == 2
            assert row["datasource"]["uid"] == "${datasource}"
            asked = re.search(r"label_values\((\w+)", row["query"]["query"])
            known = {metric_name(metric.key) for metric in signals.METRICS}
            assert asked[1].removesuffix("_count") in known


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_side_by_side_and_none_over_another(name):
    taken = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=IDS)
def test_a_panel_says_what_it_shows_in_a_unit(name, panel):
    assert panel["title"]
    assert re.fullmatch(r"[A-Z].+[.]", panel["description"])
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=IDS)
def test_a_query_sees_first_values_and_never_adds_logs_to_live_calls(name, panel):
    for target in panel["targets"]:
        expr = target.get("expr")
        if expr is None:
            assert target["queryType"] == "search"
            assert "$service" in target["service"]
            continue
        series = r"(\w+\{[^}]*\})"
        window = r"\[(\$__rate_interval|\$__range)\]"
        safe = re.compile(
            rf"\(\(last_over_time\({series}{window}\) unless last_over_time\(\1\[1h\] offset \2\)\)"
            rf" or increase\(\1\[\2\]\)\)"
        )
        if RECORD.search(expr):
            assert set(RECORD.findall(expr)) <= _records()
            assert not re.search(r"\[|gen_ai_client", expr)
            continue
        found = safe.findall(expr)
        assert found
        rest = safe.sub("", expr)
        # What is left asks gauges at most, and no function that misses a first value.
        assert not re.search(r"\b(i?rate|i?delta|increase)\b", rest)
        gauges = {metric_name(m.key) for m in signals.METRICS if m.kind == signals.GAUGE}
        assert set(METRIC.findall(rest)) <= gauges
        origins = {re.search(r'bedrock_usage_origin(!?="")', selector)[1] for selector, _ in found}
        assert origins == ({'!=""'} if "logs tell" in panel["title"] else {'=""'})
        if "$__rate_interval" in {window for _, window in found} and "minute" in panel["title"]:
            assert "/ $__rate_interval_ms * 60000" in expr


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=IDS)
def test_a_query_names_metrics_that_are_emitted(name, panel):
    known = {metric_name(metric.key) for metric in signals.METRICS}
    for target in panel["targets"]:
        for found in METRIC.findall(target.get("expr", "")):
            assert re.sub(r"_(bucket|count)$", "", found) in known


def test_links_lead_to_pages_that_are_there():
    links = re.findall(r'"/d/([\w-]+)\?', json.dumps(list(DASHBOARDS.values())))
    assert links
    assert set(links) <= set(DASHBOARDS)


# --- Provisioning ---------------------------------------------------------------------------


def test_the_data_sources_are_of_the_types_that_dashboards_ask_for():
    found = yaml.safe_load((GRAFANA / "provisioning/datasources/bedrock.yaml").read_text())
    sources = {source["uid"]: source for source in found["datasources"]}
    assert {source["type"] for source in sources.values()} == {"prometheus", "jaeger"}
    prometheus = next(source for source in sources.values() if source["type"] == "prometheus")
    (dots,) = prometheus["jsonData"]["exemplarTraceIdDestinations"]
    assert sources[dots["datasourceUid"]]["type"] == "jaeger"
    jaeger = sources[dots["datasourceUid"]]["jsonData"]["tracesToMetrics"]
    assert sources[jaeger["datasourceUid"]] is prometheus
    known = {metric_name(metric.key) for metric in signals.METRICS}
    for query in jaeger["queries"]:
        assert set(METRIC.findall(query["query"])) <= known
        # Provisioning reads $x as a variable of the environment.
        assert "$" not in query["query"].replace("$$", "")


def test_the_provider_reads_the_folder_that_compose_mounts():
    found = yaml.safe_load((GRAFANA / "provisioning/dashboards/bedrock.yaml").read_text())
    (provider,) = found["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/etc/bedrock/grafana/dashboards"


def test_a_page_compares_its_own_variable_for_equality():
    """Grafana escapes for regular expressions only the values of what may have several."""
    for page in PAGES:
        variables = {row["name"]: row for row in DASHBOARDS[page.name]["templating"]["list"]}
        asked = json.dumps(DASHBOARDS[page.name]["panels"])
        for name, row in variables.items():
            if not (row["multi"] or row["includeAll"]):
                assert f'=~\\"${name}\\"' not in asked
