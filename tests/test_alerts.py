"""Rules, thresholds, runbook and Alertmanager fit each other, and what is really emitted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_bedrock import signals
from otel_bedrock.errors import REFUSALS

ROOT = Path(__file__).parents[1]
COLLECTOR = ROOT / "collector"
RUNBOOK = (COLLECTOR / "runbook.md").read_text()
TEXTS = {path.name: path.read_text() for path in sorted((COLLECTOR / "rules").glob("*.yaml"))}
RULES: list[dict[str, Any]] = [
    rule
    for text in TEXTS.values()
    for group in yaml.safe_load(text)["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if "alert" in rule]
RECORDS = {rule["record"] for rule in RULES if "record" in rule}
QUERIES = re.findall(r"```promql\n(.+?)\n```", RUNBOOK, re.DOTALL)

# Of a metric and of an attribute, as Prometheus has them: dots become underscores.
SUFFIXES = {
    signals.COUNTER: ("_total",),
    signals.GAUGE: ("",),
    signals.HISTOGRAM: ("_bucket", "_sum", "_count"),
}
# Prometheus calls a gauge without a unit a ratio.
UNITS = {"s": "_seconds", "1": "_ratio"}
EMITTED = {
    metric.name.replace(".", "_") + UNITS.get(metric.unit, "") + suffix
    for metric in signals.METRICS
    for suffix in SUFFIXES[metric.kind]
}
# What the resource, Prometheus itself and our own records add to the attributes.
LABELS = {
    *("service_name", "service_instance_id", "instance", "deployment_environment_name"),
    *("le", "alertname", "alertstate", "__name__", "kind", "capped", "otel_metric_overflow"),
}
# Put on metrics by a setting: attributions, quotas, and usage that was not seen in the process.
OPT_IN = {
    *("bedrock_attribution_tenant", "bedrock_attribution_feature"),
    *("bedrock_quota_period", "bedrock_usage_origin"),
}


def named(text: str) -> set[str]:
    """The metrics and records that a text names."""
    return set(
        re.findall(
            r"(?<![\w:.$])(?:gen_ai|bedrock)\w*(?::\w+)+|\b(?:gen_ai|bedrock)_client_\w+"
            r"|\b(?:gen_ai_invoke_agent|bedrock_instrumentation)_\w+",
            text,
        )
    )


def expressions() -> list[str]:
    return [rule["expr"] for rule in RULES] + QUERIES


@pytest.mark.parametrize("text", [*TEXTS.values(), RUNBOOK], ids=[*TEXTS, "runbook"])
def test_every_metric_named_is_one_that_we_emit_or_record(text: str) -> None:
    found = named(text)
    assert found
    assert {name for name in found if name not in EMITTED | RECORDS} == set()


def test_every_record_is_used_or_told_of() -> None:
    """What nobody asks is not worth its series."""
    told = "".join(rule["expr"] for rule in RULES) + "".join(QUERIES)
    readme = (COLLECTOR / "README.md").read_text()
    assert {name for name in RECORDS if name not in told and name not in readme} == set()


def test_every_label_is_an_attribute_that_metrics_have() -> None:
    attributes = {row.key.replace(".", "_") for row in signals.ATTRIBUTES if row.on_metrics} | {
        name.replace(".", "_")
        for name in (signals.TTL, signals.MISSING_REASON, signals.SITE, signals.MODALITY)
    }
    assert attributes
    for expression in expressions():
        for group in re.findall(r"(?:by|without|on)\s*\(([\w, ]*)\)", expression):
            for label in filter(None, re.split(r"[, ]+", group)):
                assert label in attributes | LABELS | OPT_IN, (label, expression)
        for matchers in re.findall(r"\{([^{}]*)\}", expression):
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', "", matchers)):
                assert label in attributes | LABELS | OPT_IN, (label, expression)


def test_every_alert_has_its_heading_and_every_heading_its_alert() -> None:
    assert re.findall(r"(?m)^## (.+)$", RUNBOOK) == [alert["alert"] for alert in ALERTS]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_every_alert_says_what_it_is_how_bad_and_what_to_do(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"collector/runbook.md#{name.lower()}"
    assert alert["labels"]["severity"] in ("page", "ticket", "none")
    section = RUNBOOK.split(f"## {name}\n", 1)[1].split("\n## ", 1)[0]
    for part in ("What to look at:", "What to do:", "```promql"):
        assert part in section, (name, part)
    # Every threshold that the alert has is named where one reads what it means.
    for threshold in re.findall(r"bedrock:threshold:(\w+)", alert["expr"]):
        assert f"`{threshold}`" in section or threshold == "calls", (name, threshold)


def test_every_threshold_is_in_one_file_and_used() -> None:
    thresholds = re.findall(r"record: bedrock:threshold:(\w+)", TEXTS["thresholds.yaml"])
    assert len(thresholds) == len(set(thresholds)) > 15
    used = re.findall(r"bedrock:threshold:(\w+)", TEXTS["alerts.yaml"])
    assert set(thresholds) == set(used)
    for name in ("alerts.yaml", "recording.yaml"):
        assert "record: bedrock:threshold" not in TEXTS[name]


def test_no_number_in_an_alert_is_a_threshold() -> None:
    """Five minutes in seconds, and whether a record is 0, are all that stands in the rules."""
    for alert in ALERTS:
        bare = re.sub(r"\w+:[\w:]+|\{[^}]*\}|offset \w+", "", alert["expr"])
        assert set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?", bare)) <= {"0", "300", "1"}, alert[
            "alert"
        ]


def test_every_increase_counts_the_first_value_of_a_series() -> None:
    """`(m unless last_over_time(m[1h] offset W)) or increase(m[W])`, before any sum."""
    whole = "\n".join(expressions())
    increases = re.findall(r"increase\((\w+)(?:\{[^}]*\})?\[(\w+)\]\)", whole)
    assert len(increases) > 15
    for metric, window in increases:
        first = (
            rf"{metric}(\{{[^}}]*\}})?\s+unless last_over_time\({metric}\[1h\] offset {window}\)"
        )
        assert re.search(first, whole), (metric, window)
    for rule in RULES:
        assert "rate(" not in rule["expr"], "what a series begins with would be lost"


def test_what_was_read_from_logs_is_never_in_a_sum_by_accident() -> None:
    for rule in RULES:
        if not rule.get("record", "").startswith("bedrock_logged:"):
            for metric, matchers in re.findall(
                r"increase\(((?:gen_ai|bedrock_client)_\w+)(\{[^}]*\})?", rule["expr"]
            ):
                assert 'bedrock_usage_origin=""' in matchers, (rule["record"], metric)


def test_alertmanager_inhibits_alerts_that_there_are() -> None:
    text = (COLLECTOR / "alertmanager.yaml").read_text()
    alerts = {alert["alert"] for alert in ALERTS}
    assert set(re.findall(r"Bedrock\w+", text)) <= alerts


def test_models_that_are_refused_are_no_sign_of_too_many() -> None:
    """They are `other` on metrics from the first call on, as are those that nobody answered to."""
    text = (COLLECTOR / "rules/recording.yaml").read_text()
    assert re.findall(r'gen_ai_request_model="other"([^}]*)', text) == [',error_type=""']


def test_the_collector_takes_the_same_models_for_refused() -> None:
    text = (COLLECTOR / "logs.yaml").read_text()
    (found,) = re.findall(r'"other"\) where IsMatch\([^,]+, "\^\(([^)]+)\)\$"\)', text)
    assert set(found.split("|")) == REFUSALS
