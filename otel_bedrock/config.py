"""Settings: one row each in SETTINGS, read from arguments and environment into a Config."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypedDict
from urllib.parse import urlsplit

from otel_bedrock.frozen import dataclass

log = logging.getLogger("otel_bedrock")

SEMCONV_2026_10 = "genai-2026-10"
SEMCONV_141 = "v1.41"
SEMCONV_BOTH = "both"
SEMCONV_LATEST = "latest"

SERVICE_QUOTAS = "service-quotas"

NO_CONTENT = "NO_CONTENT"
SPAN_ONLY = "SPAN_ONLY"
EVENT_ONLY = "EVENT_ONLY"
SPAN_AND_EVENT = "SPAN_AND_EVENT"


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


class Invalid(ValueError):
    """A setting has a value that it cannot have; the message names both and what is allowed."""


def _choice(*allowed: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in allowed:
            raise Invalid(f"expected one of {', '.join(allowed)}; got {value!r}")
        return str(value)

    return parse


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    found = words.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise Invalid(f"expected true or false; got {value!r}")
    return found


def _whole(value: Any) -> int:
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise Invalid(f"expected a whole number, 0 or more; got {value!r}")
    return number


def seconds(value: Any) -> float:
    """Return `value`, a time in seconds; raise Invalid where it is none."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else -1.0
    # Written so that NaN is refused as well.
    if not number >= 0:
        raise Invalid(f"expected seconds, 0 or more; got {value!r}")
    return number


def _names(value: Any) -> tuple[str, ...]:
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, (list, tuple, set, frozenset)) or not all(
        isinstance(item, str) for item in items
    ):
        raise Invalid(f"expected names, as a list or joined by commas; got {value!r}")
    return tuple(item.strip() for item in items if item.strip())


def _pairs(value: str, expected: str) -> Mapping[str, str]:
    pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
    if not all(sign and key.strip() and name.strip() for key, sign, name in pairs):
        raise Invalid(f"expected {expected} pairs joined by commas; got {value!r}")
    return {key.strip(): name.strip() for key, _, name in pairs}


def _mapping(value: Any) -> Mapping[str, str]:
    if isinstance(value, str):
        return _pairs(value, "id=model")
    if not isinstance(value, Mapping) or not all(
        isinstance(key, str) and isinstance(name, str) for key, name in value.items()
    ):
        raise Invalid(f"expected a mapping from id to model id; got {value!r}")
    return dict(value)


def _factors(value: Any) -> Mapping[str, int]:
    pairs = _pairs(value, "id=factor") if isinstance(value, str) else value
    if not isinstance(pairs, Mapping) or not all(isinstance(key, str) for key in pairs):
        raise Invalid(f"expected a mapping from model id to a whole number; got {value!r}")
    return {key: _whole(number) for key, number in pairs.items()}


def _limits(value: Any) -> Mapping[str, Mapping[str, int]] | str:
    if value == SERVICE_QUOTAS:
        return SERVICE_QUOTAS
    if isinstance(value, str):
        value = _pairs(value, f"{SERVICE_QUOTAS!r} or id=tokens")
    if not isinstance(value, Mapping):
        raise Invalid(f"expected {SERVICE_QUOTAS!r} or a mapping from model id; got {value!r}")
    found = {}
    for model, limit in value.items():
        periods = limit if isinstance(limit, Mapping) else {"minute": limit}
        if not isinstance(model, str) or not set(periods) <= {"minute", "day"}:
            raise Invalid(f"expected model ids with tokens by minute and day; got {value!r}")
        found[model] = {period: _whole(tokens) for period, tokens in periods.items()}
    return found


def _prices(value: Any) -> Any:
    kinds = (str, os.PathLike, Mapping)
    if not isinstance(value, kinds) and not callable(value) and not hasattr(value, "rates"):
        raise Invalid(
            f"expected 'genai-prices', a JSON file's path, a mapping or a function; got {value!r}"
        )
    return value


def _budget(value: Any) -> Any:
    # The class has the method too, and is no budget yet.
    if isinstance(value, type) or not hasattr(value, "reserve"):
        raise Invalid(f"expected a TokenBudget; got {value!r}")
    return value


def _content(value: Any) -> str:
    modes = (NO_CONTENT, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT)
    words = {mode: mode for mode in modes}
    words |= {"TRUE": SPAN_ONLY, "1": SPAN_ONLY, "YES": SPAN_ONLY}
    words |= {"FALSE": NO_CONTENT, "0": NO_CONTENT, "NO": NO_CONTENT, "": NO_CONTENT}
    found = words.get(str(value).strip().upper())
    if found is None:
        raise Invalid(f"expected one of {', '.join(modes)}; got {value!r}")
    return found


def _callable(value: Any) -> Callable[[str], str]:
    if not callable(value):
        raise Invalid(f"expected a function that takes a text and returns one; got {value!r}")
    found: Callable[[str], str] = value
    return found


def _chooser(value: Any) -> Callable[[Mapping[str, Any]], bool] | float:
    if callable(value):
        chooser: Callable[[Mapping[str, Any]], bool] = value
        return chooser
    try:
        share = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError):
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise Invalid(
            "expected a share of the calls between 0 and 1, or a function that takes a request;"
            f" got {value!r}"
        )
    return share


_SIGNAL_PATHS = ("/v1/traces", "/v1/metrics", "/v1/logs")


def _endpoint(value: Any) -> str:
    url = value.strip().rstrip("/") if isinstance(value, str) else ""
    if not _is_url(url):
        raise Invalid(
            "expected the base URL of an OTLP endpoint, such as http://localhost:4318;"
            f" got {value!r}"
        )
    path = next((path for path in _SIGNAL_PATHS if url.endswith(path)), None)
    if path is not None:
        base = url.removesuffix(path)
        raise Invalid(f"expected the base URL, {base}, to which {path} is added; got {value!r}")
    return url


def _is_url(url: str) -> bool:
    if any(map(str.isspace, url)):
        return False
    try:
        parts = urlsplit(url)
        # To ask for the port is what looks at it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


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
        _endpoint,
        "Base URL of an OTLP endpoint; sets up the OpenTelemetry SDK unless one is set up already.",
    ),
    Setting(
        "semconv",
        "OTEL_BEDROCK_SEMCONV",
        _choice(SEMCONV_2026_10, SEMCONV_141, SEMCONV_BOTH, SEMCONV_LATEST),
        "The set of names: `genai-2026-10`, `v1.41` (dashboards made before October 2026), `both`,"
        " or `latest`.",
    ),
    Setting(
        "metrics",
        "OTEL_BEDROCK_METRICS",
        _choice("default", "all", "none"),
        "`all` adds the metrics marked so below; `none` records spans only.",
    ),
    Setting(
        "capture_content",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
        _content,
        "Whether prompts and completions leave the process: `NO_CONTENT`, `SPAN_ONLY`,"
        " `EVENT_ONLY` or `SPAN_AND_EVENT`.",
    ),
    Setting(
        "content_limit",
        "OTEL_BEDROCK_CONTENT_LIMIT",
        _whole,
        "Characters of each attribute with content; longer texts in it are cut, and marked.",
    ),
    Setting(
        "redact",
        # A name to import would be imported before the application is there, and one that is
        # not found would have to stop all content.
        "",
        _callable,
        "Function `(str) -> str` that every text of content goes through before it leaves; where"
        " it raises, that content is dropped.",
    ),
    Setting(
        "time_per_output_chunk",
        "OTEL_BEDROCK_TIME_PER_OUTPUT_CHUNK",
        _flag,
        "Record one histogram point for each chunk of a stream, which doubles a stream's cost.",
    ),
    Setting(
        "body_limit",
        "OTEL_BEDROCK_BODY_LIMIT",
        _whole,
        "Bytes of an InvokeModel body up to which it is looked at; larger ones are let go of.",
    ),
    Setting(
        "model_limit",
        "OTEL_BEDROCK_MODEL_LIMIT",
        _whole,
        "Distinct models on metrics; later ones are counted under `other`.",
    ),
    Setting(
        "request_metadata_keys",
        "OTEL_BEDROCK_REQUEST_METADATA_KEYS",
        _names,
        "Keys of `requestMetadata` that go on the span as `bedrock.request_metadata.<key>`.",
    ),
    Setting(
        "attribution_metric_keys",
        "OTEL_BEDROCK_ATTRIBUTION_METRIC_KEYS",
        _names,
        "Keys of `attribution()` that go on metrics too, as `bedrock.attribution.<key>`.",
    ),
    Setting(
        "attribution_limit",
        "OTEL_BEDROCK_ATTRIBUTION_LIMIT",
        _whole,
        "Distinct values of each such key on metrics; later ones are counted under `other`.",
    ),
    Setting(
        "attribution_baggage_keys",
        "OTEL_BEDROCK_ATTRIBUTION_BAGGAGE_KEYS",
        _names,
        "Keys of W3C baggage that count as attribution, where `attribution()` does not say.",
    ),
    Setting(
        "model_aliases",
        "OTEL_BEDROCK_MODEL_ALIASES",
        _mapping,
        "What opaque ids stand for: `abc123=anthropic.claude-sonnet-4-6,…` (the profile's id or"
        " its ARN).",
    ),
    Setting(
        "resolve_models",
        "OTEL_BEDROCK_RESOLVE_MODELS",
        _flag,
        "Ask Bedrock's control plane, in the background and once for each, what opaque ARNs stand"
        " for; needs the IAM action of their kind, such as `bedrock:GetInferenceProfile`.",
    ),
    Setting(
        "count_before",
        "OTEL_BEDROCK_COUNT_BEFORE",
        _chooser,
        "Which calls to count before they are made, by CountTokens, which delays them: a share from"
        " 0 to 1, or a function `(request) -> bool`.",
    ),
    Setting(
        "correlate_logs",
        "OTEL_BEDROCK_CORRELATE_LOGS",
        _flag,
        "Send trace and span ids in `requestMetadata` (`otel_trace_id`, `otel_span_id`), so that a"
        " record of Bedrock's invocation log finds its trace; never over the caller's own.",
    ),
    Setting(
        "prices",
        "OTEL_BEDROCK_PRICES",
        _prices,
        "What calls cost: `genai-prices` (extra `cost`), a JSON file's path, a table or a function"
        " (`otel_bedrock.price_table` describes both).",
    ),
    Setting(
        "budget",
        # It is made of limits, a store and functions.
        "",
        _budget,
        "A `TokenBudget`: calls that go over its limits are refused before they are sent.",
    ),
    Setting(
        "burndown",
        "OTEL_BEDROCK_BURNDOWN",
        _factors,
        "Quota tokens that an output token costs, where they differ from the built-in table:"
        " `anthropic.claude-sonnet-4-6=5,…`.",
    ),
    Setting(
        "quota_limits",
        "OTEL_BEDROCK_QUOTA_LIMITS",
        _limits,
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
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        given = arguments.get(setting.name)
        if given is not None:
            try:
                values[setting.name] = setting.parse(given)
            except Invalid as error:
                raise Invalid(f"{setting.name}: {error}") from None
        elif setting.variable and environ.get(setting.variable, "").strip():
            try:
                values[setting.name] = setting.parse(environ[setting.variable])
            except Invalid as error:
                log.warning("%s: %s; the default is used", setting.variable, error)
    return Config(**values)


def render() -> str:
    """Return the table of settings as Markdown."""
    lines = ["| setting | environment variable | default | what |", "|---|---|---|---|"]
    for setting in SETTINGS:
        value = default(setting.name)
        shown = "" if value in (None, ()) else f"`{value}`"
        variable = f"`{setting.variable}`" if setting.variable else ""
        lines.append(f"| `{setting.name}` | {variable} | {shown} | {setting.sentence} |")
    return "\n".join(lines) + "\n"
