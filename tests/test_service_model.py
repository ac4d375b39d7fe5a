"""botocore's own service model: what Bedrock may answer is read, or is left out for a reason.

When this fails after an upgrade of botocore, Bedrock answers something new: read it, or add a
line to OPERATIONS_LEFT_OUT or LEFT_OUT that says why not. What is read is not listed anywhere:
it is seen, by taking each member out of an answer that has all of them.
"""

from __future__ import annotations

import copy
import json

import botocore.session
import pytest

from otel_bedrock import operations
from otel_bedrock.answer import read_answer
from otel_bedrock.events import DIALECTS
from otel_bedrock.providers import GENERIC

SERVICE = "bedrock-runtime"
MODEL = botocore.session.get_session().get_service_model(SERVICE)

OPERATIONS_LEFT_OUT = {
    "GetAsyncInvoke": "asks for the state of a job, and spends nothing",
    "ListAsyncInvokes": "asks for the state of jobs, and spends nothing",
    "InvokeModelWithBidirectionalStream": "botocore has no HTTP/2, and cannot call it",
}

_CONTENT = "content: messages.py reads it, where it may"
_MATCHED = "what a guardrail matched, which is a piece of somebody's prompt"

# (shape, member) -> why nothing of it is told. What is below it is left out as well.
LEFT_OUT = {
    ("TokenUsage", "totalTokens"): "the sum of the others",
    ("ConverseResponse", "output"): _CONTENT,
    ("ConverseStreamOutput", "messageStart"): "the role, which is always assistant",
    ("ConverseStreamOutput", "contentBlockStart"): _CONTENT,
    ("ConverseStreamOutput", "contentBlockStop"): "the end of content",
    ("ContentBlockDeltaEvent", "delta"): _CONTENT,
    ("ContentBlockDeltaEvent", "contentBlockIndex"): "the place of content",
    ("InvokeModelResponse", "contentType"): "it is JSON or not, which parsing tells",
    ("InvokeModelWithResponseStreamResponse", "contentType"): "see InvokeModelResponse",
    ("StartAsyncInvokeResponse", "invocationArn"): "has an account id, and tells no model",
    ("GuardrailTraceAssessment", "modelOutput"): _MATCHED,
    ("GuardrailTraceAssessment", "actionReason"): "a sentence for people",
    ("GuardrailAssessment", "topicPolicy"): _MATCHED,
    ("GuardrailAssessment", "contentPolicy"): _MATCHED,
    ("GuardrailAssessment", "wordPolicy"): _MATCHED,
    ("GuardrailAssessment", "sensitiveInformationPolicy"): _MATCHED,
    ("GuardrailAssessment", "contextualGroundingPolicy"): _MATCHED,
    ("GuardrailAssessment", "automatedReasoningPolicy"): _MATCHED,
    ("GuardrailAssessment", "appliedGuardrailDetails"): "the request names the guardrail",
    ("GuardrailInvocationMetrics", "guardrailProcessingLatency"): "a part of the call's own",
    ("GuardrailInvocationMetrics", "guardrailCoverage"): "characters; what is billed are units",
    ("GuardrailUsage", "automatedReasoningPolicies"): "how many looked; what is billed are units",
    ("ApplyGuardrailResponse", "actionReason"): "a sentence for people",
    ("ApplyGuardrailResponse", "outputs"): _CONTENT,
    ("ApplyGuardrailResponse", "assessments"): "their units add up to `usage`",
    ("ApplyGuardrailResponse", "guardrailCoverage"): "characters; what is billed are units",
    ("InvokeGuardrailChecksResponse", "results"): "scores, of which the caller makes decisions",
}

# What must be looked into, so that a mistake in the walk cannot leave it out.
EXPECTED = """
    TokenUsage CacheDetail ConverseResponse ConverseStreamMetadataEvent ConverseStreamOutput
    ConverseTrace ConverseStreamTrace PromptRouterTrace GuardrailUsage ResponseStream PayloadPart
    InvokeModelResponse InvokeModelWithResponseStreamResponse CountTokensResponse
    ApplyGuardrailResponse InvokeGuardrailChecksResponse MessageStopEvent ConverseMetrics
    ConverseStreamMetrics ServiceTier PerformanceConfiguration GuardrailTraceAssessment
    GuardrailInvocationMetrics
""".split()

ROWS = [
    row
    for (service, api), row in operations.TABLE.items()
    if service == SERVICE and api in MODEL.operation_names
]

# One number for every count, so that the parts of a cache write sum to the whole.
_COUNT = 7
_ADDITIONAL = {"usage": {"output_tokens_details": {"thinking_tokens": _COUNT}}}
_CHUNK = {"usage": {"input_tokens": _COUNT, "output_tokens": _COUNT}, "stop_reason": "end_turn"}
_SCALARS = {
    "string": lambda shape: (shape.enum or [shape.name])[0],
    "integer": lambda _: _COUNT,
    "long": lambda _: _COUNT,
    "float": lambda _: 0.5,
    "double": lambda _: 0.5,
    "boolean": lambda _: True,
    "timestamp": lambda _: None,
    "blob": lambda _: json.dumps(_CHUNK).encode(),
}


def _is_stream(shape):
    return bool(shape.serialization.get("eventstream"))


def _events(shape):
    """Return the members of an event stream that are no errors: botocore raises those."""
    return {k: v for k, v in shape.members.items() if not v.metadata.get("exception")}


def _whole(shape, above=()):
    """Return an answer of `shape` that has every member there is."""
    if shape.type_name == "structure":
        if getattr(shape, "is_document_type", False):
            return _ADDITIONAL
        if _is_stream(shape):
            return [{name: _whole(member)} for name, member in _events(shape).items()]
        return {
            name: _whole(member, (*above, shape.name))
            for name, member in shape.members.items()
            if member.name not in above and (shape.name, name) not in LEFT_OUT
        }
    if shape.type_name == "list":
        return [_whole(shape.member, above)]
    if shape.type_name == "map":
        return {"key": _whole(shape.value, above)}
    return _SCALARS[shape.type_name](shape)


def _members(shape, path=()):
    """Walk `shape`: for each member that is not left out, its owner, its name and its place."""
    if shape.type_name == "list":
        yield from _members(shape.member, (*path, 0))
    elif shape.type_name == "map":
        yield from _members(shape.value, (*path, "key"))
    elif shape.type_name == "structure":
        stream = _is_stream(shape)
        members = _events(shape) if stream else shape.members
        for index, (name, member) in enumerate(members.items()):
            place = (*path, index, name) if stream else (*path, name)
            yield shape.name, name, place
            if (shape.name, name) not in LEFT_OUT:
                yield from _members(member, place)


def _without(answered, place):
    changed = copy.deepcopy(answered)
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    del inner[place[-1]]
    return changed


def _told(row, answered):
    """Return all that is told of an answer, its stream included."""
    told = [read_answer(row, answered, GENERIC)]
    if row.body is not None:
        # Read while the user reads it: see test_providers.py.
        told.append(row.body in answered)
    if row.stream is not None:
        events = DIALECTS[row.reads](GENERIC)
        for event in answered.get(row.stream, ()):
            events.see(event)
        told += [events.found(), events.usage(), events.final, events.last is None]
    return told


def _shape(row):
    return MODEL.operation_model(row.api).output_shape


def test_every_operation_is_told_about_or_left_out():
    rows = {api for service, api in operations.TABLE if service == SERVICE}
    unknown = set(MODEL.operation_names) - rows - set(OPERATIONS_LEFT_OUT)
    assert not unknown, "new operations: a row of operations.TABLE, or of OPERATIONS_LEFT_OUT"
    assert not rows & set(OPERATIONS_LEFT_OUT)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.api)
def test_every_member_of_an_answer_is_read_or_left_out(row):
    shape = _shape(row)
    whole = _whole(shape)
    told = _told(row, whole)
    unread = {
        f"{owner}.{name}"
        for owner, name, place in _members(shape)
        if (owner, name) not in LEFT_OUT and _told(row, _without(whole, place)) == told
    }
    assert not unread, "new members: read them, or say in LEFT_OUT why not"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.api)
def test_nothing_that_is_read_is_said_to_be_left_out(row, monkeypatch):
    shape = _shape(row)
    left_out = [
        (owner, name, place) for owner, name, place in _members(shape) if (owner, name) in LEFT_OUT
    ]
    monkeypatch.setitem(globals(), "LEFT_OUT", {})
    whole = _whole(shape)
    told = _told(row, whole)
    for owner, name, place in left_out:
        assert _told(row, _without(whole, place)) == told, f"{owner}.{name} is read"


def test_the_walk_comes_to_the_shapes_that_matter():
    seen = {owner for row in ROWS for owner, _, _ in _members(_shape(row))}
    there = {name for name in EXPECTED if name in MODEL.shape_names}
    assert there <= seen


def test_a_member_that_nobody_knows_is_noticed(monkeypatch):
    """The test itself can fail: a list that lacks a member is a member too many."""
    row = operations.TABLE[(SERVICE, "Converse")]
    monkeypatch.setitem(
        globals(), "LEFT_OUT", {k: v for k, v in LEFT_OUT.items() if k[1] != "totalTokens"}
    )
    with pytest.raises(AssertionError, match=r"TokenUsage\.totalTokens"):
        test_every_member_of_an_answer_is_read_or_left_out(row)
