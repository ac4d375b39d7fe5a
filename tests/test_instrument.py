"""instrument() and uninstrument(): once, for every client, and clear about what it does."""

from __future__ import annotations

import logging
import socket

import boto3
import botocore.client
import botocore.session
import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from programs import SONNET, run

import otel_bedrock
from otel_bedrock import sdk
from otel_bedrock.receiver import Receiver
from otel_bedrock.testing import FakeBedrock
from otel_bedrock.testing.capture import capture

MESSAGES = [{"role": "user", "content": [{"text": "How many tokens is this?"}]}]


@pytest.fixture(scope="module")
def bedrock():
    with FakeBedrock() as server:
        yield server


@pytest.fixture
def providers():
    exporter = InMemorySpanExporter()
    tracer_provider = TracerProvider()
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    reader = InMemoryMetricReader()
    meter_provider = MeterProvider(metric_readers=[reader])
    yield exporter, {"tracer_provider": tracer_provider, "meter_provider": meter_provider}
    otel_bedrock.uninstrument()
    tracer_provider.shutdown()
    meter_provider.shutdown()


def _ask(client):
    return client.converse(modelId=SONNET, messages=MESSAGES)


def test_clients_made_before_and_after_by_every_way_are_seen(bedrock, providers):
    exporter, given = providers
    options = {"endpoint_url": bedrock.url, "region_name": "us-east-1"}
    makers = (
        lambda: boto3.client("bedrock-runtime", **options),
        lambda: boto3.Session().client("bedrock-runtime", **options),
        lambda: botocore.session.get_session().create_client("bedrock-runtime", **options),
    )
    before = [make() for make in makers]
    otel_bedrock.instrument(**given)
    for client in [*before, *(make() for make in makers)]:
        _ask(client)
    assert len(exporter.get_finished_spans()) == 6


def test_the_same_settings_again_do_nothing(bedrock, providers, caplog):
    exporter, given = providers
    otel_bedrock.instrument(**given)
    method = botocore.client.BaseClient._make_api_call
    with caplog.at_level(logging.DEBUG, "otel_bedrock"):
        otel_bedrock.instrument(**given)
    assert botocore.client.BaseClient._make_api_call == method
    _ask(bedrock.client())
    assert len(exporter.get_finished_spans()) == 1
    assert caplog.records == []


def test_other_settings_replace_the_former_with_one_warning(bedrock, providers, caplog):
    exporter, given = providers
    otel_bedrock.instrument(**given)
    with caplog.at_level(logging.WARNING, "otel_bedrock"):
        otel_bedrock.instrument(**given, semconv="v1.41")
    assert len(caplog.records) == 1
    _ask(bedrock.client())
    (span,) = exporter.get_finished_spans()
    assert "gen_ai.usage.cache_creation.input_tokens" in span.attributes


def test_an_explicit_call_replaces_an_automatic_activation_silently(bedrock, providers, caplog):
    exporter, given = providers
    with caplog.at_level(logging.WARNING, "otel_bedrock"):
        otel_bedrock.BedrockInstrumentor().instrument(skip_dep_check=True)
        otel_bedrock.instrument(**given)
    assert caplog.records == []
    _ask(bedrock.client())
    assert len(exporter.get_finished_spans()) == 1


def test_uninstrument_takes_the_patch_off_and_instrument_puts_it_on_again(bedrock, providers):
    exporter, given = providers
    bare = botocore.client.BaseClient.__dict__["_make_api_call"]
    otel_bedrock.instrument(**given)
    assert botocore.client.BaseClient.__dict__["_make_api_call"] is not bare
    otel_bedrock.uninstrument()
    assert botocore.client.BaseClient.__dict__["_make_api_call"] is bare
    _ask(bedrock.client())
    assert exporter.get_finished_spans() == ()
    otel_bedrock.uninstrument()
    otel_bedrock.instrument(**given)
    _ask(bedrock.client())
    assert len(exporter.get_finished_spans()) == 1


def test_the_instrumentor_instruments_like_any_other(bedrock, providers):
    exporter, given = providers
    instrumentor = otel_bedrock.BedrockInstrumentor()
    instrumentor.instrument(**given)
    _ask(bedrock.client())
    instrumentor.uninstrument()
    _ask(bedrock.client())
    assert len(exporter.get_finished_spans()) == 1


def test_capture_sets_an_active_instrumentation_aside_and_puts_it_back(bedrock, providers):
    exporter, given = providers
    otel_bedrock.instrument(**given)
    with capture() as captured:
        _ask(bedrock.client())
    _ask(bedrock.client())
    assert len(captured.spans) == len(exporter.get_finished_spans()) == 1


def test_an_application_that_instruments_itself_is_captured(bedrock, providers, caplog):
    """With its settings, the block's where it gives none, and no provider of its own or message."""
    exporter, given = providers
    before = trace._TRACER_PROVIDER
    with capture(semconv="v1.41") as captured, caplog.at_level(logging.WARNING, "otel_bedrock"):
        for _ in range(2):
            otel_bedrock.instrument(**given, request_metadata_keys=("team",), metrics="none")
        otel_bedrock.instrument(otlp_endpoint="http://127.0.0.1:9", request_metadata_keys=("team",))
        bedrock.client().converse(
            modelId=SONNET, messages=MESSAGES, requestMetadata={"team": "search"}
        )
    assert exporter.get_finished_spans() == ()
    assert caplog.records == []
    assert captured.span.attributes["bedrock.request_metadata.team"] == "search"
    assert "gen_ai.usage.cache_creation.input_tokens" in captured.span.attributes
    assert "gen_ai.usage.cache_write.input_tokens" not in captured.span.attributes
    assert trace._TRACER_PROVIDER is before


def test_what_a_capture_block_switches_on_or_off_ends_with_it(bedrock, providers):
    instrumentor = otel_bedrock.BedrockInstrumentor()
    exporter, given = providers
    with capture() as captured:
        otel_bedrock.instrument()
        otel_bedrock.uninstrument()
        _ask(bedrock.client())
        otel_bedrock.instrument()
    assert len(captured.spans) == 1
    assert not instrumentor.is_instrumented_by_opentelemetry
    otel_bedrock.instrument(**given)
    with capture():
        otel_bedrock.uninstrument()
    _ask(bedrock.client())
    assert len(exporter.get_finished_spans()) == 1
    assert instrumentor.is_instrumented_by_opentelemetry


# --- in processes of their own: what touches global state


def test_without_an_sdk_one_line_says_so_and_calls_work(bedrock):
    done = run(
        """
        otel_bedrock.instrument()
        for _ in range(3):
            ask(client())
        print(trace._TRACER_PROVIDER, metrics._internal._METER_PROVIDER)
        """,
        bedrock=bedrock,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["None", "None"]
    (line,) = [line for line in done.stderr.splitlines() if "otel_bedrock" in line]
    assert "no OpenTelemetry SDK is configured" in line
    assert "instrument(otlp_endpoint=" in line


@pytest.mark.parametrize("kind", ["tracer", "meter"])
def test_a_global_provider_that_is_set_after_calls_sees_the_next_one(bedrock, kind):
    done = run(
        f"""
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
        otel_bedrock.instrument()
        for _ in range(3):
            ask(client())
        if {kind == "tracer"}:
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
            trace.set_tracer_provider(provider)
        else:
            reader = InMemoryMetricReader()
            metrics.set_meter_provider(MeterProvider([reader]))
        ask(client())
        if {kind == "meter"}:
            print(reader.get_metrics_data().to_json())
        """,
        bedrock=bedrock,
    )
    assert done.returncode == 0, done.stderr
    name = {"tracer": "gen_ai.usage.input_tokens", "meter": "gen_ai.client.inference.duration"}
    assert done.stdout.count(f'"{name[kind]}"') == 1
    if kind == "meter":
        assert '"count": 1' in done.stdout
        assert '"count": 4' not in done.stdout


@pytest.mark.parametrize("gone", ["trace", "metrics"])
def test_where_the_api_hides_its_providers_it_is_asked(monkeypatch, gone):
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", None)
    assert not sdk.may_be_set()
    monkeypatch.setattr(sdk, gone, object())
    assert sdk.may_be_set()


@pytest.mark.parametrize("order", ["before", "after"])
def test_global_providers_are_used_whether_set_before_or_after(bedrock, order):
    done = run(
        f"""
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
        if {order == "after"}:
            otel_bedrock.instrument()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
        trace.set_tracer_provider(provider)
        if {order == "before"}:
            otel_bedrock.instrument()
        ask(client())
        """,
        bedrock=bedrock,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count('"gen_ai.usage.input_tokens"') == 1
    assert "no OpenTelemetry SDK" not in done.stderr


def _sums(receiver):
    return {
        point.metric.removeprefix("gen_ai.client.inference.usage."): point.value
        for point in receiver.latest()
        if point.metric.startswith("gen_ai.client.inference.usage.")
    }


@pytest.mark.parametrize("way", ["argument", "variable"])
def test_an_endpoint_sets_up_the_sdk_and_all_arrives_at_exit(bedrock, way):
    with Receiver() as receiver:
        argument = f"otlp_endpoint={receiver.url!r}" if way == "argument" else ""
        done = run(
            f"otel_bedrock.instrument({argument}); print(ask(client())['inputTokens'])",
            bedrock=bedrock,
            OTEL_SERVICE_NAME="shop",
            **({"OTEL_BEDROCK_OTLP_ENDPOINT": receiver.url} if way == "variable" else {}),
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        (span,) = receiver.spans
        sums = _sums(receiver)
    assert span.resource["service.name"] == "shop"
    assert span.attributes["gen_ai.usage.input_tokens"] == int(done.stdout)
    assert sums["input_tokens"] == int(done.stdout)


def test_a_second_endpoint_finds_the_sdk_set_up_and_says_so(bedrock):
    with Receiver() as receiver:
        done = run(
            f"""
            from opentelemetry.sdk.trace import TracerProvider
            trace.set_tracer_provider(TracerProvider())
            otel_bedrock.instrument(otlp_endpoint={receiver.url!r})
            ask(client())
            """,
            bedrock=bedrock,
        )
        assert done.returncode == 0, done.stderr
        assert "traces go where the global provider sends them" in done.stderr
        assert receiver.spans == []
        assert _sums(receiver)


def test_another_endpoint_takes_the_place_of_the_former(bedrock):
    """Sums go on, so that who reads both has each token once; other libraries' spans go along."""
    with Receiver() as first, Receiver() as second:
        done = run(
            f"""
            bedrock = client()
            otel_bedrock.instrument(otlp_endpoint={first.url!r})
            ask(bedrock)
            assert otel_bedrock.flush()
            otel_bedrock.instrument(otlp_endpoint={second.url!r})
            trace.get_tracer("theirs").start_span("theirs").end()
            print(ask(bedrock)["inputTokens"])
            """,
            bedrock=bedrock,
        )
        assert done.returncode == 0, done.stderr
        assert len(first.spans) == 1
        assert sorted(span.name for span in second.spans)[1:] == ["theirs"]
        sums = [_sums(each)["input_tokens"] for each in (first, second)]
    assert sums == [int(done.stdout), 2 * int(done.stdout)]


def test_after_uninstrument_an_endpoint_is_used_again(bedrock):
    with Receiver() as first, Receiver() as second:
        done = run(
            f"""
            bedrock = client()
            otel_bedrock.instrument(otlp_endpoint={first.url!r})
            ask(bedrock)
            otel_bedrock.uninstrument()
            otel_bedrock.instrument(otlp_endpoint={second.url!r})
            print(ask(bedrock)["inputTokens"])
            assert otel_bedrock.flush()
            """,
            bedrock=bedrock,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert len(first.spans) == len(second.spans) == 1
        sums = [_sums(each)["input_tokens"] for each in (first, second)]
    assert sums == [int(done.stdout)] * 2


def test_an_sdk_that_uninstrument_shut_down_is_none(bedrock):
    with Receiver() as receiver:
        done = run(
            f"""
            otel_bedrock.instrument(otlp_endpoint={receiver.url!r})
            otel_bedrock.uninstrument()
            otel_bedrock.instrument()
            ask(client())
            """,
            bedrock=bedrock,
        )
    assert done.returncode == 0, done.stderr
    assert "no OpenTelemetry SDK is configured" in done.stderr


@pytest.mark.parametrize(
    ("variable", "value", "spans", "points"),
    [
        ("OTEL_SDK_DISABLED", "true", 0, False),
        ("OTEL_TRACES_EXPORTER", "none", 0, True),
        ("OTEL_METRICS_EXPORTER", "none", 1, False),
    ],
)
def test_the_standard_switches_are_honoured(bedrock, variable, value, spans, points):
    with Receiver() as receiver:
        done = run(
            f"otel_bedrock.instrument(otlp_endpoint={receiver.url!r}); ask(client())",
            bedrock=bedrock,
            **{variable: value},
        )
        assert done.returncode == 0, done.stderr
        assert len(receiver.spans) == spans
        assert bool(_sums(receiver)) == points


def _said(done):
    """Return the lines that a program printed as errors, but what older SDKs say of a flush."""
    own = "opentelemetry.sdk.trace.export Timeout was exceeded in force_flush()"
    return [line for line in done.stderr.splitlines() if own not in line]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_dead_endpoint_costs_one_warning_and_a_bounded_exit(bedrock, protocol):
    done = run(
        """
        import time
        otel_bedrock.instrument(otlp_endpoint="http://127.0.0.1:9")
        bedrock = client()
        ask(bedrock)
        started = time.monotonic()
        for _ in range(20):
            ask(bedrock)
        assert time.monotonic() - started < 2
        assert otel_bedrock.flush(timeout=1) is False
        assert time.monotonic() - started < 4
        """,
        bedrock=bedrock,
        timeout=20,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    )
    assert done.returncode == 0, done.stderr
    (line,) = _said(done)
    assert line.startswith("WARNING otel_bedrock nothing can be exported to http://127.0.0.1:9 ")
    # The exporter's own reason is part of it.
    assert "127.0.0.1" in line.partition("said once a minute; ")[2]


@pytest.mark.parametrize(
    "wait",
    [
        "otel_bedrock.flush(timeout=0.3)",
        "otel_bedrock.instrumentor._active.providers.shutdown(0.3)",
    ],
)
def test_an_endpoint_that_never_answers_is_told_of_too(bedrock, wait):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = run(
            f"""
            otel_bedrock.instrument(otlp_endpoint={url!r})
            ask(client())
            {wait}
            os._exit(0)
            """,
            bedrock=bedrock,
        )
    (line,) = _said(done)
    assert f"not everything was taken by {url} within 0.3 s" in line


def test_who_wants_no_exporter_is_not_told_to_set_one_up(bedrock):
    done = run(
        "otel_bedrock.instrument(otlp_endpoint='http://127.0.0.1:9'); ask(client())",
        bedrock=bedrock,
        OTEL_TRACES_EXPORTER="none",
        OTEL_METRICS_EXPORTER="none",
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_protocol_is_named_and_http_is_used(bedrock):
    with Receiver() as receiver:
        done = run(
            f"otel_bedrock.instrument(otlp_endpoint={receiver.url!r}); ask(client())",
            bedrock=bedrock,
            OTEL_EXPORTER_OTLP_PROTOCOL="carrier-pigeon",
        )
        assert done.returncode == 0, done.stderr
        assert "http/protobuf or grpc" in done.stderr
        assert len(receiver.spans) == 1


def test_uninstrument_exports_what_is_waiting_and_ends(bedrock):
    with Receiver() as receiver:
        done = run(
            f"""
            otel_bedrock.instrument(otlp_endpoint={receiver.url!r})
            ask(client())
            otel_bedrock.uninstrument()
            ask(client())
            """,
            bedrock=bedrock,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert len(receiver.spans) == 1
