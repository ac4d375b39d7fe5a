"""Panels: one row of a table each, and the JSON that Grafana wants of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

PROMETHEUS = {"type": "prometheus", "uid": "${datasource}"}
TRACES = {"type": "jaeger", "uid": "${traces}"}


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel: PromQL, and what its lines are called."""

    expr: str
    legend: str = ""
    exemplars: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; `queries` are PromQL, or of Jaeger where `tags` is there.

    `columns` are those of a table, one for each query, after the label `label`, whose values lead
    to the dashboard `leads_to`.
    """

    title: str
    description: str
    kind: str
    queries: tuple[Query, ...] = ()
    unit: str = "short"
    width: int = 12
    height: int = 8
    stacked: bool = False
    decimals: int | None = None
    columns: tuple[tuple[str, str], ...] = ()
    label: str = ""
    leads_to: str = ""
    tags: str = ""
    min_duration: str = ""


def render(panel: Panel, number: int, x: int, y: int) -> Json:
    """Return the JSON of a panel at its place."""
    return {
        "id": number,
        "title": panel.title,
        "description": panel.description,
        "type": "table" if panel.kind == "traces" else panel.kind,
        "datasource": TRACES if panel.kind == "traces" else PROMETHEUS,
        "gridPos": {"h": panel.height, "w": panel.width, "x": x, "y": y},
        **_KINDS[panel.kind](panel),
    }


def _target(query: Query, place: int) -> Json:
    return {
        "refId": chr(ord("A") + place),
        "datasource": PROMETHEUS,
        "expr": query.expr,
        "editorMode": "code",
        "legendFormat": query.legend,
    }


def _defaults(panel: Panel) -> Json:
    found: Json = {"unit": panel.unit}
    if panel.decimals is not None:
        found["decimals"] = panel.decimals
    return found


def _timeseries(panel: Panel) -> Json:
    custom: Json = {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "fillOpacity": 30 if panel.stacked else 8,
        "showPoints": "auto",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
    }
    return {
        "targets": [
            {**_target(query, place), "range": True, "exemplar": query.exemplars}
            for place, query in enumerate(panel.queries)
        ],
        "fieldConfig": {
            "defaults": {**_defaults(panel), "min": 0, "custom": custom},
            "overrides": [],
        },
        "options": {
            "legend": {
                "showLegend": True,
                "displayMode": "table",
                "placement": "bottom",
                "calcs": ["mean", "max"],
            },
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _stat(panel: Panel) -> Json:
    return {
        "targets": [
            {**_target(query, place), "instant": True, "range": False}
            for place, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": {
            "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""},
            "graphMode": "none",
            "colorMode": "value",
            "justifyMode": "auto",
            "textMode": "auto",
            "orientation": "auto",
            "wideLayout": True,
            "showPercentChange": False,
            "percentChangeColorMode": "standard",
        },
    }


def _table(panel: Panel) -> Json:
    values = [f"Value #{chr(ord('A') + place)}" for place in range(len(panel.queries))]
    named = {value: title for value, (title, _) in zip(values, panel.columns, strict=True)}
    title = panel.title.rpartition(" by ")[2].capitalize()
    link = {
        "title": f"{title}: ${{__value.raw}}",
        "url": f"/d/{panel.leads_to}?var-{title.lower()}=${{__value.raw:percentencode}}"
        "&${datasource:queryparam}&${traces:queryparam}&${service:queryparam}&${__url_time_range}",
    }
    units: Iterable[Json] = (
        {
            "matcher": {"id": "byName", "options": title},
            "properties": [{"id": "unit", "value": unit}],
        }
        for title, unit in panel.columns
    )
    linked: Json = {
        "matcher": {"id": "byName", "options": title},
        "properties": [{"id": "links", "value": [link]}],
    }
    return {
        "targets": [
            {**_target(query, place), "instant": True, "range": False, "format": "table"}
            for place, query in enumerate(panel.queries)
        ],
        "transformations": [
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": {"Time": True},
                    "renameByName": {panel.label: title, **named},
                },
            },
        ],
        "fieldConfig": {
            "defaults": {**_defaults(panel), "custom": {"align": "auto"}},
            "overrides": [linked, *units],
        },
        "options": {
            "showHeader": True,
            "cellHeight": "sm",
            "sortBy": [{"displayName": panel.columns[0][0], "desc": True}],
        },
    }


def _traces(panel: Panel) -> Json:
    query: Json = {
        "refId": "A",
        "datasource": TRACES,
        "queryType": "search",
        "service": "$service",
        "limit": 20,
    }
    if panel.tags:
        query["tags"] = panel.tags
    if panel.min_duration:
        query["minDuration"] = panel.min_duration
    return {
        "targets": [query],
        "fieldConfig": {"defaults": {"unit": "none", "custom": {"align": "auto"}}, "overrides": []},
        "options": {"showHeader": True, "cellHeight": "sm"},
    }


_KINDS: Mapping[str, Any] = {
    "timeseries": _timeseries,
    "stat": _stat,
    "table": _table,
    "traces": _traces,
}
