"""Settings: one row each in SETTINGS, read from arguments and environment into a Config."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypedDict

from otel_bedrock import setting_values as values
from otel_bedrock.frozen import dataclass
from otel_bedrock.setting_values import NO_CONTENT, Invalid

log = logging.getLogger("otel_bedrock")

SEMCONV_2026_10 = "genai-2026-10"
SEMCONV_141 = "v1.41"
SEMCONV_BOTH = "both"
SEMCONV_LATEST = "latest"


class Settings(TypedDict, total=False):
    """The keyword arguments of `instrument()` that are not providers; see SETTINGS."""

    semconv: str
    metrics: str
    capture_content: str
    time_per_output_chunk: bool
    content_limit: int
    redact: Callable[[str], str]
    body_limit: int
    model_limit: int
    request_metadata_keys: tuple[str, ...]
    attribution_metric_keys: tuple[str, ...]
    attribution_limit: int
    attribution_baggage_keys: tuple[str, ...]
    model_aliases: Mapping[str, str]
    resolve_models: bool
    correlate_logs: bool
    count_before: Callable[[Mapping[str, Any]], bool] | float
    prices: Any
    budget: Any
    burndown: Mapping[str, int]
    quota_limits: Mapping[str, Any] | str


# Comparing is written out below: what dataclass makes for so many fields takes 1 ms to import.
@dataclass(frozen=True, slots=True, eq=False)
class Config:
    """All settings with their values; made by `read_config`, never changed."""

    semconv: str = SEMCONV_2026_10
    metrics: str = "default"
    capture_content: str = NO_CONTENT
    time_per_output_chunk: bool = False
    content_limit: int = 65_536
    redact: Callable[[str], str] | None = None
    body_limit: int = 65_536
    model_limit: int = 200
    request_metadata_keys: tuple[str, ...] = ()
    attribution_metric_keys: tuple[str, ...] = ()
    attribution_limit: int = 100
    attribution_baggage_keys: tuple[str, ...] = ()
    model_aliases: Mapping[str, str] | None = None
    resolve_models: bool = False
    correlate_logs: bool = False
    count_before: Callable[[Mapping[str, Any]], bool] | float | None = None
    prices: Any = None
    budget: Any = None
    burndown: Mapping[str, int] | None = None
    quota_limits: Mapping[str, Mapping[str, int]] | str | None = None
    otlp_endpoint: str | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and all(
            getattr(self, field.name) == getattr(other, field.name) for field in fields(self)
        )

    __hash__ = None  # type: ignore[assignment]  # some of its values are mappings


@dataclass(frozen=True, slots=True, eq=False)
class Setting:
    """One row of SETTINGS: argument, environment variable, parser and one sentence.

    `variable` is empty where only an argument makes sense.
    """

    name: str
    variable: str
    parse: Callable[[Any], Any]
    sentence: str


SETTINGS = (
    Setting(
        "otlp_endpoint",
        "OTEL_BEDROCK_OTLP_ENDPOINT",
        values.endpoint,
        "Base URL of an OTLP endpoint; sets up the OpenTelemetry SDK unless one is set up already.",
    ),
    Setting(
        "semconv",
        "OTEL_BEDROCK_SEMCONV",
        values.choice(SEMCONV_2026_10, SEMCONV_141, SEMCONV_BOTH, SEMCONV_LATEST),
        "The set of names: `genai-2026-10`, `v1.41` (dashboards made before October 2026), `both`,"
        " or `latest`.",
    ),
    Setting(
        "metrics",
        "OTEL_BEDROCK_METRICS",
        values.choice("default", "all", "none"),
        "`all` adds the metrics marked so below; `none` records spans only.",
    ),
    Setting(
        "capture_content",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
        values.content,
        "Whether prompts and completions leave the process: `NO_CONTENT`, `SPAN_ONLY`,"
        " `EVENT_ONLY` or `SPAN_AND_EVENT`.",
    ),
    Setting(
        "content_limit",
        "OTEL_BEDROCK_CONTENT_LIMIT",
        values.whole,
        "Characters of each attribute with content; longer texts in it are cut, and marked.",
    ),
    Setting(
        "redact",
        # A name to import would be imported before the application is there, and one that is
        # not found would have to stop all content.
        "",
        values.function,
        "Function `(str) -> str` that every text of content goes through before it leaves; where"
        " it raises, that content is dropped.",
    ),
    Setting(
        "time_per_output_chunk",
        "OTEL_BEDROCK_TIME_PER_OUTPUT_CHUNK",
        values.flag,
        "Record one histogram point for each chunk of a stream, which doubles a stream's cost.",
    ),
    Setting(
        "body_limit",
        "OTEL_BEDROCK_BODY_LIMIT",
        values.whole,
        "Bytes of an InvokeModel body up to which it is looked at; larger ones are let go of.",
    ),
    Setting(
        "model_limit",
        "OTEL_BEDROCK_MODEL_LIMIT",
        values.whole,
        "Distinct models on metrics; later ones are counted under `other`.",
    ),
    Setting(
        "request_metadata_keys",
        "OTEL_BEDROCK_REQUEST_METADATA_KEYS",
        values.names,
        "Keys of `requestMetadata` that go on the span as `bedrock.request_metadata.<key>`.",
    ),
    Setting(
        "attribution_metric_keys",
        "OTEL_BEDROCK_ATTRIBUTION_METRIC_KEYS",
        values.names,
        "Keys of `attribution()` that go on metrics too, as `bedrock.attribution.<key>`.",
    ),
    Setting(
        "attribution_limit",
        "OTEL_BEDROCK_ATTRIBUTION_LIMIT",
        values.whole,
        "Distinct values of each such key on metrics; later ones are counted under `other`.",
    ),
    Setting(
        "attribution_baggage_keys",
        "OTEL_BEDROCK_ATTRIBUTION_BAGGAGE_KEYS",
        values.names,
        "Keys of W3C baggage that count as attribution, where `attribution()` does not say.",
    ),
    Setting(
        "model_aliases",
        "OTEL_BEDROCK_MODEL_ALIASES",
        values.mapping,
        "What opaque ids stand for: `abc123=anthropic.claude-sonnet-4-6,…` (the profile's id or"
        " its ARN).",
    ),
    Setting(
        "resolve_models",
        "OTEL_BEDROCK_RESOLVE_MODELS",
        values.flag,
        "Ask Bedrock's control plane, in the background and once for each, what opaque ARNs stand"
        " for; needs the IAM action of their kind, such as `bedrock:GetInferenceProfile`.",
    ),
    Setting(
        "count_before",
        "OTEL_BEDROCK_COUNT_BEFORE",
        values.chooser,
        "Which calls to count before they are made, by CountTokens, which delays them: a share from"
        " 0 to 1, or a function `(request) -> bool`.",
    ),
    Setting(
        "correlate_logs",
        "OTEL_BEDROCK_CORRELATE_LOGS",
        values.flag,
        "Send trace and span ids in `requestMetadata` (`otel_trace_id`, `otel_span_id`), so that a"
        " record of Bedrock's invocation log finds its trace; never over the caller's own.",
    ),
    Setting(
        "prices",
        "OTEL_BEDROCK_PRICES",
        values.prices,
        "What calls cost: `genai-prices` (extra `cost`), a JSON file's path, a table or a function"
        " (`otel_bedrock.price_table` describes both).",
    ),
    Setting(
        "budget",
        # It is made of limits, a store and functions.
        "",
        values.budget,
        "A `TokenBudget`: calls that go over its limits are refused before they are sent.",
    ),
    Setting(
        "burndown",
        "OTEL_BEDROCK_BURNDOWN",
        values.factors,
        "Quota tokens that an output token costs, where they differ from the built-in table:"
        " `anthropic.claude-sonnet-4-6=5,…`.",
    ),
    Setting(
        "quota_limits",
        "OTEL_BEDROCK_QUOTA_LIMITS",
        values.limits,
        "Your quotas, for the gauge: `us.amazon.nova-lite-v1:0=400000,…` in tokens a minute (as an"
        ' argument also `{"minute": …, "day": …}`), or `service-quotas` to ask Service Quotas'
        " once, in the background (needs `servicequotas:ListServiceQuotas`).",
    ),
)

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_NAMES = tuple(_BY_NAME)


def default(name: str) -> Any:
    """Return the default of the setting `name`."""
    return next(field.default for field in fields(Config) if field.name == name)


def read_config(arguments: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Config:
    """Make a Config of explicit arguments over environment variables over defaults.

    An argument that is None counts as not given.

    Raises:
        TypeError: an argument is no setting; the message names the settings.
        Invalid: an argument has a value that its setting cannot have. A wrong environment
            value only warns, and its default is taken: raising there would stop every other
            instrumentation of the process.
    """
    environ = os.environ if environ is None else environ
    unknown = [name for name in arguments if name not in _BY_NAME]
    if unknown:
        raise TypeError(
            f"instrument() has no setting {', '.join(map(repr, unknown))};"
            f" its settings are {', '.join(_NAMES)}"
        )
    read: dict[str, Any] = {}
    for setting in SETTINGS:
        given = arguments.get(setting.name)
        if given is not None:
            try:
                read[setting.name] = setting.parse(given)
            except Invalid as error:
                raise Invalid(f"{setting.name}: {error}") from None
        elif setting.variable and environ.get(setting.variable, "").strip():
            try:
                read[setting.name] = setting.parse(environ[setting.variable])
            except Invalid as error:
                log.warning("%s: %s; the default is used", setting.variable, error)
    return Config(**read)


def render() -> str:
    """Return the table of settings as Markdown."""
    lines = ["| setting | environment variable | default | what |", "|---|---|---|---|"]
    for setting in SETTINGS:
        value = default(setting.name)
        shown = "" if value in (None, ()) else f"`{value}`"
        variable = f"`{setting.variable}`" if setting.variable else ""
        lines.append(f"| `{setting.name}` | {variable} | {shown} | {setting.sentence} |")
    return "\n".join(lines) + "\n"
