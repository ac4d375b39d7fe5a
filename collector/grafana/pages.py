"""Pages: TABLE of the dashboards and their rows; `build` writes them as JSON."""

from __future__ import annotations

from dataclasses import dataclass, replace

import rows
from panels import PROMETHEUS, Json, Panel, Query, render
from promql import MODEL, TENANT, name
from rows import BY_MODEL, BY_TENANT, OVERVIEW

TAG = "otel-bedrock"


@dataclass(frozen=True, slots=True)
class Page:
    """One dashboard: `chosen` names the variable that has one value here, if one has."""

    name: str
    title: str
    description: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    chosen: str = ""


PAGES = (
    Page(
        OVERVIEW,
        "Amazon Bedrock: overview",
        "Tokens, cost, cache, latency, errors and quota of every call that was seen.",
        (
            ("", rows.stats()),
            (
                "Tokens",
                (
                    rows.BY_KIND,
                    rows.token_lines(MODEL, "model"),
                    rows.token_lines(TENANT, "tenant", rows.NO_TENANT),
                    rows.TOLD_BY_LOGS,
                ),
            ),
            (
                "Cost",
                (
                    rows.cost_lines(MODEL, "model"),
                    rows.cost_lines(TENANT, "tenant", rows.NO_TENANT),
                ),
            ),
            (
                "Who and what",
                (
                    rows.table("model", MODEL, BY_MODEL),
                    rows.table("tenant", TENANT, BY_TENANT, rows.NO_TENANT),
                ),
            ),
            ("Cache", rows.CACHE),
            ("Latency", rows.LATENCY),
            ("Sizes", rows.SIZES),
            ("Errors", rows.ERRORS),
            ("Quota", rows.QUOTAS),
            ("Traces", rows.traces("")),
        ),
    ),
    Page(
        BY_MODEL,
        "Amazon Bedrock: one model",
        "What one model is used for, what it costs, and how it answers.",
        (
            ("", rows.stats()),
            ("Tokens", (rows.BY_KIND, rows.token_lines(TENANT, "tenant", rows.NO_TENANT))),
            ("Cost and quota", (rows.cost_lines(TENANT, "tenant", rows.NO_TENANT), *rows.QUOTAS)),
            ("Cache", rows.CACHE),
            ("Latency", rows.LATENCY),
            ("Sizes", rows.SIZES),
            ("Errors", rows.ERRORS),
            ("Traces", rows.traces('gen_ai.request.model="$model"')),
        ),
        chosen="model",
    ),
    Page(
        BY_TENANT,
        "Amazon Bedrock: one tenant",
        "What one tenant uses and costs. Empty unless the setting `attribution_metric_keys`"
        " names `tenant`.",
        (
            ("", rows.stats()),
            ("Tokens", (rows.BY_KIND, rows.token_lines(MODEL, "model"))),
            ("Cost", (rows.cost_lines(MODEL, "model"), rows.table("model", MODEL, BY_MODEL))),
            ("Cache", rows.CACHE),
            ("Latency", rows.LATENCY),
            ("Sizes", rows.SIZES),
            ("Errors", rows.ERRORS),
            ("Traces", rows.traces('bedrock.attribution.tenant="$tenant"')),
        ),
        chosen="tenant",
    ),
)


def render_page(page: Page) -> Json:
    """Return the JSON of a dashboard, as Grafana's provisioning takes it."""
    panels: list[Json] = []
    y = 0
    for title, row in page.rows:
        if title:
            panels.append(_row(title, len(panels) + 1, y))
            y += 1
        x = 0
        for place, panel in enumerate(row):
            last = place == len(row) - 1
            width = 24 - x if last and panel.kind != "stat" else panel.width
            if x + width > 24:
                x, y = 0, y + panel.height
                width = 24 if last else panel.width
            queries = tuple(_exact(page, query) for query in panel.queries)
            panel = replace(panel, width=width, queries=queries)
            panels.append(render(panel, len(panels) + 1, x, y))
            x += width
        y += row[-1].height
    return {
        "uid": page.name,
        "title": page.title,
        "description": page.description,
        "tags": [TAG],
        "editable": False,
        "graphTooltip": 1,
        "schemaVersion": 41,
        "timezone": "browser",
        "refresh": "1m",
        "time": {"from": "now-6h", "to": "now"},
        "links": [
            {
                "title": "Amazon Bedrock",
                "type": "dashboards",
                "tags": [TAG],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "The other pages",
                "url": "",
            }
        ],
        "annotations": {
            "list": [
                {
                    "name": "Alerts",
                    "datasource": PROMETHEUS,
                    "enable": True,
                    "iconColor": "red",
                    "expr": 'ALERTS{alertname=~"Bedrock.+",alertname!="BedrockWatchdog",'
                    'alertstate="firing",service_name=~"$service|"}',
                }
            ]
        },
        "templating": {"list": [_variable(page, row) for row in _VARIABLES]},
        "panels": panels,
    }


def _exact(page: Page, query: Query) -> Query:
    """Compare the page's own variable for equality.

    Grafana escapes for regular expressions only the values of variables that may have several:
    a tenant `acme (EU)` would not match itself.
    """
    label = {name: label for name, _, label in _VARIABLES}.get(page.chosen)
    sought = f'{label}=~"${page.chosen}"'
    return replace(query, expr=query.expr.replace(sought, sought.replace("=~", "=")))


def _row(title: str, number: int, y: int) -> Json:
    return {
        "id": number,
        "title": title,
        "type": "row",
        "collapsed": False,
        "gridPos": {"h": 1, "w": 24, "x": 0, "y": y},
        "panels": [],
    }


# Name, label, and the data source's type or the label of the series that gives the values.
_VARIABLES = (
    ("datasource", "Data source", "prometheus"),
    ("traces", "Traces", "jaeger"),
    ("service", "Service", "service_name"),
    ("model", "Model", MODEL),
    ("tenant", "Tenant", TENANT),
    ("error", "Error of traces", "error_type"),
)


def _variable(page: Page, row: tuple[str, str, str]) -> Json:
    variable, label, values = row
    if values in ("prometheus", "jaeger"):
        return {"name": variable, "label": label, "type": "datasource", "query": values,
                "multi": False, "includeAll": False, "refresh": 1, "hide": 0}  # fmt: skip
    scope = "" if variable == "service" else '{service_name=~"$service"}'
    metric = name("inference_duration") + "_count" if variable == "error" else name("input")
    query = f"label_values({metric}{scope}, {values})"
    found: Json = {
        "name": variable,
        "label": label,
        "type": "query",
        "datasource": PROMETHEUS,
        "query": {"qryType": 1, "query": query, "refId": "values"},
        "refresh": 2,
        "sort": 1,
        "hide": 0,
        "multi": False,
        "includeAll": False,
    }
    if variable in (page.chosen, "error"):
        return found
    # Jaeger searches one service; of models and tenants several make sense.
    return {
        **found,
        "multi": variable != "service",
        "includeAll": True,
        # Also what has no such label: calls that are nobody's.
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
