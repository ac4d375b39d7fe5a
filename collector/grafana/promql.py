"""PromQL: what panels ask, so that the first value of a series is in every sum.

Metric names come from the table of what is emitted, so that a dashboard cannot ask for a metric
that nobody records.
"""

from __future__ import annotations

from otel_bedrock import signals

MODEL = "gen_ai_request_model"
TENANT = "bedrock_attribution_tenant"
# Calls that a process saw. What invocation logs tell has an origin, and may be the same calls.
SEEN = f'service_name=~"$service",{MODEL}=~"$model",{TENANT}=~"$tenant",bedrock_usage_origin=""'
LOGGED = f'{MODEL}=~"$model",bedrock_usage_origin!=""'

WINDOW = "$__rate_interval"
RANGE = "$__range"
PER_MINUTE = "/ $__rate_interval_ms * 60000"
PER_HOUR = "/ $__rate_interval_ms * 3600000"

_METRICS = {metric.key: metric for metric in signals.METRICS}
# What Prometheus appends: for the unit (`1` for gauges alone), then for the kind.
_UNITS = {"s": "_seconds", "1": "_ratio"}


def name(key: str) -> str:
    """Return what Prometheus calls the metric of `signals.METRICS` with this key."""
    metric = _METRICS[key]
    words = metric.name.replace(".", "_") + _UNITS.get(metric.unit, "")
    return words + ("_total" if metric.kind == signals.COUNTER else "")


def grown(
    key: str, *, suffix: str = "", where: str = "", window: str = WINDOW, chosen: str = SEEN
) -> str:
    """Return what each series of a counter grew by in `window`, its first value included.

    increase() alone sees nothing in a series' first value, which for a model that is called once
    is all there is. The hour behind the offset tells a new series from one that had a gap.
    """
    selector = f"{chosen},{where}" if where else chosen
    series = f"{name(key)}{suffix}{{{selector}}}"
    return (
        f"((last_over_time({series}[{window}])"
        f" unless last_over_time({series}[1h] offset {window}))"
        f" or increase({series}[{window}]))"
    )


def total(key: str, by: str = "", **more: str) -> str:
    """Return the sum of `grown`, by a label where one is given."""
    return f"sum{f' by ({by}) ' if by else ''}({grown(key, **more)})"


def total_or_none(key: str, of: str, by: str = "", **more: str) -> str:
    """Return the same, and 0 where only the metric `of` is there: a model without a cache."""
    return f"({total(key, by, **more)} or 0 * {total(of, by, window=more.get('window', WINDOW))})"


def tokens(by: str = "", **more: str) -> str:
    """Return all tokens, input and output; embeddings have no output."""
    return f"({total('input', by, **more)} + {total_or_none('output', 'input', by, **more)})"


def uncached(by: str = "", **more: str) -> str:
    """Return the input that the cache had no part in."""
    read = total_or_none("cache_read", "input", by, **more)
    written = total_or_none("cache_write", "input", by, **more)
    return f"clamp_min({total('input', by, **more)} - {read} - {written}, 0)"


def calls(by: str = "", where: str = "", window: str = WINDOW) -> str:
    """Return the calls of models, embeddings too; their durations are two metrics."""
    both = (
        grown(key, suffix="_count", where=where, window=window)
        for key in ("inference_duration", "embeddings_duration")
    )
    return f"sum{f' by ({by}) ' if by else ''}({' or '.join(both)})"


def quantile(share: float, key: str, by: str = "") -> str:
    """Return a quantile of a histogram, with the first calls of a series in it."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) ({grown(key, suffix='_bucket')}))"
