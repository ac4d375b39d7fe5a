"""What the configurations of collector/ promise, with the real collector."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections import Counter

import grpc
import pytest
from fleet import Fleet, Sink, send_log, send_spans, send_sums
from kafka import WithKafka, fetch
from stack import COLLECTOR, ToolsMissing, eventually, free_ports

from otel_bedrock import signals

REMOTE_WRITE = "overlays/remote-write.yaml"
AGENT, GATEWAY, LOGS = "agent.yaml", "gateway.yaml", "logs.yaml"
SETS = {
    "otelcol": ["otelcol.yaml"],
    "agent": [AGENT],
    "gateway": [GATEWAY],
    "logs": [LOGS],
    "agent-keep-content": [AGENT, "overlays/keep-content.yaml"],
    "agent-two-gateways": [AGENT, "overlays/two-gateways.yaml"],
    "agent-kafka": [AGENT, "overlays/kafka-agent.yaml"],
    "gateway-kafka": [GATEWAY, "overlays/kafka-gateway.yaml"],
    "gateway-keep-all": [GATEWAY, "overlays/keep-all-traces.yaml"],
    "gateway-remote-write": [GATEWAY, REMOTE_WRITE],
    "jaeger": ["jaeger.yaml"],
    "jaeger-on-disk": ["jaeger.yaml", "overlays/jaeger-on-disk.yaml"],
}
# Long enough for a trace's second request on a busy machine.
WAIT = "5s"
CANARY = "canary-7f3a: what the user said"
# Metrics leave by gRPC too, to a sink.
TO_SINK = """
exporters:
  otlp_grpc/sink: {endpoint: "${env:SINK}", tls: {insecure: true}}
service:
  pipelines:
    metrics: {exporters: [otlp_grpc/sink]}
    logs: {exporters: [otlp_grpc/sink]}
"""


@pytest.fixture
def fleet(tools):
    with Fleet() as started:
        yield started


@pytest.fixture
def kafka(tools):
    try:
        ready = WithKafka()
        fetch()
    except ToolsMissing as missing:
        if os.environ.get("OTEL_BEDROCK_REQUIRE_E2E") == "1":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    with ready:
        yield ready


@pytest.fixture
def sink():
    with Sink() as up:
        yield up


@pytest.fixture
def to_sink(tmp_path):
    path = tmp_path / "to-sink.yaml"
    path.write_text(TO_SINK)
    return path


def span(**more):
    return {"trace_id": secrets.token_bytes(16), "span_id": secrets.token_bytes(8), **more}


@pytest.mark.parametrize("files", SETS.values(), ids=SETS)
def test_every_configuration_is_valid(tools, files, tmp_path):
    program = "jaeger" if files[0] == "jaeger.yaml" else "otelcol-bedrock"
    arguments = [part for one in files for part in ("--config", str(COLLECTOR / one))]
    done = subprocess.run(
        [tools / program, "validate", *arguments],
        env={**os.environ, "OTELCOL_STORAGE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_every_overlay_is_validated():
    known = {one for files in SETS.values() for one in files}
    found = {str(one.relative_to(COLLECTOR)) for one in COLLECTOR.glob("overlays/*.yaml")}
    assert found <= known


def test_the_agent_masks_content_and_no_count(fleet, sink):
    """Content of any GenAI instrumentation goes; every other attribute arrives as it was sent."""
    kept = {
        one.key: {"int": 1234, "double": 0.5, "boolean": False, "string[]": ["a", "b"]}.get(
            one.type, "some-value"
        )
        for one in signals.ATTRIBUTES
        if one.source != signals.CONTENT
    }
    kept |= {
        "gen_ai.token.type": "input",
        "gen_ai.prompt.name": "greeting",
        "llm.token_count.prompt": 5,
    }
    content = {one.key: CANARY for one in signals.ATTRIBUTES if one.source == signals.CONTENT}
    content |= {
        "gen_ai.prompt": CANARY,
        "gen_ai.prompt.0.content": CANARY,
        "gen_ai.completion.0.tool_calls.0.arguments": CANARY,
        "llm.input_messages.0.message.content": CANARY,
        "input.value": CANARY,
        "output.value": CANARY,
        "traceloop.entity.input": CANARY,
        "gen_ai.tool.call.arguments": CANARY,
    }
    secret = "write to jane.doe@example.com with key AKIAABCDEFGHIJKLMNOP, card 4111 1111 1111 1111"
    agent = fleet.collector("agent", [AGENT], {"OTELCOL_GATEWAY_ENDPOINT": sink.endpoint})
    send_spans(
        agent.grpc,
        [
            span(
                attributes={**kept, **content, "note": secret},
                events=[{**content}],
                message=CANARY,
                error=True,
            )
        ],
    )
    send_log(agent.grpc, CANARY, {"event.name": "gen_ai.user.message", **content})
    send_log(agent.grpc, "an ordinary line", {})

    eventually(lambda: sink.spans and len(sink.logs) == 2)
    (arrived,) = sink.spans
    assert CANARY not in repr(sink.spans)
    assert CANARY not in repr(sink.logs)
    assert {key: arrived["attributes"].get(key) for key in kept} == kept
    assert set(content) <= set(arrived["attributes"])  # masked, so that one sees that it was there
    assert "an ordinary line" in repr(sink.logs)
    for part in ("jane.doe", "AKIA", "4111"):
        assert part not in arrived["attributes"]["note"]


def test_content_arrives_with_the_overlay_that_keeps_it(fleet, sink):
    agent = fleet.collector(
        "agent",
        [AGENT, "overlays/keep-content.yaml"],
        {"OTELCOL_GATEWAY_ENDPOINT": sink.endpoint},
    )
    send_spans(agent.grpc, [span(attributes={"gen_ai.input.messages": CANARY})])
    eventually(lambda: CANARY in repr(sink.spans))


def test_the_gateway_keeps_what_matters_and_every_count(fleet, sink, to_sink):
    """Errors, expensive and slow calls; of the rest none at 0 %. Metrics do not care."""
    gateway = fleet.collector(
        "gateway",
        [GATEWAY, to_sink],
        {
            "TRACES_OTLP_GRPC_ENDPOINT": sink.endpoint,
            "SINK": sink.endpoint,
            "OTELCOL_DECISION_WAIT": WAIT,
            "OTELCOL_KEEP_PERCENT": "0",
        },
    )
    tokens = "gen_ai.usage.{}_tokens".format
    wanted = {
        "error": span(name="error", error=True),
        "input": span(name="input", attributes={tokens("input"): 50_000}),
        "output": span(name="output", attributes={tokens("output"): 8_000}),
        "slow": span(name="slow", seconds=31),
        "broken": span(name="broken", attributes={"bedrock.usage.complete": False}),
        "retried": span(name="retried", attributes={"bedrock.retry_attempts": 2}),
    }
    plain = [
        span(
            name="plain",
            attributes={
                tokens("input"): 49_999,
                tokens("output"): 7_999,
                "bedrock.usage.complete": True,
                "bedrock.retry_attempts": 0,
            },
        )
        for _ in range(50)
    ]
    # A parent without fault, in a request of its own, goes with its child.
    parent = span(name="parent", trace_id=wanted["error"]["trace_id"])
    send_spans(gateway.grpc, [*plain, parent])
    send_spans(gateway.grpc, wanted.values())
    usage = "gen_ai.client.inference.usage.input_tokens"
    send_sums(gateway.grpc, [(usage, {"gen_ai.request.model": "m"}, 56)])

    eventually(lambda: len(sink.spans) >= 7 and sink.points)
    time.sleep(1.5)  # another round of decisions, in which nothing more may come
    assert Counter(one["name"] for one in sink.spans) == Counter([*wanted, "parent"])
    assert [int(point["asInt"]) for point in sink.points] == [56]


def test_ids_never_become_series_and_totals_stay(fleet, sink, to_sink):
    """10,000 request ids are one series, with their sum."""
    gateway = fleet.collector("gateway", [GATEWAY, to_sink], {"SINK": sink.endpoint})
    usage = "gen_ai.client.inference.usage.input_tokens"
    model = {"gen_ai.request.model": "us.anthropic.claude-sonnet-4-5-20250929-v1:0"}
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc"
    send_sums(
        gateway.grpc,
        [
            *(
                (usage, {**model, "aws.request_id": str(n), "session.id": str(n)}, 3)
                for n in range(10_000)
            ),
            (usage, {**model, "bedrock.attribution.tenant": "a"}, 5),
            (usage, {**model, "bedrock.attribution.tenant": "b"}, 7),
            (usage, {"gen_ai.request.model": arn}, 11),
            (usage, {"bedrock.attribution.tenant": "6c1e5a80-93d5-4a2c-8e5d-0123456789ab"}, 13),
            (usage, {"gen_ai.request.model": "application-inference-profile/abc"}, 17),
        ],
    )
    eventually(lambda: sink.points)
    found = {
        (
            point["at"].get("gen_ai.request.model"),
            point["at"].get("bedrock.attribution.tenant"),
        ): int(point["asInt"])
        for point in sink.points
    }
    assert found == {
        (model["gen_ai.request.model"], None): 30_000,
        (model["gen_ai.request.model"], "a"): 5,
        (model["gen_ai.request.model"], "b"): 7,
        ("other", None): 11,
        (None, "6c1e5a80-93d5-4a2c-8e5d-0123456789ab"): 13,
        ("application-inference-profile/abc", None): 17,
    }
    assert len(sink.points) == len(found)


def test_a_full_queue_refuses_and_keeps_what_it_took(fleet, sink):
    """The sender is told to try again; nothing that was taken is pushed out by what comes later."""
    sink.down()
    agent = fleet.collector(
        "agent",
        [AGENT],
        {"OTELCOL_GATEWAY_ENDPOINT": sink.endpoint, "OTELCOL_QUEUE_BYTES": "1500000"},
    )
    taken = []

    def send_on():
        while len(taken) < 10_000:
            request = [span(attributes={"note": "x" * 1_000}) for _ in range(20)]
            send_spans(agent.grpc, request)
            taken.extend(one["span_id"].hex() for one in request)

    with pytest.raises(grpc.RpcError) as refused:
        send_on()
    assert refused.value.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )
    assert 1_000 < len(taken) < 3_000
    sink.up()
    eventually(lambda: {one["span_id"] for one in sink.spans} == set(taken), timeout=60)


@pytest.mark.timeout(300)
def test_remote_write_gives_the_same_series_as_otlp(fleet):
    """What rules and dashboards ask for is there, whichever way it came."""
    prometheus = f"127.0.0.1:{free_ports(1)[0]}"
    fleet.prometheus = f"http://{prometheus}"
    fleet.run(
        "prometheus",
        [
            f"--config.file={fleet.prometheus_config()}",
            f"--storage.tsdb.path={fleet.folder / 'prometheus'}",
            f"--web.listen-address={prometheus}",
            "--web.enable-otlp-receiver",
            "--web.enable-remote-write-receiver",
        ],
        {},
    )
    fleet.await_health("prometheus", f"{fleet.prometheus}/-/ready")
    usage = "gen_ai.client.inference.usage.input_tokens"
    for files, model in (([GATEWAY], "by-otlp"), ([GATEWAY, REMOTE_WRITE], "by-remote-write")):
        gateway = fleet.collector(
            model,
            files,
            {
                "PROMETHEUS_URL": fleet.prometheus,
                "PROMETHEUS_REMOTE_WRITE_URL": f"{fleet.prometheus}/api/v1/write",
            },
        )
        resource = {"service.name": "s", "service.instance.id": "i"}
        send_sums(gateway.grpc, [(usage, {"gen_ai.request.model": model}, 56)], resource=resource)

    def series(model):
        found = fleet.query(
            f'gen_ai_client_inference_usage_input_tokens_total{{gen_ai_request_model="{model}"}}'
        )
        assert [value for _, value in found] == [56]
        return {key: value for key, value in found[0][0].items() if key != "gen_ai_request_model"}

    by_otlp = eventually(lambda: series("by-otlp"))
    by_remote_write = eventually(lambda: series("by-remote-write"))
    assert by_otlp["service_name"] == "s"
    assert by_otlp.items() <= by_remote_write.items()


@pytest.mark.timeout(300)
def test_all_spans_of_a_trace_meet_in_one_gateway_and_wait_for_it(fleet, tmp_path):
    """Two gateways, one of them killed: its traces wait in the agent, the others go on."""
    with Sink() as first_sink, Sink() as second_sink:
        gateways = [
            fleet.collector(
                name,
                [GATEWAY],
                {
                    "TRACES_OTLP_GRPC_ENDPOINT": sink.endpoint,
                    "OTELCOL_DECISION_WAIT": WAIT,
                    "OTELCOL_KEEP_PERCENT": "0",
                },
            )
            for name, sink in (("first", first_sink), ("second", second_sink))
        ]
        agents = [
            fleet.collector(
                name,
                [AGENT, "overlays/two-gateways.yaml"],
                {
                    "OTELCOL_FIRST_GATEWAY_ENDPOINT": gateways[0].grpc,
                    "OTELCOL_SECOND_GATEWAY_ENDPOINT": gateways[1].grpc,
                },
            )
            for name in ("agent-one", "agent-two")
        ]

        sent = traffic(agents, 100)

        eventually(lambda: whole((first_sink, second_sink), sent))
        low = {one for one in sent if one[-1] in "01234567"}
        assert {one["trace_id"] for one in first_sink.spans} == low

        gateways[0].kill()
        sent |= traffic(agents, 100)
        high = {one for one in sent if one[-1] not in "01234567"}
        eventually(lambda: whole((second_sink,), high))
        assert {one["trace_id"] for one in first_sink.spans} == low

        gateways[0].start()
        eventually(lambda: whole((first_sink, second_sink), sent), timeout=60)


@pytest.mark.timeout(300)  # its first run fetches the broker
def test_kafka_between_agents_and_gateways_one_of_which_is_killed(kafka, to_sink):
    """A trace's spans meet in one gateway; when it dies, the other takes over what it had."""
    environ = {"KAFKA_BROKERS": kafka.brokers, "KAFKA_SESSION_TIMEOUT": "6s"}
    with Sink() as first_sink, Sink() as second_sink:
        sinks = (first_sink, second_sink)
        agents = [
            kafka.collector(name, [AGENT, "overlays/kafka-agent.yaml"], environ)
            for name in ("agent-one", "agent-two")
        ]
        gateways = [
            kafka.collector(
                name,
                [GATEWAY, "overlays/kafka-gateway.yaml", to_sink],
                environ
                | {
                    "TRACES_OTLP_GRPC_ENDPOINT": sink.endpoint,
                    "SINK": sink.endpoint,
                    "OTELCOL_DECISION_WAIT": WAIT,
                    "OTELCOL_KEEP_PERCENT": "0",
                },
            )
            for name, sink in (("first", first_sink), ("second", second_sink))
        ]

        def shared():
            """Both take part in the group: before that, a trace may be seen by both."""
            send_spans(agents[0].grpc, [span(error=True) for _ in range(20)])
            return first_sink.spans and second_sink.spans

        eventually(shared, timeout=90, pause=1)
        sent = traffic(agents, 100)
        send_sums(agents[0].grpc, [("my.tokens", {}, 56)])
        eventually(lambda: whole(sinks, sent), timeout=30)
        assert all("parent" in {one["name"] for one in sink.spans} for sink in sinks)
        eventually(lambda: first_sink.points + second_sink.points)
        time.sleep(2)  # offsets are committed once a second

        gateways[0].kill()
        sent |= traffic(agents, 100)
        eventually(lambda: whole(sinks, sent), timeout=60)


def traffic(agents, count):
    """Send traces whose parent, without fault, and whose failed child come by two agents."""
    ids = [secrets.token_bytes(16) for _ in range(count)]
    send_spans(agents[0].grpc, [span(name="parent", trace_id=one) for one in ids])
    send_spans(agents[1].grpc, [span(name="child", trace_id=one, error=True) for one in ids])
    return {one.hex() for one in ids}


def whole(sinks, wanted):
    """Check that each trace is there, with both of its spans, in one of the sinks."""
    got = Counter(
        (n, one["trace_id"])
        for n, sink in enumerate(sinks)
        for one in sink.spans
        if one["name"] in ("parent", "child")
    )
    found = {trace for _, trace in got}
    assert found == wanted, f"{len(found)} of {len(wanted)}"
    assert set(got.values()) == {2}
    assert len(got) == len(found)
    return True
