"""Content: nothing of it leaves unless it was asked for; then all of it, where it belongs."""

from __future__ import annotations

import base64
import copy
import dataclasses
import importlib
import inspect
import itertools
import json
import logging
from contextlib import contextmanager

import pytest
from botocore.exceptions import EventStreamError
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import otel_bedrock
from otel_bedrock import content, shield, usage
from otel_bedrock.config import SETTINGS, Config, read_config
from otel_bedrock.content import deltas, details, gate, messages, parts, pieces
from otel_bedrock.content.excerpt import CUT, Copier
from otel_bedrock.observers import StreamObserver
from otel_bedrock.recorder import Recorder
from otel_bedrock.testing import FakeBedrock, capture

RUNTIME, AGENTS = "bedrock-runtime", "bedrock-agent-runtime"
SONNET = "anthropic.claude-sonnet-4-20250514-v1:0"
NOVA = "amazon.nova-lite-v1:0"
TITAN = "amazon.titan-embed-text-v2:0"
VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
FIELDS = {
    "input": "gen_ai.input.messages",
    "output": "gen_ai.output.messages",
    "system": "gen_ai.system_instructions",
    "tools": "gen_ai.tool.definitions",
}

# A word that no code of ours could ever say; what follows it says where it was put.
CANARY = "Canary7f3e"
IN_BYTES = f"{CANARY}-bytes".encode()
IN_BASE64 = base64.b64encode(IN_BYTES).decode()
LEAKS = (CANARY, IN_BASE64[:12], IN_BYTES.hex())


def canary(place):
    return f"{CANARY} in {place}"


SYSTEM = [{"text": canary("system")}]
TOOL = {
    "toolSpec": {
        "name": "get_weather",
        "description": canary("description"),
        "inputSchema": {"json": {"type": "object", "title": canary("schema")}},
    }
}
MESSAGES = [
    {
        "role": "user",
        "content": [
            {"text": canary("question")},
            {"image": {"format": "png", "source": {"bytes": IN_BYTES}}},
            {
                "document": {
                    "format": "pdf",
                    "name": f"{CANARY} name",
                    "source": {"bytes": IN_BYTES},
                }
            },
            {"guardContent": {"text": {"text": canary("guarded")}}},
        ],
    },
    {
        "role": "assistant",
        "content": [
            {
                "toolUse": {
                    "toolUseId": "t1",
                    "name": "get_weather",
                    "input": {"city": canary("tool input"), canary("tool key"): 1},
                }
            }
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "toolResult": {
                    "toolUseId": "t1",
                    "content": [
                        {"text": canary("tool result")},
                        {"json": {"sky": canary("tool json")}},
                    ],
                }
            }
        ],
    },
]
REQUEST = {
    "modelId": SONNET,
    "messages": MESSAGES,
    "system": SYSTEM,
    "toolConfig": {"tools": [TOOL]},
    "requestMetadata": {"team": f"{CANARY}-metadata"},
    "additionalModelRequestFields": {"extra": canary("additional fields")},
}
GUARDRAIL = {
    "modelOutput": [canary("model output")],
    "inputAssessment": {
        "g1": {
            "wordPolicy": {
                "customWords": [{"match": canary("guardrail match"), "action": "BLOCKED"}]
            },
            "invocationMetrics": {"usage": {"topicPolicyUnits": 1}},
        }
    },
}
USAGE = {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}
ANSWER = {
    "output": {
        "message": {
            "role": "assistant",
            "content": [
                {
                    "reasoningContent": {
                        "reasoningText": {"text": canary("reasoning"), "signature": CANARY}
                    }
                },
                {"text": canary("answer")},
                {
                    "toolUse": {
                        "toolUseId": "t2",
                        "name": "get_weather",
                        "input": {"city": canary("tool call")},
                    }
                },
            ],
        }
    },
    "stopReason": "tool_use",
    "usage": USAGE,
    "metrics": {"latencyMs": 1},
    "trace": {"guardrail": GUARDRAIL},
    "additionalModelResponseFields": {"extra": canary("response fields")},
}
ARGUMENTS = json.dumps({"city": canary("tool call"), "note": 'a "quoted" word'})


def _delta(delta, index):
    return {"contentBlockDelta": {"contentBlockIndex": index, "delta": delta}}


EVENTS = [
    {"messageStart": {"role": "assistant"}},
    _delta({"reasoningContent": {"text": canary("reasoning")}}, 0),
    _delta({"reasoningContent": {"signature": CANARY}}, 0),
    {"contentBlockStop": {"contentBlockIndex": 0}},
    _delta({"text": canary("answer")[:9]}, 1),
    _delta({"text": canary("answer")[9:]}, 1),
    {"contentBlockStop": {"contentBlockIndex": 1}},
    {
        "contentBlockStart": {
            "contentBlockIndex": 2,
            "start": {"toolUse": {"toolUseId": "t2", "name": "get_weather"}},
        }
    },
    _delta({"toolUse": {"input": ARGUMENTS[:20]}}, 2),
    _delta({"toolUse": {"input": ARGUMENTS[20:]}}, 2),
    {"contentBlockStop": {"contentBlockIndex": 2}},
    {"messageStop": {"stopReason": "tool_use"}},
    {"metadata": {"usage": USAGE, "metrics": {"latencyMs": 1}, "trace": {"guardrail": GUARDRAIL}}},
]
CLAUDE = {
    "anthropic_version": "bedrock-2023-05-31",
    "max_tokens": 10,
    "system": canary("system"),
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": canary("question")},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": IN_BASE64},
                },
                {"type": "tool_result", "tool_use_id": "t1", "content": canary("tool result")},
            ],
        }
    ],
    "tools": [{"name": "get_weather", "description": canary("description"), "input_schema": {}}],
}
CLAUDE_ANSWER = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "content": [{"type": "text", "text": canary("answer")}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}
COUNTS = {"x-amzn-bedrock-input-token-count": "3", "x-amzn-bedrock-output-token-count": "2"}
CLAUDE_CHUNKS = [
    {"type": "message_start", "message": {"role": "assistant", "usage": {"input_tokens": 3}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": canary("answer")[:9]},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": canary("answer")[9:]},
    },
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 2},
    },
]


@pytest.fixture(scope="module")
def bedrock():
    with FakeBedrock() as server:
        # Making a client costs more than all of its calls here.
        clients = {name: server.client(name) for name in (RUNTIME, AGENTS)}
        server.client = lambda name=RUNTIME: clients[name]
        yield server


@pytest.fixture(autouse=True)
def _clean(bedrock):
    shield.reset()
    yield
    bedrock.reset()
    shield.reset()


@pytest.fixture
def quiet(monkeypatch):
    """Telemetry bugs do not raise, as in production."""
    monkeypatch.delenv(shield.RAISE_VARIABLE)


# --- One call of every kind, with canaries in everything -----------------------------------


def _converse(bedrock):
    bedrock.reply(ANSWER)
    bedrock.client().converse(**REQUEST)


def _converse_stream(bedrock):
    bedrock.reply_events(EVENTS)
    list(bedrock.client().converse_stream(**REQUEST)["stream"])


def _abandoned_stream(bedrock):
    bedrock.reply_events(EVENTS)
    stream = bedrock.client().converse_stream(**REQUEST)["stream"]
    for _ in zip(range(6), stream, strict=False):
        pass
    stream.close()


def _invoke(bedrock):
    bedrock.reply(CLAUDE_ANSWER, COUNTS)
    bedrock.client().invoke_model(modelId=SONNET, body=json.dumps(CLAUDE))["body"].read()


def _invoke_stream(bedrock):
    bedrock.reply_events(CLAUDE_CHUNKS, native=True)
    body = json.dumps(CLAUDE)
    list(bedrock.client().invoke_model_with_response_stream(modelId=SONNET, body=body)["body"])


def _embed(bedrock):
    body = json.dumps({"inputText": canary("question")})
    bedrock.client().invoke_model(modelId=TITAN, body=body)["body"].read()


def _count(bedrock):
    client = bedrock.client()
    if not hasattr(client, "count_tokens"):
        return
    inner = {"messages": MESSAGES[:1], "system": SYSTEM}
    bedrock.reply({"inputTokens": 3})
    client.count_tokens(modelId=SONNET, input={"converse": inner})


def _guard(bedrock):
    bedrock.reply(
        {
            "action": "GUARDRAIL_INTERVENED",
            "outputs": [{"text": canary("answer")}],
            "assessments": [GUARDRAIL["inputAssessment"]["g1"]],
            "usage": {"topicPolicyUnits": 1},
        }
    )
    bedrock.client().apply_guardrail(
        guardrailIdentifier="g1",
        guardrailVersion="1",
        source="INPUT",
        content=[{"text": {"text": canary("question")}}],
    )


def _agent(bedrock):
    bedrock.reply_events([("chunk", canary("answer").encode())])
    answer = bedrock.client(AGENTS).invoke_agent(
        agentId="AGENT12345",
        agentAliasId="ALIAS12345",
        sessionId="s1",
        inputText=canary("question"),
    )
    list(answer["completion"])


def _knowledge_base(bedrock):
    bedrock.reply(
        {
            "sessionId": "s1",
            "output": {"text": canary("answer")},
            "citations": [{"retrievedReferences": [{"content": {"text": canary("source")}}]}],
        }
    )
    bedrock.client(AGENTS).retrieve_and_generate(input={"text": canary("question")})


def _refused(bedrock):
    client = bedrock.client()
    bedrock.fail("ValidationException", canary("error message"))
    with pytest.raises(client.exceptions.ValidationException, match=CANARY):
        client.converse(**REQUEST)


def _broken_stream(bedrock):
    client = bedrock.client()
    bedrock.stream_error("modelStreamErrorException", 3, canary("error message"))
    stream = client.converse_stream(**REQUEST)["stream"]
    with pytest.raises(EventStreamError, match=CANARY):
        list(stream)
    stream.close()


def _no_such_model(bedrock):
    client = bedrock.client()
    with pytest.raises(client.exceptions.ValidationException):
        client.converse(**{**REQUEST, "modelId": "does-not-exist"})


CALLS = {
    call.__name__.strip("_"): call
    for call in (
        _converse,
        _converse_stream,
        _abandoned_stream,
        _invoke,
        _invoke_stream,
        _embed,
        _count,
        _guard,
        _agent,
        _knowledge_base,
        _refused,
        _broken_stream,
        _no_such_model,
    )
}


def _told(captured, caplog):
    """Everything that left, or that somebody could read, as one text."""
    spans = [
        (
            span.name,
            dict(span.attributes),
            span.status.description,
            [(event.name, dict(event.attributes or {})) for event in span.events],
            [dict(link.attributes or {}) for link in span.links],
        )
        for span in captured.spans
    ]
    points = [(point.metric, dict(point.attributes)) for point in captured.points]
    events = [dataclasses.asdict(event) for event in captured.events]
    logs = [
        (record.getMessage(), record.exc_text, str(record.exc_info))
        for record in caplog.records
        if record.name.startswith(("otel_bedrock", "opentelemetry"))
    ]
    return repr((spans, points, events, logs))


def _leaks(told):
    return [leak for leak in LEAKS if leak in told]


@pytest.mark.parametrize("name", CALLS)
def test_by_default_no_canary_is_told(name, bedrock, caplog, capsys, recwarn):
    with caplog.at_level(logging.DEBUG), capture(metrics="all", semconv="both") as captured:
        CALLS[name](bedrock)
        told = _told(captured, caplog)
        assert len(captured.spans) == 1 or name == "count"
        assert captured.events == ()
        assert all(span.status.description is None for span in captured.spans)
    assert not _leaks(told)
    assert not any(span for span in FIELDS.values() if span in told)
    assert not _leaks(repr(capsys.readouterr()))
    assert not [warning for warning in recwarn if _leaks(str(warning.message))]


def test_the_canaries_are_found_where_they_are_told(bedrock, caplog):
    """The test above can fail."""
    for name, call in CALLS.items():
        with capture(capture_content="SPAN_AND_EVENT") as captured:
            call(bedrock)
            if captured.spans:
                assert _leaks(_told(captured, caplog)) == [CANARY], name


def _explode(*_, **__):
    raise ValueError(canary("an internal error"))


# What breaks inside, in every layer that sees content.
BREAKS = (
    (usage, "read_usage"),
    (usage, "read_headers"),
    (usage, "read_body"),
    (usage, "decide"),
    (Recorder, "describe"),
    (Recorder, "measure"),
    (Recorder, "start"),
    (StreamObserver, "_outcome"),
    (messages, "read_request"),
    (messages, "read_answer"),
    (deltas, "dig"),
    (pieces.Pieces, "messages"),
    (gate, "fit"),
    (Copier, "text"),
    (details.Details, "emit"),
)


@pytest.mark.parametrize("mode", ["NO_CONTENT", "SPAN_AND_EVENT"])
@pytest.mark.parametrize(
    ("where", "what"), BREAKS, ids=lambda part: getattr(part, "__name__", part)
)
def test_nothing_that_breaks_inside_tells_a_canary(
    where, what, mode, bedrock, caplog, monkeypatch, quiet
):
    """The log of the shield says what kind of error and where, and nothing of its text."""
    with caplog.at_level(logging.DEBUG), capture(capture_content=mode) as captured:
        monkeypatch.setattr(where, what, _explode)
        for call in CALLS.values():
            call(bedrock)
        monkeypatch.undo()
        monkeypatch.delenv(shield.RAISE_VARIABLE)
        spans, points = captured.spans, captured.points
    if what != "start":
        assert len(spans) >= len(CALLS) - 1
    logs = [record for record in caplog.records if record.name == "otel_bedrock"]
    assert not _leaks(repr([record.getMessage() for record in logs]))
    assert not any(record.exc_info for record in logs)
    errors = sum(p.value for p in points if p.metric == "bedrock.instrumentation.errors")
    assert bool(logs) == bool(errors) or what == "measure"
    if mode == "NO_CONTENT":
        assert not _leaks(repr([(span.name, dict(span.attributes)) for span in spans]))


# --- The gate ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["true", "True", "TRUE", "1", "yes", "Yes", " span_only "])
def test_yes_in_any_case_means_on_spans(value, caplog):
    assert read_config({}, {VARIABLE: value}).capture_content == "SPAN_ONLY"
    assert read_config({"capture_content": value}).capture_content == "SPAN_ONLY"
    assert not caplog.records


@pytest.mark.parametrize("value", ["maybe", "spans", "2", "on", "SPAN-ONLY", "ja"])
def test_anything_else_means_no_content_with_one_warning(value, caplog):
    assert read_config({}, {VARIABLE: value}).capture_content == "NO_CONTENT"
    assert len(caplog.records) == 1
    assert VARIABLE in caplog.text


@pytest.mark.parametrize("value", ["", "false", "False", "0", "no", "no_content"])
def test_no_means_no(value, caplog):
    assert read_config({}, {VARIABLE: value}).capture_content == "NO_CONTENT"
    assert not caplog.records


def test_with_the_gate_shut_nothing_looks_at_content(bedrock, monkeypatch):
    assert content.open_gate(Config()) is None
    for module in (gate, messages, deltas, details):
        for name, value in list(vars(module).items()):
            ours = inspect.isfunction(value) and value.__module__ == module.__name__
            if ours:
                monkeypatch.setattr(module, name, _explode)
    for kind in (gate.Gate, gate.Content, pieces.Pieces):
        monkeypatch.setattr(kind, "__init__", _explode)
    monkeypatch.setattr(details.Details, "emit", _explode)
    with capture() as captured:
        for call in CALLS.values():
            call(bedrock)
        assert captured.total("bedrock.instrumentation.errors") is None


@pytest.mark.parametrize("mode", ["SPAN_ONLY", "EVENT_ONLY"])
def test_a_span_that_is_not_sampled_is_not_read_for(mode, bedrock, monkeypatch):
    read = []
    monkeypatch.setattr(messages, "read_request", lambda *a: read.append(a) or {})
    with capture(sampler=ALWAYS_OFF, capture_content=mode) as captured:
        _converse(bedrock)
        assert len(captured.events) == len(read) == (mode == "EVENT_ONLY")


# --- What is told where it was asked for ---------------------------------------------------

BLOB = {"type": "blob", "modality": "image", "mime_type": "image/png", "byte_size": len(IN_BYTES)}
CONVERSED = {
    "system": [{"type": "text", "content": canary("system")}],
    "tools": [{"type": "function", "name": "get_weather"}],
    "input": [
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": canary("question")},
                BLOB,
                {**BLOB, "modality": "document", "mime_type": "application/pdf"},
                {"type": "text", "content": canary("guarded")},
            ],
        },
        {
            "role": "assistant",
            "parts": [
                {
                    "type": "tool_call",
                    "id": "t1",
                    "name": "get_weather",
                    "arguments": {"city": canary("tool input"), canary("tool key"): 1},
                }
            ],
        },
        {
            "role": "user",
            "parts": [
                {
                    "type": "tool_call_response",
                    "id": "t1",
                    "response": [
                        {"type": "text", "content": canary("tool result")},
                        {
                            "type": "generic",
                            "generic_type": "json",
                            "content": {"sky": canary("tool json")},
                        },
                    ],
                }
            ],
        },
    ],
}


def _answered(arguments):
    return [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": canary("reasoning")},
                {"type": "text", "content": canary("answer")},
                {
                    "type": "tool_call",
                    "id": "t2",
                    "name": "get_weather",
                    "arguments": arguments,
                },
            ],
            "finish_reason": "tool_use",
        }
    ]


INVOKED = {
    "system": [{"type": "text", "content": canary("system")}],
    "tools": [{"type": "function", "name": "get_weather"}],
    "input": [
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": canary("question")},
                BLOB,
                {"type": "tool_call_response", "id": "t1", "response": canary("tool result")},
            ],
        }
    ],
    "output": [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": canary("answer")}],
            "finish_reason": "end_turn",
        }
    ],
}
ASKED = [{"role": "user", "parts": [{"type": "text", "content": canary("question")}]}]
ANSWERED = [{"role": "assistant", "parts": [{"type": "text", "content": canary("answer")}]}]
EXPECTED = {
    "converse": {**CONVERSED, "output": _answered({"city": canary("tool call")})},
    "converse_stream": {**CONVERSED, "output": _answered(json.loads(ARGUMENTS))},
    "abandoned_stream": {
        **CONVERSED,
        "output": [
            {
                "role": "assistant",
                "parts": [
                    {"type": "reasoning", "content": canary("reasoning")},
                    {"type": "text", "content": canary("answer")},
                ],
                "finish_reason": "error",
            }
        ],
    },
    "invoke": INVOKED,
    "invoke_stream": INVOKED,
    "embed": {"input": ASKED},
    "guard": {"input": ASKED, "output": ANSWERED},
    "agent": {"input": ASKED, "output": ANSWERED},
    "knowledge_base": {"input": ASKED, "output": ANSWERED},
    "refused": CONVERSED,
    "no_such_model": CONVERSED,
}
MODES = {"SPAN_ONLY": (True, False), "EVENT_ONLY": (False, True), "SPAN_AND_EVENT": (True, True)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", EXPECTED)
def test_each_mode_tells_the_content_in_its_place(name, mode, bedrock):
    on_spans, on_events = MODES[mode]
    with capture(capture_content=mode) as captured:
        CALLS[name](bedrock)
        span, events = captured.span, captured.events
        assert captured.total("bedrock.instrumentation.errors") is None
    wanted = {FIELDS[field]: value for field, value in EXPECTED[name].items()}
    on_span = {
        key: json.loads(span.attributes[key]) for key in FIELDS.values() if key in span.attributes
    }
    assert on_span == (wanted if on_spans else {})
    assert len(events) == on_events
    for event in events:
        assert event.name == "gen_ai.client.inference.operation.details"
        assert event.severity == "DEBUG"
        assert (event.trace_id, event.span_id) == (span.context.trace_id, span.context.span_id)
        assert event.timestamp == span.end_time
        told = dict(event.attributes)
        assert {key: told.pop(key) for key in wanted} == wanted
        told.pop("error.message", None)
        assert told == {key: value for key, value in span.attributes.items() if key not in wanted}
    assert not {IN_BASE64, IN_BASE64[:12]} & set(repr((span.attributes, events)).split('"'))
    assert _leaks(repr((dict(span.attributes), events))) == [CANARY]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["refused", "broken_stream"])
def test_the_message_of_an_error_is_content(name, mode, bedrock):
    on_spans, on_events = MODES[mode]
    with capture(capture_content=mode, redact=str.upper) as captured:
        CALLS[name](bedrock)
        span, events = captured.span, captured.events
    assert span.status.status_code.name == "ERROR"
    expected = canary("error message").upper()
    assert span.status.description == (expected if on_spans else None)
    assert [event.attributes["error.message"] for event in events] == [expected] * on_events


@pytest.mark.parametrize("name", EXPECTED)
def test_every_text_goes_through_the_redaction(name, bedrock):
    with capture(
        capture_content="SPAN_AND_EVENT", redact=lambda text: text.replace(CANARY, "*")
    ) as captured:
        CALLS[name](bedrock)
        told = repr((captured.span.attributes, captured.span.status, captured.events))
        assert captured.total("bedrock.instrumentation.errors") is None
    assert "* in question" in told
    assert not _leaks(told)


@pytest.mark.parametrize("redact", [_explode, lambda text: None, lambda text: text.encode()])
@pytest.mark.parametrize("name", EXPECTED)
def test_a_redaction_that_fails_drops_the_content(name, redact, bedrock, caplog, quiet):
    with capture(capture_content="SPAN_AND_EVENT", redact=redact) as captured:
        CALLS[name](bedrock)
        told = _told(captured, caplog)
        attributes = captured.span.attributes
        errors = captured.total("bedrock.instrumentation.errors", site="content.request")
    assert not _leaks(told)
    assert not any(FIELDS[field] in attributes for field in ("input", "output", "system"))
    assert errors == 1
    assert "telemetry failed at content.request" in caplog.text
    # All the rest is there.
    assert attributes["gen_ai.provider.name"] == "aws.bedrock"


def test_a_redaction_that_fails_once_costs_what_it_was_given_alone(bedrock, quiet):
    def redact(text):
        if "answer" in text:
            raise ValueError(text)
        return text

    with capture(capture_content="SPAN_ONLY", redact=redact) as captured:
        _converse(bedrock)
        attributes = captured.span.attributes
    assert FIELDS["input"] in attributes
    assert FIELDS["output"] not in attributes


@pytest.mark.parametrize("limit", [0, 40, 300, 620, 5000])
@pytest.mark.parametrize("name", ["converse", "converse_stream", "invoke", "invoke_stream"])
def test_content_is_capped(name, limit, bedrock):
    with capture(capture_content="SPAN_AND_EVENT", content_limit=limit) as captured:
        CALLS[name](bedrock)
        (event,) = captured.events or (None,)
        attributes = captured.span.attributes
        for key in FIELDS.values():
            text = attributes.get(key)
            if text is not None:
                assert len(text) <= limit
                assert json.loads(text) == event.attributes[key]
    if limit == 5000:
        assert set(FIELDS.values()) <= set(attributes)
    if limit == 620 and name.startswith("converse"):
        assert CUT in attributes[FIELDS["input"]]
    if limit == 0:
        assert event is None


def test_a_long_text_is_cut_and_marked(bedrock):
    said = [{"role": "user", "content": [{"text": "short"}, {"text": 'é"' * 100_000}]}]
    with capture(capture_content="SPAN_ONLY") as captured:
        bedrock.client().converse(modelId=SONNET, messages=said)
        text = captured.span.attributes[FIELDS["input"]]
    assert 60_000 < len(text) <= 65_536
    first, second = json.loads(text)[0]["parts"]
    assert first["content"] == "short"
    assert second["content"].removesuffix(CUT).strip('é"') == ""
    assert second["content"].endswith(CUT)


def test_what_is_told_is_what_was_sent(bedrock):
    """A caller who goes on with the same list while the stream runs changes nothing."""
    said = [{"role": "user", "content": [{"text": "first"}]}]
    with capture(capture_content="SPAN_ONLY") as captured:
        stream = bedrock.client().converse_stream(modelId=SONNET, messages=said)["stream"]
        said[0]["content"][0]["text"] = "changed"
        said.append({"role": "user", "content": [{"text": "second"}]})
        list(stream)
        (message,) = json.loads(captured.span.attributes[FIELDS["input"]])
    assert message["parts"] == [{"type": "text", "content": "first"}]


def test_a_request_body_in_a_file_is_not_read(bedrock, tmp_path):
    path = tmp_path / "body.json"
    path.write_text(json.dumps(CLAUDE))
    with capture(capture_content="SPAN_ONLY") as captured, path.open("rb") as body:
        bedrock.client().invoke_model(modelId=SONNET, body=body)["body"].read()
        attributes = captured.span.attributes
    assert FIELDS["input"] not in attributes
    assert FIELDS["output"] in attributes


def test_the_time_of_a_redaction_is_not_the_calls(bedrock):
    import time

    def redact(text):
        time.sleep(0.05)
        return text

    with capture(capture_content="SPAN_ONLY", redact=redact) as captured:
        _converse(bedrock)
        duration = captured.total("gen_ai.client.inference.duration")
    assert duration < 0.3


# --- The caller ----------------------------------------------------------------------------


@contextmanager
def _nothing(**_):
    yield None


def _pieces_of(text, sizes):
    found, sizes = [], itertools.cycle(sizes)
    while text:
        size = next(sizes)
        found.append(text[:size])
        text = text[size:]
    return found


@settings(max_examples=40, deadline=None)
@given(
    text=st.text(max_size=40),
    arguments=st.text(max_size=40) | st.just(ARGUMENTS),
    reasoning=st.text(max_size=20),
    sizes=st.lists(st.integers(1, 15), min_size=1, max_size=5),
    chunk_size=st.none() | st.integers(1, 200),
)
def test_the_caller_sees_the_same_events_unmodified(
    text, arguments, reasoning, sizes, chunk_size, bedrock
):
    """As contrib#3537 did not: quotes were stripped from the arguments of the caller's tools."""
    events = [
        {"messageStart": {"role": "assistant"}},
        *(
            _delta({"reasoningContent": {"text": piece}}, 0)
            for piece in _pieces_of(reasoning, sizes)
        ),
        *(_delta({"text": piece}, 1) for piece in _pieces_of(text, sizes)),
        {
            "contentBlockStart": {
                "contentBlockIndex": 2,
                "start": {"toolUse": {"toolUseId": "t1", "name": "get_weather"}},
            }
        },
        *(_delta({"toolUse": {"input": piece}}, 2) for piece in _pieces_of(arguments, sizes)),
        {"messageStop": {"stopReason": "tool_use"}},
        {"metadata": {"usage": USAGE, "metrics": {"latencyMs": 1}}},
    ]
    bedrock.chunk_size = chunk_size
    ways = (
        (_nothing, {}),
        (capture, {}),
        (capture, {"capture_content": "SPAN_AND_EVENT", "redact": str.upper}),
    )
    seen = []
    for instrumented, settings_ in ways:
        with instrumented(**settings_) as captured:
            bedrock.reply_events(events)
            kept, copies = [], []
            for event in bedrock.client().converse_stream(**REQUEST)["stream"]:
                kept.append(event)
                copies.append(copy.deepcopy(event))
            spans = captured.spans if captured else ()
        assert kept == copies == events
        assert all(type(one) is type(other) for one, other in zip(kept, copies, strict=True))
        seen.append((kept, spans))
    bedrock.chunk_size = None
    # And what was told is the whole, whatever the pieces.
    (message,) = json.loads(seen[2][1][0].attributes[FIELDS["output"]])
    told = {part["type"]: part for part in message["parts"]}
    if text:
        assert told["text"]["content"] == Copier(65_536, str.upper)(text)
    parsed = parts.parse_arguments(arguments or "{}") if arguments else {}
    assert told["tool_call"]["arguments"] == Copier(65_536, str.upper)(parsed)


@pytest.mark.parametrize("model", [SONNET, NOVA])
def test_the_same_words_are_told_with_a_stream_and_without(model, bedrock):
    client = bedrock.client()
    request = {"modelId": model, "messages": [{"role": "user", "content": [{"text": "Hello!"}]}]}
    body = {"messages": [{"role": "user", "content": [{"text": "Hello!"}]}]}
    if model == SONNET:
        body = {**CLAUDE, "messages": [{"role": "user", "content": "Hello!"}]}
    body = json.dumps(body)
    with capture(capture_content="SPAN_ONLY") as captured:
        client.converse(**request)
        list(client.converse_stream(**request)["stream"])
        client.invoke_model(modelId=model, body=body)["body"].read()
        list(client.invoke_model_with_response_stream(modelId=model, body=body)["body"])
        told = [json.loads(span.attributes[FIELDS["output"]]) for span in captured.spans]
    assert len(told) == 4
    for (one,), (other,) in (told[:2], told[2:]):
        assert one["parts"] == other["parts"]


# --- Events --------------------------------------------------------------------------------


def _sdk_events():
    """A provider of the installed SDK that keeps what it is given, and what that is as OTLP."""
    from opentelemetry.sdk import _logs as sdk
    from opentelemetry.sdk._logs import export

    name = "InMemoryLogRecordExporter"
    exporter = getattr(export, name, None) or export.InMemoryLogExporter
    kept = exporter()
    provider = sdk.LoggerProvider()
    provider.add_log_record_processor(export.SimpleLogRecordProcessor(kept))
    return provider, kept


def test_events_can_be_exported_by_the_installed_sdk(bedrock):
    """In the SDK's own pipeline, and as OTLP, with structures and not their JSON."""
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs

    from otel_bedrock.instrumentor import exchange

    provider, kept = _sdk_events()
    with capture(capture_content="EVENT_ONLY") as captured:
        given_ = exchange(None)
        exchange(dataclasses.replace(given_, logger_provider=provider))
        _converse(bedrock)
        assert otel_bedrock.flush()
        span = captured.span
    encoded = MessageToDict(encode_logs(kept.get_finished_logs()))
    (scope,) = encoded["resourceLogs"][0]["scopeLogs"]
    (record,) = scope["logRecords"]
    assert scope["scope"]["name"] == "otel_bedrock"
    assert record["severityNumber"] == "SEVERITY_NUMBER_DEBUG"
    assert base64.b64decode(record["spanId"]) == span.context.span_id.to_bytes(8, "big")
    values = {item["key"]: item["value"] for item in record.get("attributes", ())}
    values |= {
        item["key"]: item["value"]
        for item in record.get("body", {}).get("kvlistValue", {}).get("values", ())
    }
    (message,) = values[FIELDS["output"]]["arrayValue"]["values"]
    assert message["kvlistValue"]["values"][0] == {
        "key": "role",
        "value": {"stringValue": "assistant"},
    }
    name = record.get("eventName") or values["event.name"]["stringValue"]
    assert name == "gen_ai.client.inference.operation.details"
    provider.shutdown()


def test_without_an_api_for_events_one_warning_and_the_span_as_ever(bedrock, caplog, monkeypatch):
    real = importlib.import_module

    def missing(name, *args):
        if name.startswith(("opentelemetry._logs", "opentelemetry._events")):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(details.importlib, "import_module", missing)
    with capture(capture_content="SPAN_AND_EVENT") as captured:
        _converse(bedrock)
        _converse(bedrock)
        assert captured.events == ()
        assert all(FIELDS["output"] in span.attributes for span in captured.spans)
        assert captured.total("bedrock.instrumentation.errors") is None
    assert [record.getMessage() for record in caplog.records].count(details._MISSING) == 1
    assert not _leaks(caplog.text)


def test_events_that_go_nowhere_are_warned_of_once(bedrock, caplog):
    from otel_bedrock.instrumentor import exchange

    with capture(capture_content="EVENT_ONLY"):
        given_ = exchange(None)
        exchange(dataclasses.replace(given_, logger_provider=None))
        _converse(bedrock)
        _converse(bedrock)
    assert [record.getMessage() for record in caplog.records].count(details._NOWHERE) == 1


def test_the_logs_api_is_not_imported_unless_events_are_told(bedrock, monkeypatch):
    monkeypatch.setattr(details.importlib, "import_module", _explode)
    with capture(capture_content="SPAN_ONLY") as captured:
        _converse(bedrock)
        assert captured.total("bedrock.instrumentation.errors") is None


# --- Settings ------------------------------------------------------------------------------


def test_the_settings_of_content():
    assert read_config({}).content_limit == 65_536
    assert read_config({}, {"OTEL_BEDROCK_CONTENT_LIMIT": "100"}).content_limit == 100
    assert read_config({"redact": str.upper}).redact is str.upper
    with pytest.raises(ValueError, match="redact: expected a function"):
        read_config({"redact": "module:function"})
    (row,) = (setting for setting in SETTINGS if setting.name == "redact")
    assert not row.variable
    assert read_config({}, {"": "module:function"}).redact is None
