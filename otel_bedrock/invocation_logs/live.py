"""Live: what the metrics of instrumented processes say, asked of Prometheus.

A window's tokens are, for each series, its last value in the window less its last one before it;
a series that began in the window is counted whole, from its first sample on. That is exact, where
`increase()` takes the first sample for nothing and makes up what lies beyond the last.
"""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from http.client import HTTPException
from typing import Any

HOUR = timedelta(hours=1)
# What is compared -> the series in Prometheus; calls that failed have no tokens to compare.
METRICS: Mapping[str, tuple[str, ...]] = {
    "requests": (
        'gen_ai_client_inference_duration_seconds_count{error_type=""%s}',
        'gen_ai_client_embeddings_duration_seconds_count{error_type=""%s}',
    ),
    "input_tokens": ('gen_ai_client_inference_usage_input_tokens_total{error_type=""%s}',),
    "output_tokens": ('gen_ai_client_inference_usage_output_tokens_total{error_type=""%s}',),
    "cache_read_tokens": (
        'gen_ai_client_inference_usage_cache_read_input_tokens_total{error_type=""%s}',
    ),
    "cache_write_tokens": (
        'gen_ai_client_inference_usage_cache_write_input_tokens_total{error_type=""%s}',
    ),
}
MODEL = "gen_ai_request_model"
_TIMEOUT = 60.0
# How far before a window its series may have had their last sample.
_BEFORE = 3 * 3600
# Of logs there are metrics as well, once they are ingested: those are not live.
_LIVE = ',bedrock_usage_origin=""'


class PrometheusError(Exception):
    """Prometheus gave no answer, or none that can be used; the message says what it said."""


def expression(selector: str, seconds: int) -> str:
    """Return the PromQL for what the series of a selector gained in so many seconds, by model."""
    now = f"last_over_time({selector}[{seconds}s])"
    before = f"last_over_time({selector}[{_BEFORE}s] offset {seconds}s)"
    again = f"(resets({selector}[{seconds}s]) > 0)"
    gained = f"({now} - ({before} or {now} * 0))"
    return (
        f"sum by ({MODEL}) (({gained} unless {again})"
        # A process that goes on under the same name after a restart: nearly exact.
        f" or (increase({selector}[{seconds}s]) and {again}))"
    )


class Prometheus:
    """Asks a Prometheus, or what speaks its API, for the tokens of windows."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, match: str = "") -> None:
        self._url = url.rstrip("/")
        self._headers = {} if headers is None else dict(headers)
        self._match = f"{_LIVE},{match}" if match else _LIVE

    def by_hour(
        self, first: datetime, hours: int, regions: Iterable[str] = ()
    ) -> dict[tuple[str, datetime], dict[str, int]]:
        """Return counts by model and hour, of `hours` hours from `first` on."""
        found: dict[tuple[str, datetime], dict[str, int]] = {}
        for name, selectors in self._selectors(regions):
            for selector in selectors:
                given = {
                    "query": expression(selector, 3600),
                    "start": str((first + HOUR).timestamp()),
                    "end": str((first + hours * HOUR).timestamp()),
                    "step": "3600",
                }
                for model, at, value in self._ask("query_range", given):
                    hour = datetime.fromtimestamp(at, first.tzinfo) - HOUR
                    _add(found.setdefault((model, hour), {}), name, value)
        return found

    def after(
        self, until: datetime, span: timedelta, regions: Iterable[str] = ()
    ) -> dict[str, dict[str, int]]:
        """Return counts by model that came within `span` after `until`."""
        found: dict[str, dict[str, int]] = {}
        seconds = int(span.total_seconds())
        if seconds <= 0:
            return found
        for name, selectors in self._selectors(regions):
            for selector in selectors:
                given = {
                    "query": expression(selector, seconds),
                    "time": str((until + span).timestamp()),
                }
                for model, _, value in self._ask("query", given):
                    _add(found.setdefault(model, {}), name, value)
        return found

    def _selectors(self, regions: Iterable[str]) -> Iterable[tuple[str, list[str]]]:
        match = self._match
        names = sorted(regions)
        if names:
            # The log is a Region's; series that do not name theirs may be of it.
            match += f',cloud_region=~"{"|".join(names)}|"'
        for name, templates in METRICS.items():
            yield name, [template % match for template in templates]

    def _ask(self, what: str, given: Mapping[str, str]) -> list[tuple[str, float, float]]:
        """Return the samples of an answer: model, time, value."""
        url = f"{self._url}/api/v1/{what}"
        if not url.startswith(("http://", "https://")):
            raise PrometheusError(f"{self._url}: expected a URL with http:// or https://")
        try:
            request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
                url, urllib.parse.urlencode(given).encode(), self._headers
            )
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
                data = json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(2_000).decode(errors="replace")
            raise PrometheusError(f"{url}: {error.code}: {said}") from None
        except (OSError, ValueError, HTTPException) as error:
            raise PrometheusError(f"{url}: {error}") from error
        try:
            return list(_read_samples(data["data"]["result"]))
        except (ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError):
            raise PrometheusError(f"{url}: no result in the answer: {str(data)[:200]}") from None


def _read_samples(series: Iterable[Any]) -> Iterator[tuple[str, float, float]]:
    for one in series:
        model = str(one["metric"].get(MODEL, ""))
        for at, value in one["values"] if "values" in one else [one["value"]]:
            datetime.fromtimestamp(float(at), timezone.utc)  # raises where it is no time
            yield model, float(at), float(value)


def _add(counts: dict[str, int], name: str, value: float) -> None:
    if math.isfinite(value):
        counts[name] = counts.get(name, 0) + round(value)
