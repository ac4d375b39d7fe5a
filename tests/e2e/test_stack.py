"""What the plain OpenTelemetry SDK sends is what Jaeger and Prometheus have."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
    OTLPSpanExporter as GrpcSpanExporter,
)
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind
from opentelemetry.util.types import AttributeValue
from stack import COLLECTOR, Stack, StackError, ToolsMissing, eventually

pytestmark = pytest.mark.e2e

# Larger than a float holds exactly, so that a number that became one on the way is seen.
TOKENS = 2**53 + 1


@pytest.fixture
def service() -> str:
    """A name that no other test has, for the stack outlives them."""
    return f"service-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def resource(service: str) -> Resource:
    return Resource(
        {
            "service.name": service,
            "service.instance.id": "one",
            "deployment.environment.name": "test",
            "team": "not promoted",
        }
    )


@pytest.fixture
def meters(stack: Stack, resource: Resource) -> Iterator[MeterProvider]:
    """A meter provider that exports when it is flushed and, as users' do, of itself."""
    exporter = OTLPMetricExporter(endpoint=f"{stack.otlp_http}/v1/metrics")
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=500)
    provider = MeterProvider([reader], resource)
    yield provider
    provider.shutdown()


@pytest.mark.parametrize(
    "exporter_of",
    [
        pytest.param(
            lambda stack: OTLPSpanExporter(endpoint=f"{stack.otlp_http}/v1/traces"), id="http"
        ),
        pytest.param(
            lambda stack: GrpcSpanExporter(endpoint=stack.otlp_grpc, insecure=True), id="grpc"
        ),
    ],
)
def test_a_span_comes_back_with_every_value_and_type_it_was_sent_with(
    stack: Stack, service: str, resource: Resource, exporter_of: Callable[[Stack], SpanExporter]
) -> None:
    """Jaeger has one span, and an int in it is still that int."""
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(SimpleSpanProcessor(exporter_of(stack)))
    sent: dict[str, AttributeValue] = {
        "gen_ai.request.model": "amazon.nova-lite-v1:0",
        "gen_ai.usage.input_tokens": TOKENS,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ("end_turn", "tool_use"),
    }
    with provider.get_tracer("plain").start_as_current_span(
        "chat", kind=SpanKind.CLIENT, attributes=sent
    ) as span:
        span.add_event("first", {"tokens": 1})
    provider.shutdown()

    [found] = eventually(lambda: stack.traces(service))

    context = span.get_span_context()
    assert found["trace_id"] == f"{context.trace_id:032x}"
    assert found["span_id"] == f"{context.span_id:016x}"
    assert found["name"] == "chat"
    assert found["scope"] == "plain"
    assert found["kind"] == 3  # CLIENT in OTLP
    assert found["attributes"] == {
        **sent,
        "gen_ai.response.finish_reasons": ["end_turn", "tool_use"],
    }
    assert {name: type(value) for name, value in found["attributes"].items()} == {
        "gen_ai.request.model": str,
        "gen_ai.usage.input_tokens": int,
        "gen_ai.request.temperature": float,
        "gen_ai.request.stream": bool,
        "gen_ai.response.finish_reasons": list,
    }
    assert found["resource"]["service.name"] == service
    assert [(event["name"], event["attributes"]) for event in found["events"]] == [
        ("first", {"tokens": 1})
    ]


def test_a_counter_arrives_under_its_underscore_name_with_the_promoted_labels(
    stack: Stack, service: str, meters: MeterProvider
) -> None:
    """Dots become underscores, _total is added, and what identifies the process is a label."""
    counter = meters.get_meter("plain").create_counter("tokens.read", unit="{token}")
    counter.add(1_000, {"gen_ai.request.model": "nova"})

    [(labels, value)] = eventually(
        lambda: stack.query(f'{{service_name="{service}", __name__!="target_info"}}')
    )

    assert value == 1_000
    assert labels == {
        "__name__": "tokens_read_total",
        "gen_ai_request_model": "nova",
        "service_name": service,
        "service_instance_id": "one",
        "deployment_environment_name": "test",
        "job": service,
        "instance": "one",
    }


def test_the_first_add_of_a_series_is_seen_whole(
    stack: Stack, service: str, meters: MeterProvider
) -> None:
    """increase() alone misses the value that a series begins with."""
    counter = meters.get_meter("plain").create_counter("tokens.seen", unit="{token}")
    counter.add(1_000, {"model": "a"})
    counter.add(25, {"model": "b"})
    series = f'tokens_seen_total{{service_name="{service}"}}'

    # At least two samples, so that increase() has an answer, and it is the wrong one.
    eventually(lambda: all(n >= 2 for _, n in seen(stack, f"count_over_time({series}[1m])")))

    assert set(by_model(stack, f"increase({series}[1m])").values()) == {0.0}
    assert by_model(stack, f"({series} unless {series} offset 1m) or increase({series}[1m])") == {
        "a": 1_000,
        "b": 25,
    }


def seen(stack: Stack, promql: str) -> list[tuple[dict[str, str], float]]:
    """The query's answer, once it has one."""
    return eventually(lambda: stack.query(promql))


def by_model(stack: Stack, promql: str) -> dict[str, float]:
    """The query's answer as one number for each model."""
    return {labels["model"]: value for labels, value in stack.query(promql)}


def test_a_search_that_finds_nothing_is_an_empty_list(stack: Stack) -> None:
    """Jaeger answers an empty search with an error, which is none to a test."""
    assert stack.traces("nobody") == []
    assert stack.query("nothing_total") == []


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["otelcol-bedrock", "validate", "--config", "otelcol.yaml"], id="collector"),
        pytest.param(["jaeger", "validate", "--config", "jaeger.yaml"], id="jaeger"),
        pytest.param(["promtool", "check", "config", "prometheus.yaml"], id="prometheus"),
    ],
)
def test_each_configuration_passes_its_own_programs_check(stack: Stack, command: list[str]) -> None:
    """With no variable set, so that the defaults are checked as well."""
    checked = subprocess.run(
        [str(stack.tools / command[0]), *command[1:]],
        cwd=COLLECTOR,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_collector_starts_without_a_warning(stack: Stack) -> None:
    """Its check says nothing about names that are deprecated; its start does."""
    started, ready, _ = stack.log("otelcol-bedrock", lines=10_000).partition("Everything is ready")
    assert ready
    assert [line for line in started.splitlines() if "\tinfo\t" not in line] == []


def test_missing_programs_are_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a skipped run says how to become a real one."""
    monkeypatch.setenv("OTEL_BEDROCK_TOOLS", str(tmp_path))
    with pytest.raises(ToolsMissing, match=r"otelcol-bedrock, jaeger.*run `make e2e-tools`"):
        Stack()


def test_a_program_that_does_not_start_is_quoted(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own last words say why, and the programs started before it are ended."""
    broken = Stack()
    for name in ("jaeger.yaml", "prometheus.yaml"):
        shutil.copyfile(COLLECTOR / name, tmp_path / name)
    (tmp_path / "otelcol.yaml").write_text("receivers: {teapot: {}}")
    monkeypatch.setattr("stack.COLLECTOR", tmp_path)

    with pytest.raises(StackError, match=r"(?s)otelcol-bedrock: ended with 1 .*teapot"), broken:
        pass

    assert all(process.poll() is not None for process in broken.running.values())
    assert not broken.folder.exists()


@pytest.mark.usefixtures("stack")  # skips where the programs are missing
def test_an_interrupt_leaves_no_program_running() -> None:
    """Nor any data."""
    other = Stack()
    with pytest.raises(KeyboardInterrupt):
        interrupt(other)

    assert set(other.running) == {"jaeger", "prometheus", "otelcol-bedrock"}
    assert all(process.poll() == 0 for process in other.running.values())  # none was killed
    assert not other.folder.exists()


def interrupt(other: Stack) -> None:
    """What Ctrl-C does to a test while the programs run."""
    with other:
        assert all(process.poll() is None for process in other.running.values())
        raise KeyboardInterrupt


def test_a_question_without_an_answer_ends_with_the_last_one() -> None:
    """Waiting is bounded, and says what it saw."""
    with pytest.raises(AssertionError, match=r"still \[\] after 0.1 s"):
        eventually(list, timeout=0.1)
