"""Rows: what the panels of the dashboards ask, and the sentence that each of them says."""

from __future__ import annotations

from panels import Panel, Query
from promql import (
    LOGGED,
    MODEL,
    PER_HOUR,
    PER_MINUTE,
    RANGE,
    calls,
    name,
    quantile,
    tokens,
    total,
    total_or_none,
    uncached,
)

OVERVIEW, BY_MODEL, BY_TENANT = "otel-bedrock", "otel-bedrock-model", "otel-bedrock-tenant"

_NO_CACHE = "No data where no call used prompt caching."
_NO_PRICES = "No data unless the setting `prices` is given."
NO_TENANT = "Tenants are told apart where the setting `attribution_metric_keys` names `tenant`."
_ONE_SERVICE = "Choose one service above: Jaeger searches one at a time."
_EXEMPLARS = "The dots are single calls: a click leads to the trace."
_REASON = "bedrock_usage_missing_reason"
_OK, _FAILED = 'error_type=""', 'error_type!=""'
_CLAUDE = 'bedrock_model_base_id=~"anthropic[.].+"'
_LONG_TTL = f'{_CLAUDE},bedrock_cache_ttl="1h"'
_SHORT_TTL = f'{_CLAUDE},bedrock_cache_ttl!="1h"'
_BURNDOWN = f'max by ({MODEL}) ({name("burndown")}{{{MODEL}=~"$model"}})'
_LIMIT = f'max by ({MODEL}) ({name("limit")}{{{MODEL}=~"$model",bedrock_quota_period="minute"}})'
_QUOTA = (
    f"clamp_min({total('input', MODEL)} - {total_or_none('cache_read', 'input', MODEL)}, 0)"
    f" + {total_or_none('output', 'input', MODEL)} * on ({MODEL}) {_BURNDOWN}"
)


def _lines(label: str, expr: str, *, exemplars: bool = False) -> tuple[Query, ...]:
    """Return the query of a panel with one line for each value of `label`."""
    return (Query(expr, f"{{{{{label}}}}}", exemplars),)


# fmt: off
def stats() -> tuple[Panel, ...]:
    """Return the figures of the whole time range."""
    read, whole = total("cache_read", window=RANGE), total("input", window=RANGE)
    short = total("cache_write", where=_SHORT_TTL, window=RANGE)
    long = total("cache_write", where=_LONG_TTL, window=RANGE)
    saved = (
        f"0.9 * {total('cache_read', where=_CLAUDE, window=RANGE)}"
        f" - (0.25 * {short} or vector(0)) - ({long} or vector(0))"
    )
    failed = f"{calls(where=_FAILED, window=RANGE)} / {calls(window=RANGE)}"
    rows = (
        ("Tokens", "Input and output tokens of the whole time range.",
         tokens(window=RANGE), "short"),
        ("Calls", "Calls of models in the time range, failed ones too.",
         calls(window=RANGE), "short"),
        ("Cost", f"US dollars in the time range, of calls whose price is known. {_NO_PRICES}",
         total("cost", window=RANGE), "currencyUSD"),
        ("Input from the cache",
         f"Share of the input tokens that were read from the prompt cache. {_NO_CACHE}",
         f"{read} / {whole}", "percentunit"),
        ("Saved by the cache",
         "Claude only, in input tokens, at its price ratios: a read costs a tenth of an input"
         " token, a write 1.25 or, kept for an hour, 2. Below zero the cache costs more than it"
         f" saves. {_NO_CACHE}",
         saved, "short"),
        ("Calls that failed",
         "Share of the calls that ended with an error, throttled ones too. No data where none"
         " failed.",
         failed, "percentunit"),
    )
    return tuple(
        Panel(title, sentence, "stat", (Query(expr),), unit, width=4, height=4)
        for title, sentence, expr, unit in rows
    )


def table(what: str, label: str, leads_to: str, note: str = "") -> Panel:
    """Return the figures of the time range, a row for each value of `label`."""
    columns = (
        ("Input", total("input", label, window=RANGE), "short"),
        ("From cache", total_or_none("cache_read", "input", label, window=RANGE), "short"),
        ("To cache", total_or_none("cache_write", "input", label, window=RANGE), "short"),
        ("Output", total_or_none("output", "input", label, window=RANGE), "short"),
        ("Calls", calls(label, window=RANGE), "short"),
        ("Cost", total("cost", label, window=RANGE), "currencyUSD"),
    )
    return Panel(
        f"The time range by {what}",
        f"A click on a {what} leads to its own page. Costs: {_NO_PRICES[0].lower()}"
        f"{_NO_PRICES[1:]} {note}".strip(),
        "table",
        tuple(Query(expr) for _, expr, _ in columns),
        columns=tuple((column, unit) for column, _, unit in columns),
        label=label,
        leads_to=leads_to,
    )


def token_lines(label: str, what: str, note: str = "") -> Panel:
    """Return tokens a minute, a line for each value of `label`."""
    return Panel(
        f"Tokens a minute by {what}", f"Input and output; the ten largest. {note}".strip(),
        "timeseries", _lines(label, f"topk(10, {tokens(label)} {PER_MINUTE})"), stacked=True,
    )


def cost_lines(label: str, what: str, note: str = "") -> Panel:
    """Return the cost of an hour, a line for each value of `label`."""
    return Panel(
        f"Cost an hour by {what}",
        f"US dollars, of calls whose price is known; the ten dearest. {_NO_PRICES} {note}".strip(),
        "timeseries", _lines(label, f"topk(10, {total('cost', label)} {PER_HOUR})"),
        "currencyUSD", stacked=True,
    )


BY_KIND = Panel(
    "Tokens a minute by kind",
    "Every token once: input here is what the cache had no part in. A kind that is not there was"
    " not reported.",
    "timeseries",
    (
        Query(f"{uncached()} {PER_MINUTE}", "input, uncached"),
        Query(f"{total('cache_read')} {PER_MINUTE}", "cache read"),
        Query(f"{total('cache_write')} {PER_MINUTE}", "cache write"),
        Query(f"{total('output')} {PER_MINUTE}", "output"),
    ),
    stacked=True,
)

CACHE = (
    Panel("Input from the cache by model",
          f"Share of the input tokens that were read from it. {_NO_CACHE}", "timeseries",
          _lines(MODEL, f"{total('cache_read', MODEL)} / {total('input', MODEL)}"), "percentunit"),
    Panel("Cache reads for each token written",
          "How often a token that was written is read again. Claude's writes pay for themselves"
          f" from about 0.28, those kept for an hour from 1.1. {_NO_CACHE}", "timeseries",
          _lines(MODEL, f"{total('cache_read', MODEL)} / ({total('cache_write', MODEL)} > 0)")),
)

SIZES = tuple(
    Panel(f"{what} tokens of a call",
          "Of calls that succeeded. The dots are single calls: the way to a trace of over so many"
          " tokens, for which Jaeger has no search.", "timeseries",
          tuple(Query(quantile(share, key), f"p{share * 100:g}", True) for share in (0.5, 0.95)))
    for what, key in (("Input", "operation_input"), ("Output", "operation_output"))
)

LATENCY = (
    Panel("Duration of a call",
          f"As the caller waits: retries are in it, and all of a stream. {_EXEMPLARS}",
          "timeseries",
          tuple(Query(quantile(share, "inference_duration"), f"p{share * 100:g}", True)
                for share in (0.5, 0.95, 0.99)), "s"),
    Panel("Duration by model, p95", f"One call in twenty takes longer. {_EXEMPLARS}", "timeseries",
          _lines(MODEL, quantile(0.95, "inference_duration", MODEL), exemplars=True), "s"),
    Panel("Time to first chunk by model, p95",
          f"One stream in twenty begins later. No data where nothing streams. {_EXEMPLARS}",
          "timeseries",
          _lines(MODEL, quantile(0.95, "time_to_first_chunk", MODEL), exemplars=True), "s"),
    Panel("Time for each output token by model, median",
          "Of streams, from first to last chunk. No data where nothing streams.", "timeseries",
          _lines(MODEL, quantile(0.5, "time_per_output_token", MODEL)), "s"),
)

ERRORS = (
    Panel("Calls a minute by how they ended", "Without an error, or with Bedrock's error code.",
          "timeseries",
          (Query(f"{calls(where=_OK)} {PER_MINUTE}", "without error"),
           *_lines("error_type", f"{calls('error_type', _FAILED)} {PER_MINUTE}")), stacked=True),
    Panel("Calls a minute without usage",
          "Calls whose tokens Bedrock never told: every total lacks them. No data is as it should"
          " be.", "timeseries",
          _lines(_REASON, f"{total('missing', _REASON)} {PER_MINUTE}"), stacked=True),
)

QUOTAS = (
    Panel("Quota tokens a minute by model",
          "What Bedrock settles against the quota: input that was not read from the cache, and"
          " output times the model's burndown. A mean of minutes: peaks are higher. A model whose"
          " burndown is not known is left out.", "timeseries",
          _lines(MODEL, f"({_QUOTA}) {PER_MINUTE}")),
    Panel("Quota in use by model",
          "Quota tokens over the limit; near 100 % Bedrock throttles. No data unless the setting"
          " `quota_limits` tells the limit.", "timeseries",
          _lines(MODEL, f"({_QUOTA}) {PER_MINUTE} / on ({MODEL}) {_LIMIT}"), "percentunit"),
    Panel("Quota tokens a minute by model: steady and peak",
          "The mean and the peak of the hour before, of all services, as AWS asks for it when more"
          " quota is wanted. No data unless the recording rules are loaded.", "timeseries",
          tuple(
              Query(f'max by ({MODEL}) (bedrock_quota:tokens:per_minute_{record}'
                    f'{{{MODEL}=~"$model"}})', f"{word}, {{{{{MODEL}}}}}")
              for word, record in (("steady", "mean1h"), ("peak", "max1h"))
          )),
)

TOLD_BY_LOGS = Panel(
    "Tokens that invocation logs tell",
    "By origin and model, in the time range: calls of the console and of other programs, and maybe"
    " those above once more, so the two are never added. No data unless logs are read in.",
    "timeseries",
    tuple(
        Query(f"{total(key, f'bedrock_usage_origin, {MODEL}', chosen=LOGGED)} {PER_MINUTE}",
              f"{key}, {{{{bedrock_usage_origin}}}}, {{{{{MODEL}}}}}")
        for key in ("input", "output")
    ),
    width=24,
)


def traces(tags: str) -> tuple[Panel, ...]:
    """Return searches for traces; `tags` are what the page has chosen."""
    return (
        Panel("Traces with the chosen error",
              "The latest twenty with the error that is chosen above. No data where no call failed."
              f" {_ONE_SERVICE}", "traces", tags=f'error.type="$error" {tags}'.strip()),
        Panel("Traces with a slow call",
              f"The latest twenty with a call of over 10 s. {_ONE_SERVICE}", "traces", tags=tags,
              min_duration="10s"),
    )
# fmt: on
