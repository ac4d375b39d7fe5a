"""Settings: wrong arguments raise and say what is allowed; wrong variables only warn."""

from __future__ import annotations

import dataclasses
import logging
import typing

import pytest
from opentelemetry.sdk.trace import TracerProvider

import otel_bedrock
from otel_bedrock.config import SETTINGS, Config, Settings, read_config
from otel_bedrock.setting_values import Invalid
from otel_bedrock.testing.capture import capture


def test_every_setting_is_a_row_a_field_and_a_keyword():
    rows = {setting.name for setting in SETTINGS}
    assert rows == {field.name for field in dataclasses.fields(Config)}
    keywords = set(typing.get_type_hints(Settings)) | {"otlp_endpoint"}
    assert rows == keywords
    variables = [setting.variable for setting in SETTINGS if setting.variable]
    assert len(set(variables)) == len(variables)


BAD = [
    ("semconv", "v1.40", "genai-2026-10, v1.41, both, latest"),
    ("metrics", "some", "default, all, none"),
    ("capture_content", "maybe", "NO_CONTENT, SPAN_ONLY, EVENT_ONLY, SPAN_AND_EVENT"),
    ("time_per_output_chunk", "perhaps", "true or false"),
    ("body_limit", "-1", "a whole number"),
    ("model_limit", "many", "a whole number"),
    ("model_aliases", "abc123", "id=model pairs"),
    ("otlp_endpoint", "localhost:4318", "http://localhost:4318"),
    ("otlp_endpoint", "http://[::1", "base URL of an OTLP endpoint"),
    ("otlp_endpoint", "http://localhost:abc", "base URL of an OTLP endpoint"),
    ("otlp_endpoint", "http://localhost:99999", "base URL of an OTLP endpoint"),
    ("otlp_endpoint", "http://local host:4318", "base URL of an OTLP endpoint"),
    ("otlp_endpoint", "https://c/otlp/v1/traces/", "https://c/otlp, to which /v1/traces is added"),
]


# What a variable cannot be, or what is wrong inside.
BAD_ARGUMENTS = [
    ("prices", 5, "expected 'genai-prices', a JSON file's path, a mapping or a function"),
    ("budget", 5, "a TokenBudget"),
    ("budget", otel_bedrock.TokenBudget, "a TokenBudget"),
    ("burndown", "a.b", "id=factor pairs"),
    ("burndown", {"a.b": -1}, "a whole number, 0 or more; got -1"),
    ("burndown", 5, "a mapping from model id to a whole number"),
    ("quota_limits", "service_quotas", "'service-quotas' or id=tokens pairs"),
    ("quota_limits", 5, "'service-quotas' or a mapping"),
    ("quota_limits", {"a.b": {"hour": 1}}, "tokens by minute and day"),
    ("quota_limits", "a.b=many", "a whole number"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD_ARGUMENTS)
def test_an_argument_that_is_wrong_inside_says_what_is_allowed(name, value, allowed):
    with pytest.raises(ValueError, match=name) as raised:
        otel_bedrock.instrument(**{name: value})
    assert allowed in str(raised.value)


@pytest.mark.parametrize(("name", "value", "allowed"), BAD)
def test_a_wrong_argument_raises_and_says_what_is_allowed(name, value, allowed):
    with pytest.raises(ValueError, match=name) as raised:
        otel_bedrock.instrument(**{name: value})
    assert allowed in str(raised.value)
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize(("name", "value", "allowed"), BAD)
def test_a_wrong_variable_warns_and_its_default_is_taken(name, value, allowed, caplog):
    variable = next(setting.variable for setting in SETTINGS if setting.name == name)
    with caplog.at_level(logging.WARNING, "otel_bedrock"):
        config = read_config({}, {variable: value})
    assert config == Config()
    (record,) = caplog.records
    assert variable in record.getMessage()
    assert allowed in record.getMessage()


@pytest.mark.parametrize("value", ["x", TracerProvider])
@pytest.mark.parametrize("kind", ["Tracer", "Meter", "Logger"])
def test_what_is_no_provider_raises_and_says_so(kind, value):
    name = f"{kind.lower()}_provider"
    with capture(), pytest.raises(TypeError) as raised:
        otel_bedrock.instrument(**{name: value})
    assert str(raised.value) == f"{name}: expected a {kind}Provider; got {value!r}"


def test_an_unknown_setting_names_the_settings():
    with pytest.raises(TypeError, match="semconvv") as raised:
        otel_bedrock.instrument(semconvv="both")
    assert "semconv, metrics" in str(raised.value)


def test_a_wrong_setting_leaves_the_former_in_place():
    with capture() as captured:
        with pytest.raises(Invalid):
            otel_bedrock.instrument(semconv="nonsense")
        from otel_bedrock.instrumentor import _active

        assert _active.given.tracer_provider is captured.tracer_provider


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("OTEL_BEDROCK_SEMCONV", "both", "semconv", "both"),
        ("OTEL_BEDROCK_BODY_LIMIT", "1024", "body_limit", 1024),
        (
            "OTEL_BEDROCK_REQUEST_METADATA_KEYS",
            "team, app",
            "request_metadata_keys",
            ("team", "app"),
        ),
        ("OTEL_BEDROCK_MODEL_ALIASES", "a=x.y, b=z.w", "model_aliases", {"a": "x.y", "b": "z.w"}),
        ("OTEL_BEDROCK_OTLP_ENDPOINT", "http://c:4318/", "otlp_endpoint", "http://c:4318"),
        (
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
            "Yes",
            "capture_content",
            "SPAN_ONLY",
        ),
        (
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
            "false",
            "capture_content",
            "NO_CONTENT",
        ),
    ],
)
def test_a_variable_sets_its_setting_and_an_argument_goes_before(variable, text, name, value):
    assert getattr(read_config({}, {variable: text}), name) == value
    default = getattr(Config(), name)
    if default is not None:
        assert getattr(read_config({name: default}, {variable: text}), name) == default
