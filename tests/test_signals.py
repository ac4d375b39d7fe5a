"""What is emitted: names, units, kinds and attribute keys of each set of names, as snapshots.

After a change that is meant: UPDATE_SNAPSHOTS=1 python -m pytest tests/test_signals.py, then
look at the difference, and say it in CHANGELOG.md, for dashboards and alerts stand on it.
"""

from __future__ import annotations

import json
import os
from inspect import signature
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError, ParamValidationError, ReadTimeoutError
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Decision, Sampler, SamplingResult

from otel_bedrock import BudgetExceeded, Limit, TokenBudget, request, signals
from otel_bedrock.call import Call, Outcome
from otel_bedrock.config import read_config
from otel_bedrock.instrumentor import Given, _active, exchange
from otel_bedrock.model_id import parse
from otel_bedrock.testing import FakeBedrock
from otel_bedrock.testing.capture import capture
from otel_bedrock.usage import decide, read_usage

SNAPSHOTS = Path(__file__).parent / "snapshots"
SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
HELLO = [{"role": "user", "content": [{"text": "Hello, fake! How are you today?"}]}]
CACHED = [{"text": "You are a fake. " * 400}, {"cachePoint": {"type": "default"}}]


@pytest.fixture(scope="module")
def bedrock():
    with FakeBedrock() as server:
        yield server


def _one_of_each(bedrock):
    """Make one call of every kind that the sets of names tell apart."""
    client = bedrock.client()
    settings = {"maxTokens": 50, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]}
    request = {"modelId": SONNET, "messages": HELLO, "system": CACHED, "inferenceConfig": settings}
    client.converse(**request, requestMetadata={"team": "blue", "secret": "x"})
    members = client.meta.service_model.operation_model("Converse").input_shape.members
    if "serviceTier" in members:
        client.converse(**request, serviceTier={"type": "priority"})
    list(client.converse_stream(**request)["stream"])
    body = json.dumps(
        {
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 20,
            "messages": [{"role": "user", "content": "Hello!"}],
        }
    )
    client.invoke_model(modelId=SONNET, body=body)["body"].read()
    list(client.invoke_model_with_response_stream(modelId=SONNET, body=body)["body"])
    embed = json.dumps({"inputText": "Hello!", "dimensions": 256})
    client.invoke_model(modelId="amazon.titan-embed-text-v2:0", body=embed)["body"].read()
    if hasattr(client, "count_tokens"):
        client.count_tokens(
            modelId="anthropic.claude-sonnet-4-5-20250929-v1:0",
            input={"converse": {"messages": HELLO}},
        )
    bedrock.throttle()
    with pytest.raises(client.exceptions.ThrottlingException):
        client.converse(**request)
    with pytest.raises(client.exceptions.ValidationException):
        client.converse(modelId="does-not-exist", messages=HELLO)


def _kinds(captured):
    """Return {metric: (kind, unit, attribute keys of each operation)} as JSON-like data."""
    data = captured.metrics_data
    found = {}
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                keys = {}
                for point in metric.data.data_points:
                    operation = point.attributes.get("gen_ai.operation.name", "")
                    keys.setdefault(operation, set()).update(point.attributes)
                found[metric.name] = {
                    "kind": type(metric.data).__name__,
                    "unit": metric.unit,
                    "keys": {operation: sorted(names) for operation, names in sorted(keys.items())},
                }
    return dict(sorted(found.items()))


def _spans(captured):
    return sorted(
        {
            (span.name, span.status.status_code.name, " ".join(sorted(span.attributes)))
            for span in captured.spans
        }
    )


MODES = {
    "genai-2026-10": {},
    "v1.41": {"semconv": "v1.41"},
    "both": {"semconv": "both"},
    "all": {"metrics": "all", "time_per_output_chunk": True, "request_metadata_keys": ("team",)},
}


@pytest.mark.parametrize("mode", MODES)
def test_a_set_of_names_is_what_its_snapshot_says(mode, bedrock):
    if not hasattr(bedrock.client(), "count_tokens"):
        pytest.skip("the installed botocore has no CountTokens, which the snapshots have")
    with capture(**MODES[mode]) as captured:
        _one_of_each(bedrock)
        seen = {"metrics": _kinds(captured), "spans": [list(row) for row in _spans(captured)]}
    path = SNAPSHOTS / f"{mode}.json"
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        SNAPSHOTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(seen, indent=1) + "\n")
    assert seen == json.loads(path.read_text())


@pytest.mark.parametrize("mode", MODES)
def test_everything_emitted_stands_in_the_tables(mode, bedrock):
    with capture(**MODES[mode]) as captured:
        _one_of_each(bedrock)
        metrics, spans = _kinds(captured), captured.spans
    rows = {metric.name: metric for metric in signals.METRICS}
    for name, seen in metrics.items():
        kind = {"Sum": signals.COUNTER, "Histogram": signals.HISTOGRAM, "Gauge": signals.GAUGE}[
            seen["kind"]
        ]
        assert (rows[name].kind, rows[name].unit) == (kind, seen["unit"])
    keys = {row.key for row in signals.ATTRIBUTES}
    on_metrics = {row.key for row in signals.ATTRIBUTES if row.on_metrics} | {
        signals.MODALITY,
        signals.TTL,
        signals.TOKEN_TYPE,
        signals.MISSING_REASON,
        signals.POLICY,
    }
    shown = signals.render()
    for seen in metrics.values():
        emitted = set().union(*seen["keys"].values())
        assert emitted <= on_metrics
        assert [key for key in emitted if f"`{key}`" not in shown] == []
    for span in spans:
        assert {
            key for key in span.attributes if not key.startswith(signals.METADATA_PREFIX)
        } <= keys


def test_one_count_has_one_span_attribute_except_in_both(bedrock):
    for mode in ("genai-2026-10", "v1.41"):
        with capture(semconv=mode) as captured:
            _one_of_each(bedrock)
            for span in captured.spans:
                names = [key for key in span.attributes if key.startswith("gen_ai.usage.cache_")]
                assert len(names) == len(
                    {key.split(".")[2].replace("creation", "write") for key in names}
                )


def test_samplers_see_what_telemetry_promises(bedrock):
    class Looking(Sampler):
        seen = None

        def should_sample(self, *args, **kwargs):
            Looking.seen = kwargs.get("attributes") or args[4]
            return SamplingResult(Decision.RECORD_AND_SAMPLE)

        def get_description(self):
            return "looking"

    with capture(sampler=Looking()):
        bedrock.client().converse(modelId=SONNET, messages=HELLO)
    assert set(Looking.seen) == {row.key for row in signals.ATTRIBUTES if row.at_start}


def test_counters_are_exact_with_every_span_sampled_out(bedrock):
    before = len(bedrock.bill)
    with capture(sampler=ALWAYS_OFF) as captured:
        _one_of_each(bedrock)
        assert captured.spans == ()
        billed = [bill for bill in bedrock.bill[before:] if bill.usage_sent]
        for metric, field in (
            ("input_tokens", "input_tokens"),
            ("output_tokens", "output_tokens"),
            ("cache_read.input_tokens", "cache_read_tokens"),
            ("cache_write.input_tokens", "cache_write_tokens"),
        ):
            total = sum(
                getattr(bill, field) or 0 for bill in billed if bill.operation != "CountTokens"
            )
            assert captured.total(f"gen_ai.client.inference.usage.{metric}") == total


def test_past_the_sdks_limit_of_series_calls_go_on_and_totals_stay_right(bedrock):
    if "aggregation_cardinality_limit" not in signature(View).parameters:
        pytest.skip("this version of the SDK has no limit")
    reader = InMemoryMetricReader()
    views = [View(instrument_name="*", aggregation_cardinality_limit=3)]
    given = Given(
        read_config({}), TracerProvider(), MeterProvider([reader], views=views), None, False
    )
    models = [f"acme.model-{number}-v1:0" for number in range(10)]
    before, billed = exchange(given), len(bedrock.bill)
    try:
        for model in models:
            bedrock.client().converse(modelId=model, messages=HELLO)
    finally:
        exchange(before)
    points = list(_points(reader.get_metrics_data(), "inference.usage.input_tokens"))
    assert sum(point.value for point in points) == sum(
        bill.input_tokens for bill in bedrock.bill[billed:]
    )
    # What the SDK does not tell apart any more stands in one series.
    assert [dict(point.attributes) for point in points].count({"otel.metric.overflow": True}) == 1
    assert len(points) < len(models)


def _points(data, name):
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.name.endswith(name):
                    yield from metric.data.data_points


def test_counters_equal_the_sums_of_the_histograms(bedrock):
    with capture() as captured:
        _one_of_each(bedrock)
        for name in ("input_tokens", "output_tokens"):
            counted = captured.total(f"gen_ai.client.inference.usage.{name}")
            sizes = captured.total(f"gen_ai.client.inference.operation.{name}")
            embedded = captured.total(f"gen_ai.client.embeddings.operation.{name}") or 0
            assert counted == sizes + embedded


_CLAUDE = {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 900}
_METADATA = ({"inputTokens": 1, "outputTokens": 2}, {"inputTokens": 10, "outputTokens": 20})


def _invoke(bedrock):
    headers = {"x-amzn-bedrock-input-token-count": "5", "x-amzn-bedrock-output-token-count": "7"}
    spent = {**_CLAUDE, "cache_creation_input_tokens": 50}
    bedrock.reply({"content": [], "stop_reason": "end_turn", "usage": spent}, headers)
    bedrock.client().invoke_model(modelId=SONNET, body="{}")["body"].read()


def _converse_stream(bedrock):
    stop = {"messageStop": {"stopReason": "end_turn"}}
    bedrock.reply_events([stop, *({"metadata": {"usage": usage}} for usage in _METADATA)])
    list(bedrock.client().converse_stream(modelId=SONNET, messages=HELLO)["stream"])


@pytest.mark.parametrize("call", [_invoke, _converse_stream])
def test_what_comes_later_and_knows_more_mends_the_counters(bedrock, call):
    """Cache counts that no header has; a second metadata event: span and counters agree."""
    with capture() as captured:
        call(bedrock)
        attributes = captured.span.attributes
    for name in ("input_tokens", "output_tokens", "cache_read.input_tokens"):
        counted = captured.total(f"gen_ai.client.inference.usage.{name}")
        assert counted == attributes.get(f"gen_ai.usage.{name}"), name
    written = captured.total("gen_ai.client.inference.usage.cache_write.input_tokens")
    assert written == attributes.get("gen_ai.usage.cache_write.input_tokens")


def test_the_counters_of_a_stream_have_the_tier_that_its_headers_name(bedrock):
    """A stream of InvokeModel has its tier in the headers of its answer alone."""
    spent = {"metadata": {"usage": {"inputTokens": 5, "outputTokens": 6}}}
    metrics = {"inputTokenCount": 5, "outputTokenCount": 6}
    chunk = {**spent, "amazon-bedrock-invocationMetrics": metrics}
    client = bedrock.client()
    with capture() as captured:
        bedrock.reply_events([chunk], {"x-amzn-bedrock-service-tier": "flex"}, native=True)
        answer = client.invoke_model_with_response_stream(
            modelId="amazon.nova-lite-v1:0", body="{}"
        )
        list(answer["body"])
        tier = captured.span.attributes.get("bedrock.service_tier")
        points = [point for point in captured.points if "inference" in point.metric]
    # Older versions of botocore do not know the header.
    assert tier == answer.get("serviceTier")
    assert {point.attributes.get("bedrock.service_tier") for point in points} == {tier}


_ASKED = [
    ("temperature", 0, 0.0),
    ("temperature", True, None),
    ("top_p", 1, 1.0),
    ("top_k", 5.0, 5),
    ("top_k", 2**63, None),
    ("max_tokens", "many", None),
    ("stop_sequences", "END", ("END",)),
    ("stop_sequences", ["A", "B"], ("A", "B")),
    ("stop_sequences", ["A", 1], None),
]


@pytest.mark.parametrize(("name", "sent", "told"), _ASKED)
def test_a_parameter_has_the_type_that_the_table_says(bedrock, name, sent, told):
    """In a store whose columns have types, a 0 and a 0.5 would be two attributes."""
    bedrock.reply({})
    with capture() as captured:
        bedrock.client().invoke_model(modelId=SONNET, body=json.dumps({name: sent}))["body"].read()
    value = captured.span.attributes.get(f"gen_ai.request.{name}")
    assert (value, type(value)) == (told, type(told))


def test_a_failed_call_tells_the_tier_that_was_asked_for(bedrock):
    """Invoked by the body's side of it: older versions of Converse have no such members."""
    bedrock.throttle()
    client = bedrock.client()
    asked = {"serviceTier": "flex", "performanceConfigLatency": "optimized"}
    members = client.meta.service_model.operation_model("InvokeModel").input_shape.members
    asked = {name: value for name, value in asked.items() if name in members}
    with capture() as captured:
        with pytest.raises(client.exceptions.ThrottlingException):
            client.invoke_model(modelId=SONNET, body="{}", **asked)
        attributes = captured.span.attributes
    assert attributes.get("bedrock.service_tier") == asked.get("serviceTier")
    assert attributes["bedrock.latency_mode"] == "optimized"


def test_the_types_of_parameters_are_those_of_the_table():
    kinds = {int: "int", float: "double", tuple: "string[]", str: "string"}
    rows = [row for row in signals.ATTRIBUTES if row.source == signals.PARAMETER]
    assert {row.field: row.type for row in rows if row.field != "stream"} == {
        row.field: kinds[request._KINDS.get(row.field, str)]
        for row in rows
        if row.field != "stream"
    }


@pytest.mark.parametrize(
    ("model", "own", "top_k"),
    [
        (SONNET, {"top_k": 7}, 7),
        ("amazon.nova-lite-v1:0", {"inferenceConfig": {"topK": 20}}, 20),
        ("cohere.command-r-v1:0", {"k": 9, "seed": 4}, 9),
    ],
)
def test_what_converse_has_no_member_for_is_read_as_in_the_providers_body(
    bedrock, model, own, top_k
):
    with capture() as captured:
        bedrock.client().converse(
            modelId=model,
            messages=HELLO,
            inferenceConfig={"temperature": 0.5},
            additionalModelRequestFields={**own, "temperature": 0.1},
        )
    assert captured.span.attributes["gen_ai.request.top_k"] == top_k
    assert captured.span.attributes["gen_ai.request.temperature"] == 0.5


def test_every_measurement_has_the_calls_own_span_as_its_exemplar(bedrock):
    """Also that of a stream consumed elsewhere, under another span."""
    with capture() as captured:
        stream = bedrock.client().converse_stream(modelId=SONNET, messages=HELLO)["stream"]
        with captured.tracer_provider.get_tracer("user").start_as_current_span("elsewhere"):
            list(stream)
        (call,) = [span for span in captured.spans if span.name.startswith("chat")]
        exemplars = [
            exemplar.span_id
            for resource in captured.metrics_data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
            for exemplar in point.exemplars
        ]
    assert exemplars
    assert set(exemplars) == {call.context.span_id}


def test_distinct_models_on_metrics_are_capped(bedrock):
    client = bedrock.client()
    with capture(model_limit=3) as captured:
        for number in range(10):
            client.converse(modelId=f"anthropic.claude-test-{number}", messages=HELLO)
        models = {point.attributes["gen_ai.request.model"] for point in captured.points}
        total = captured.total("gen_ai.client.inference.usage.input_tokens")
        spans = {span.attributes["gen_ai.request.model"] for span in captured.spans}
    assert models == {*(f"anthropic.claude-test-{number}" for number in range(3)), "other"}
    assert len(spans) == 10
    assert total == sum(bill.input_tokens for bill in bedrock.bill[-10:])


def test_a_refused_model_id_opens_no_series(bedrock):
    client = bedrock.client()
    with capture() as captured:
        with pytest.raises(client.exceptions.ValidationException):
            client.converse(modelId="does-not-exist", messages=HELLO)
        models = {point.attributes["gen_ai.request.model"] for point in captured.points}
        assert captured.span.attributes["gen_ai.request.model"] == "does-not-exist"
    assert models == {"other"}


UNSENT = {
    ParamValidationError: "oops",
    BudgetExceeded: [{"role": "user", "content": [{"text": "x" * 100}]}],
    EndpointConnectionError: HELLO,
}


@pytest.mark.parametrize("why", UNSENT, ids=lambda why: why.__name__)
def test_a_model_id_that_bedrock_never_heard_of_opens_no_series(bedrock, why):
    def refuse(**_):
        raise EndpointConnectionError(endpoint_url=bedrock.url)

    unlucky = bedrock.client()
    unlucky.meta.events.register("before-send.bedrock-runtime.Converse", refuse)
    with capture(model_limit=1, budget=TokenBudget(Limit(input_per_request=100))) as captured:
        for number in range(3):
            with pytest.raises(why):
                unlucky.converse(modelId=f"made-up-{number}", messages=UNSENT[why])
        bedrock.client().converse(modelId=SONNET, messages=HELLO)
        models = {point.attributes["gen_ai.request.model"] for point in captured.points}
    assert models == {"other", SONNET}


def test_a_model_that_does_not_answer_in_time_opens_its_series(bedrock):
    """Of an id that is none, Bedrock would have said so at once."""

    def wait(**_):
        raise ReadTimeoutError(endpoint_url=bedrock.url)

    slow = bedrock.client()
    slow.meta.events.register("before-send.bedrock-runtime.Converse", wait)
    with capture() as captured:
        with pytest.raises(ReadTimeoutError):
            slow.converse(modelId=SONNET, messages=HELLO)
        models = {point.attributes["gen_ai.request.model"] for point in captured.points}
    assert models == {SONNET}


def test_a_model_that_is_throttled_opens_its_series(bedrock):
    client = bedrock.client()
    with capture() as captured:
        bedrock.throttle()
        with pytest.raises(client.exceptions.ThrottlingException):
            client.converse(modelId=SONNET, messages=HELLO)
        models = {point.attributes["gen_ai.request.model"] for point in captured.points}
    assert models == {SONNET}


ROUTER = "arn:aws:bedrock:us-east-1:123456789012:default-prompt-router/anthropic.claude:1"
INVOKED = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-4-7"
TOLD = {"usage": {"inputTokens": 5, "outputTokens": 7}, "metrics": {"latencyMs": 1}}
TRACE = {"trace": {"promptRouter": {"invokedModelId": INVOKED}}}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_prompt_routers_trace_tells_the_base_model(streamed, bedrock):
    client = bedrock.client()
    with capture() as captured:
        if streamed:
            stop = ("messageStop", {"stopReason": "end_turn"})
            bedrock.reply_events([stop, ("metadata", {**TOLD, **TRACE})])
            list(client.converse_stream(modelId=ROUTER, messages=HELLO)["stream"])
        else:
            output = {"message": {"role": "assistant", "content": [{"text": "Hi."}]}}
            bedrock.reply({**TOLD, **TRACE, "output": output, "stopReason": "end_turn"})
            client.converse(modelId=ROUTER, messages=HELLO)
        attributes = captured.span.attributes
        assert attributes["gen_ai.request.model"] == "default-prompt-router/anthropic.claude:1"
        assert attributes["bedrock.model.base_id"] == "anthropic.claude-opus-4-7"
        assert attributes["bedrock.prompt_router.invoked_model"] == INVOKED
        total = captured.total(
            "gen_ai.client.inference.usage.input_tokens",
            bedrock__model__base_id="anthropic.claude-opus-4-7",
        )
        assert total == 5


COUNTS = st.none() | st.integers(0, 10**9)


@given(st.lists(st.tuples(COUNTS, COUNTS, COUNTS, COUNTS), max_size=6))
@settings(max_examples=25, deadline=None)
def test_counters_equal_the_histograms_sums_for_random_usage(calls):
    call = Call("Converse", "chat", parse(SONNET))
    with capture() as captured:
        recorder = _active.recorder
        for uncached, output, read, write in calls:
            counts = {"inputTokens": uncached, "outputTokens": output}
            counts |= {"cacheReadInputTokens": read, "cacheWriteInputTokens": write}
            told = decide((read_usage({"usage": counts}),))
            recorder.start(call).finish(Outcome(usage=told))
        for name in ("input_tokens", "output_tokens"):
            counted = captured.total(f"gen_ai.client.inference.usage.{name}")
            assert counted == captured.total(f"gen_ai.client.inference.operation.{name}")
        inputs = [one for one in calls if one[0] is not None]
        total = sum(one[0] + (one[2] or 0) + (one[3] or 0) for one in inputs)
        assert captured.total("gen_ai.client.inference.usage.input_tokens") == (
            total if inputs else None
        )
        # Cache counts alone are no usage that anybody has seen.
        missing = sum(one[0] is None and one[1] is None for one in calls)
        assert captured.total("bedrock.client.usage.missing") == (missing or None)
