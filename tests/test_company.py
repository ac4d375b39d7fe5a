"""Company: other instrumentations of the same call, and a framework's own around it.

Each call has one usage-bearing span of ours and is counted once by our metrics, in whichever
order the others come. Runs where they are installed: `make matrix` has an environment for it.
"""

from __future__ import annotations

import importlib
import json
import logging

import pytest

import otel_bedrock
from otel_bedrock.testing import FakeBedrock, capture

SONNET = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
MESSAGES = [{"role": "user", "content": [{"text": "How many tokens is this?"}]}]
BODY = json.dumps(
    {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 30,
        "messages": [{"role": "user", "content": "Hello!"}],
    }
)
USAGE = "gen_ai.client.inference.usage."

# Module -> its instrumentor's name, and the name that switches it off.
OTHERS = {
    "opentelemetry.instrumentation.botocore": ("BotocoreInstrumentor", "botocore"),
    "opentelemetry.instrumentation.genai.bedrock": ("BedrockInstrumentor", "genai-bedrock"),
    "opentelemetry.instrumentation.bedrock": ("BedrockInstrumentor", "bedrock"),
    "openinference.instrumentation.bedrock": ("BedrockInstrumentor", "bedrock"),
}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def bedrock():
    with FakeBedrock() as server:
        yield server


def _calls(client):
    client.converse(modelId=SONNET, messages=MESSAGES)
    list(client.converse_stream(modelId=SONNET, messages=MESSAGES)["stream"])
    client.invoke_model(modelId=SONNET, body=BODY)["body"].read()
    list(client.invoke_model_with_response_stream(modelId=SONNET, body=BODY)["body"])


def _check(captured, billed):
    ours = [
        span
        for span in captured.spans
        if span.instrumentation_scope.name == "otel_bedrock"
        and "gen_ai.usage.input_tokens" in span.attributes
    ]
    assert len(ours) == len(billed) == 4
    for name in ("input_tokens", "output_tokens"):
        assert captured.total(USAGE + name) == sum(getattr(one, name) for one in billed)


@pytest.mark.parametrize("order", ["they first", "we first"])
@pytest.mark.parametrize("module", OTHERS)
def test_beside_another_instrumentation_each_call_is_counted_once(
    module, order, bedrock, caplog, monkeypatch
):
    monkeypatch.setattr(otel_bedrock.instrumentor._active, "warned", False)
    other = pytest.importorskip(module, reason=f"{module} is not installed")
    name, switch = OTHERS[module]
    instrumentor = getattr(other, name)()
    with caplog.at_level(logging.WARNING, "otel_bedrock"), capture() as captured:
        given = {
            "tracer_provider": captured.tracer_provider,
            "meter_provider": captured.meter_provider,
        }
        if order == "we first":
            instrumentor.instrument(**given)
            _check_calls(bedrock, captured)
        else:
            with capture_again(captured, instrumentor, given):
                _check_calls(bedrock, captured)
        instrumentor.uninstrument()
    warned = [record.getMessage() for record in caplog.records if module in record.getMessage()]
    assert len(warned) == 1
    assert f"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS={switch}" in warned[0]


def _check_calls(bedrock, captured):
    before = len(bedrock.bill)
    _calls(bedrock.client())
    _check(captured, bedrock.bill[before:])


def capture_again(captured, instrumentor, given):
    """Take our patch off, let the other patch first, and put ours on top."""
    import contextlib

    from otel_bedrock.instrumentor import exchange

    @contextlib.contextmanager
    def swapped():
        mine = exchange(None)
        instrumentor.instrument(**given)
        exchange(mine)
        yield

    return swapped()


@pytest.mark.parametrize("semconv", ["genai-2026-10", "both"])
def test_under_a_frameworks_inference_the_usage_stands_on_the_outer_span(semconv, bedrock):
    handlers = pytest.importorskip(
        "opentelemetry.util.genai.handler", reason="util-genai is absent"
    )
    with capture(semconv=semconv) as captured:
        handler = handlers.TelemetryHandler(
            tracer_provider=captured.tracer_provider, meter_provider=captured.meter_provider
        )
        before = len(bedrock.bill)
        with handler.inference("aws.bedrock", request_model=SONNET):
            bedrock.client().converse(modelId=SONNET, messages=MESSAGES)
        (billed,) = bedrock.bill[before:]
        ours, outer = captured.spans
        assert ours.parent.span_id == outer.context.span_id
        assert not [key for key in ours.attributes if key.startswith("gen_ai.usage.")]
        assert ours.attributes["aws.request_id"] == billed.request_id
        assert outer.attributes["gen_ai.usage.input_tokens"] == billed.input_tokens
        assert outer.attributes["gen_ai.usage.output_tokens"] == billed.output_tokens
        assert captured.total(USAGE + "input_tokens") == billed.input_tokens
        # v1.41's metrics are the outer one's; twice would be twice the tokens.
        old = captured.total("gen_ai.client.token.usage")
        assert old == billed.input_tokens + billed.output_tokens


def test_suppressed_instrumentation_tells_nothing(bedrock):
    from opentelemetry.instrumentation.utils import suppress_instrumentation

    with capture() as captured, suppress_instrumentation():
        bedrock.client().converse(modelId=SONNET, messages=MESSAGES)
        assert captured.spans == ()
        assert captured.points == []


def test_the_table_of_conflicts_names_what_there_is():
    from otel_bedrock.nesting import CONFLICTS

    assert {module: switch for module, (_, switch) in OTHERS.items()} == CONFLICTS
    for module in CONFLICTS:
        if importlib.util.find_spec(module.partition(".")[0]) and _is_there(module):
            assert hasattr(importlib.import_module(module), OTHERS[module][0])


def _is_there(module):
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
