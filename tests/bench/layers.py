"""Micro-benchmarks of each layer and of the whole call, by pytest-benchmark: `make bench`.

Not collected with the tests: pytest is given this file by name.
"""

from __future__ import annotations

import json

import pytest
from compare import Bench
from floors import ContractFloor, Floor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from scenarios import COUNTS, MODEL, SCENARIOS, USAGE

from otel_bedrock import answer, errors, events, model_id, paths, request, usage
from otel_bedrock.call import Outcome
from otel_bedrock.config import read_config
from otel_bedrock.instrumentor import exchange
from otel_bedrock.operations import TABLE
from otel_bedrock.providers import provider_of
from otel_bedrock.recorder import Recorder

CONVERSE = TABLE["bedrock-runtime", "Converse"]
INVOKE = TABLE["bedrock-runtime", "InvokeModel"]
PROVIDER = provider_of(model_id.parse(MODEL))
ANSWER = {
    "ResponseMetadata": {"RequestId": "5b1e", "HTTPHeaders": {}, "RetryAttempts": 0},
    "output": {"message": {"role": "assistant", "content": [{"text": "Paris"}]}},
    "stopReason": "end_turn",
    "usage": USAGE,
    "metrics": {"latencyMs": 812},
}
HEADERS = {name.lower(): value for name, value in COUNTS.items()}
PLACE = {"address": "bedrock-runtime.us-east-1.amazonaws.com", "port": 443, "region": "us-east-1"}


@pytest.fixture(scope="module")
def bench():
    return Bench()


@pytest.fixture
def recorder():
    reader = InMemoryMetricReader()
    made = Recorder(read_config({}), TracerProvider(), MeterProvider(metric_readers=[reader]))
    yield made
    made.close()


# --- Reading ---


def test_paths_dig(benchmark):
    benchmark(paths.dig, ANSWER, "metrics.latencyMs")


def test_model_id_known(benchmark):
    benchmark(model_id.parse, MODEL)


def test_model_id_new(benchmark):
    benchmark(model_id.parse.__wrapped__, MODEL)


@pytest.mark.parametrize(
    ("row", "name"),
    [(CONVERSE, "converse"), (INVOKE, "invoke_model, 1 KB")],
    ids=["converse", "invoke"],
)
def test_request(benchmark, row, name):
    benchmark(request.read_call, row, SCENARIOS[name].parameters, **PLACE)


def test_answer_converse(benchmark):
    benchmark(answer.read_answer, CONVERSE, ANSWER, PROVIDER)


def test_answer_invoke(benchmark):
    said = {"ResponseMetadata": {"RequestId": "5b1e", "HTTPHeaders": HEADERS}}
    benchmark(answer.read_answer, INVOKE, said, PROVIDER)


def test_usage_of_a_body(benchmark):
    body = json.loads(SCENARIOS["invoke_model, 1 KB"].body)
    benchmark(lambda: usage.decide((usage.read_headers(HEADERS), usage.read_body(body))))


def test_error(benchmark):
    error = ValueError("odd")
    error.response = {"Error": {"Code": "ThrottlingException", "Message": "Too many requests"}}
    benchmark(errors.read_error, error)


@pytest.mark.parametrize(
    ("dialect", "event"),
    [
        ("converse", {"contentBlockDelta": {"delta": {"text": " fox"}, "contentBlockIndex": 0}}),
        ("invoke", {"chunk": {"bytes": b'{"type":"content_block_delta","delta":{"text":" fox"}}'}}),
    ],
    ids=["converse", "invoke"],
)
def test_one_event(benchmark, dialect, event):
    seen = events.DIALECTS[dialect](PROVIDER)
    seen.see(event)
    benchmark(seen.see, event)


# --- Telling ---


def test_recording(benchmark, recorder):
    call, _ = request.read_call(CONVERSE, SCENARIOS["converse"].parameters, **PLACE)
    outcome = Outcome(**answer.read_answer(CONVERSE, ANSWER, PROVIDER))
    benchmark(lambda: recorder.start(call).finish(outcome))


def test_by_hand_contract_floor(benchmark, bench):
    benchmark(ContractFloor(bench.tracer_provider, bench.meter_provider).call)


def test_by_hand_floor(benchmark, bench):
    benchmark(Floor(bench.tracer_provider, bench.meter_provider).call)


# --- The whole call ---

WHOLE = [name for name in SCENARIOS if "1,000" not in name]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("kind", ["bare", "ours"])
def test_call(benchmark, bench, kind, name):
    try:
        benchmark(bench.kinds(name)[kind]())
    finally:
        exchange(None)
