"""Usage: which count is true, whatever its spelling, its place and its company."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_bedrock import shapes, usage
from otel_bedrock.events import ConverseEvents, InvokeEvents
from otel_bedrock.model_id import parse
from otel_bedrock.providers import GENERIC, TABLE, provider_of

COUNT = st.integers(0, 10**7)
CACHE = st.none() | COUNT


def _given(pairs):
    return {key: value for key, value in pairs if value is not None}


def test_input_is_the_total_cache_included():
    report = usage.read_usage(
        {
            "usage": {
                "inputTokens": 5,
                "outputTokens": 7,
                "cacheReadInputTokens": 128_955,
                "cacheWriteInputTokens": 1_253,
            }
        }
    )
    told = usage.decide((report,))
    assert told.input_tokens == 130_213
    assert told.uncached_tokens == 5
    assert (told.cache_read_tokens, told.cache_write_tokens) == (128_955, 1_253)


# The three spellings of the cache keys, and where they stand.
SPELLINGS = {
    "Converse": {
        "usage": {
            "inputTokens": 10,
            "outputTokens": 3,
            "cacheReadInputTokens": 900,
            "cacheWriteInputTokens": 50,
        }
    },
    "Anthropic": {
        "usage": {
            "input_tokens": 10,
            "output_tokens": 3,
            "cache_read_input_tokens": 900,
            "cache_creation_input_tokens": 50,
        }
    },
    "Nova": {
        "usage": {
            "inputTokens": 10,
            "outputTokens": 3,
            "cacheReadInputTokenCount": 900,
            "cacheWriteInputTokenCount": 50,
        }
    },
    "OpenAI": {
        "usage": {
            "prompt_tokens": 960,
            "completion_tokens": 3,
            "prompt_tokens_details": {"cached_tokens": 900, "cache_write_tokens": 50},
        }
    },
    "OpenAI Responses": {
        "usage": {
            "input_tokens": 960,
            "output_tokens": 3,
            "input_tokens_details": {"cached_tokens": 900, "cache_write_tokens": 50},
        }
    },
}


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_tells_the_same(body):
    told = usage.decide((usage.read_body(body),))
    assert told.input_tokens == 960
    assert told.uncached_tokens == 10
    assert (told.cache_read_tokens, told.cache_write_tokens, told.output_tokens) == (900, 50, 3)


def test_a_ttl_split_holds_only_where_it_sums_to_the_whole():
    def split(one_hour, whole):
        details = [{"ttl": "1h", "inputTokens": one_hour}, {"ttl": "5m", "inputTokens": 7}]
        counts = {"inputTokens": 1, "cacheWriteInputTokens": whole, "cacheDetails": details}
        told = usage.decide((usage.read_usage({"usage": counts}),))
        return told.cache_write_1h_tokens, told.cache_write_5m_tokens

    assert split(9613, 9620) == (9613, 7)
    assert split(9613, 9999) == (None, None)


def test_an_unknown_ttl_makes_no_split():
    counts = {
        "inputTokens": 1,
        "cacheWriteInputTokens": 9,
        "cacheDetails": [{"ttl": "5m", "inputTokens": 9}, {"ttl": "30m", "inputTokens": 4}],
    }
    told = usage.decide((usage.read_usage({"usage": counts}),))
    assert told.cache_write_tokens == 9
    assert told.cache_write_5m_tokens is None


def test_headers_come_before_the_body():
    """Nova under a guardrail: half of the usage is in the body, all of it in the headers."""
    headers = usage.read_headers(
        {"x-amzn-bedrock-input-token-count": "30", "x-amzn-bedrock-output-token-count": "51"}
    )
    told = usage.decide((headers, usage.read_body({"usage": {"inputTokens": 29}})))
    assert (told.input_tokens, told.output_tokens, told.source) == (30, 51, "headers")


def test_gpt_5_6_counts_its_cache_twice_on_converse_stream_and_claude_does_not():
    def stream(model, counts):
        events = ConverseEvents(provider_of(parse(model)))
        events.see({"messageStop": {"stopReason": "end_turn"}})
        events.see({"metadata": {"usage": counts}})
        return events.usage().input_tokens

    double = {"inputTokens": 4995, "outputTokens": 19, "cacheWriteInputTokens": 4993}
    assert stream("openai.gpt-5.6-sol", double) == 4995
    fresh = {"inputTokens": 5000, "outputTokens": 19, "cacheReadInputTokens": 1000}
    assert stream("us.anthropic.claude-sonnet-4-6", fresh) == 6000
    assert stream("amazon.nova-pro-v1:0", fresh) == 6000


def test_a_second_metadata_event_without_usage_clears_nothing():
    events = ConverseEvents(GENERIC)
    events.see({"metadata": {"usage": {"inputTokens": 5, "outputTokens": 6}}})
    events.see({"metadata": {"metrics": {"latencyMs": 4}}})
    assert events.usage().input_tokens == 5


def _chunk(data):
    return {"chunk": {"bytes": json.dumps(data).encode()}}


def test_a_claude_stream_is_merged_and_never_added():
    events = InvokeEvents(provider_of(parse("anthropic.claude-sonnet-4-6")))
    start = {"input_tokens": 25, "output_tokens": 1}
    delta = {"output_tokens": 15, "cache_read_input_tokens": 9, "cache_creation_input_tokens": 4}
    metrics = {"inputTokenCount": 25, "outputTokenCount": 15}
    for data in (
        {"type": "message_start", "message": {"id": "msg_1", "usage": start}},
        {"type": "content_block_delta", "delta": {"text": "hello"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": delta},
        {"type": "message_stop", usage.METRICS_KEY: metrics},
    ):
        events.see(_chunk(data))
    told = events.usage()
    assert (told.input_tokens, told.output_tokens) == (25 + 9 + 4, 15)
    assert (told.cache_read_tokens, told.cache_write_tokens) == (9, 4)


def test_a_stream_broken_off_has_no_output_count():
    """What message_start says of the output is a count so far, which nobody bills."""
    events = InvokeEvents(provider_of(parse("anthropic.claude-sonnet-4-6")))
    start = {"input_tokens": 25, "output_tokens": 1}
    events.see(_chunk({"type": "message_start", "message": {"usage": start}}))
    assert events.usage().input_tokens == 25
    assert events.usage().output_tokens is None


def test_the_metrics_know_more_than_the_output_that_a_stream_opens_with():
    """Where no `message_delta` tells it, as when a guardrail ends the stream."""
    events = InvokeEvents(provider_of(parse("anthropic.claude-sonnet-4-6")))
    start = {"input_tokens": 25, "output_tokens": 1, "cache_read_input_tokens": 9}
    events.see(_chunk({"type": "message_start", "message": {"usage": start}}))
    metrics = {"inputTokenCount": 25, "outputTokenCount": 37}
    blocked = {"amazon-bedrock-guardrailAction": "INTERVENED", usage.METRICS_KEY: metrics}
    events.see(_chunk(blocked))
    told = events.usage()
    assert (told.input_tokens, told.output_tokens) == (34, 37)


def test_an_opening_output_holds_where_nothing_else_tells_it():
    events = InvokeEvents(provider_of(parse("anthropic.claude-sonnet-4-6")))
    start = {"input_tokens": 25, "output_tokens": 1}
    events.see(_chunk({"type": "message_start", "message": {"usage": start}}))
    events.see(_chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}}))
    events.see(_chunk({"type": "note", "message": "no token, for no reason"}))
    assert events.usage(exhausted=True).output_tokens == 1


_LLAMA = [
    {"generation": "a", "prompt_token_count": 23, "generation_token_count": n, "stop_reason": None}
    for n in (1, 2, 3)
]
_NOVA = [
    {"contentBlockDelta": {"delta": {"text": "a"}}},
    {"messageStop": {"stopReason": "end_turn"}},
]
_OPENAI = [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}]


@pytest.mark.parametrize(
    ("model", "chunks"),
    [
        (
            "meta.llama3-8b-instruct-v1:0",
            [{**c, "amazon-bedrock-guardrailAction": "NONE"} for c in _LLAMA],
        ),
        ("amazon.nova-lite-v1:0", _NOVA),
        ("openai.gpt-oss-120b-1:0", _OPENAI),
    ],
)
def test_a_stream_is_over_when_its_counts_are_there(model, chunks):
    """Not with a guardrail's word in every chunk, nor with a finish reason that precedes them."""
    events = InvokeEvents(provider_of(parse(model)))
    for chunk in chunks:
        events.see(_chunk(chunk))
    told = events.usage()
    assert told is None or told.output_tokens is None
    assert events.found()["complete"] is False
    assert events.found(exhausted=True)["complete"] is True


def test_a_finish_reason_and_an_output_count_end_a_stream():
    events = InvokeEvents(provider_of(parse("anthropic.claude-sonnet-4-6")))
    end = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"output_tokens": 5},
    }
    events.see(_chunk(end))
    assert (events.usage().output_tokens, events.found()["complete"]) == (5, True)


def test_each_choice_of_a_stream_has_its_finish_reason():
    events = InvokeEvents(provider_of(parse("openai.gpt-oss-120b-1:0")))
    for index, reason in ((1, "length"), (0, "stop"), (1, None)):
        choice = {"index": index, "delta": {}, "finish_reason": reason}
        events.see(_chunk({"choices": [choice]}))
    assert events.found()["finish_reasons"] == ("stop", "length")


def test_a_total_below_its_cached_part_is_the_part_that_is_not_cached():
    headers = usage.Report(usage.HEADERS, {"input": 20, "cache_read": 80, "cache_write": 0})
    body = usage.Report(usage.BODY, {"input": 20, "output": 5}, inclusive=True)
    told = usage.decide([headers, body])
    assert (told.input_tokens, told.uncached_tokens, told.output_tokens) == (100, 20, 5)


@given(st.data(), COUNT, COUNT, CACHE, CACHE)
def test_however_a_stream_is_cut_the_usage_is_the_same(data, i, o, r, w):
    """Each count in whichever events carry it, text of any length between them."""
    start = {"input_tokens": i, "output_tokens": 1}
    delta = {"output_tokens": o}
    names = (("cache_read_input_tokens", r), ("cache_creation_input_tokens", w))
    for name, count in (("input_tokens", i), *names):
        if count is not None:
            carriers = data.draw(st.sampled_from([(start,), (delta,), (start, delta)]))
            for carrier in carriers:
                carrier[name] = count
    metrics = _metrics(i, o, *(data.draw(st.sampled_from([None, count])) for count in (r, w)))
    text = st.text(max_size=20) | st.just("a token, for a reason")
    words = [{"delta": {"text": word}} for word in data.draw(st.lists(text, max_size=5))]
    events = InvokeEvents(provider_of(parse("anthropic.claude-sonnet-4-6")))
    for chunk in (
        {"type": "message_start", "message": {"usage": start}},
        *words,
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": delta},
        {"type": "message_stop", usage.METRICS_KEY: metrics},
    ):
        events.see(_chunk(chunk))
    told = events.usage()
    assert told.input_tokens == i + (r or 0) + (w or 0)
    assert (told.output_tokens, told.cache_read_tokens, told.cache_write_tokens) == (o, r, w)


NOT_COUNTS = [
    None,
    "5",
    True,
    -1,
    1.5,
    float("nan"),
    float("inf"),
    2**53,
    [],
    {},
    [1, "2"],
    [-1],
    [[1, 2], 3],
]


@pytest.mark.parametrize("value", NOT_COUNTS, ids=repr)
def test_what_is_no_count_is_unknown(value):
    assert usage.whole(value) is None


@pytest.mark.parametrize(("value", "count"), [(0, 0), (28.0, 28), ([1, 2], 3), (2**53 - 1,) * 2])
def test_a_count_is_an_int(value, count):
    told = usage.whole(value)
    assert told == count
    assert type(told) is int


@pytest.mark.parametrize("text", ["", "-1", "1e3", "٣", "9" * 400, "12 ", "1.0", None, 5])
def test_a_header_that_is_no_count_is_unknown(text):
    assert usage.read_headers({"x-amzn-bedrock-input-token-count": text}) is None


# One writer for each spelling: random usage must come out the same by every path.
def _converse(i, o, r, w):
    return {
        "usage": _given(
            [
                ("inputTokens", i),
                ("outputTokens", o),
                ("cacheReadInputTokens", r),
                ("cacheWriteInputTokens", w),
            ]
        )
    }


def _anthropic(i, o, r, w):
    return {
        "usage": _given(
            [
                ("input_tokens", i),
                ("output_tokens", o),
                ("cache_read_input_tokens", r),
                ("cache_creation_input_tokens", w),
            ]
        )
    }


def _openai(i, o, r, w):
    details = _given([("cached_tokens", r), ("cache_write_tokens", w)])
    return {
        "usage": {
            "prompt_tokens": i + (r or 0) + (w or 0),
            "completion_tokens": o,
            "prompt_tokens_details": details,
        }
    }


def _metrics(i, o, r, w):
    return _given(
        [
            ("inputTokenCount", i),
            ("outputTokenCount", o),
            ("cacheReadInputTokenCount", r),
            ("cacheWriteInputTokenCount", w),
        ]
    )


def _headers(i, o, r, w):
    names = ("input", "output", "cache-read-input", "cache-write-input")
    return {
        f"x-amzn-bedrock-{name}-token-count": str(count)
        for name, count in zip(names, (i, o, r, w), strict=True)
        if count is not None
    }


def _by_metrics(*counts):
    events = InvokeEvents(GENERIC)
    events.see(_chunk({"outputText": "…", usage.METRICS_KEY: _metrics(*counts)}))
    return events.usage()


def _by_converse_stream(*counts):
    events = ConverseEvents(GENERIC)
    events.see({"messageStop": {"stopReason": "end_turn"}})
    events.see({"metadata": _converse(*counts)})
    return events.usage()


PATHS = {
    "Converse": lambda *c: usage.decide((usage.read_usage(_converse(*c)),)),
    "ConverseStream": _by_converse_stream,
    "headers": lambda *c: usage.decide((usage.read_headers(_headers(*c)),)),
    "Claude's body": lambda *c: usage.decide((usage.read_body(_anthropic(*c)),)),
    "OpenAI's body": lambda *c: usage.decide((usage.read_body(_openai(*c)),)),
    "invocation metrics": _by_metrics,
    "headers and body": lambda *c: usage.decide(
        (usage.read_headers(_headers(*c)), usage.read_body(_anthropic(*c)))
    ),
    "headers and OpenAI's body": lambda *c: usage.decide(
        (usage.read_headers(_headers(*c)), usage.read_body(_openai(*c)))
    ),
}


@given(COUNT, COUNT, CACHE, CACHE)
def test_random_usage_is_the_same_by_every_path(i, o, r, w):
    totals = {
        name: (
            told.input_tokens,
            told.output_tokens,
            told.cache_read_tokens,
            told.cache_write_tokens,
            told.uncached_tokens,
        )
        for name, path in PATHS.items()
        for told in [path(i, o, r, w)]
    }
    assert set(totals.values()) == {(i + (r or 0) + (w or 0), o, r, w, i)}, totals


KEYS = st.sampled_from(
    sorted(
        {
            key
            for shape in shapes.SHAPES
            for path in shape.input + shape.output
            for key in path.split(".")
        }
        | {"cacheDetails", "ttl", "choices", "results", "delta", "message", usage.METRICS_KEY}
    )
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, JSON, max_size=6))
def test_any_body_gives_exact_counts_or_none(body):
    told = usage.decide((usage.read_body(body), usage.read_metrics(body)))
    if told is not None:
        for name in ("input_tokens", "output_tokens", "cache_read_tokens", "uncached_tokens"):
            count = getattr(told, name)
            assert count is None or (type(count) is int and count >= 0)


@given(st.lists(st.binary(max_size=60) | JSON.map(lambda j: json.dumps(j).encode()), max_size=6))
def test_any_chunks_are_survived(chunks):
    for row in (*TABLE, GENERIC):
        events = InvokeEvents(row)
        for data in chunks:
            events.see({"chunk": {"bytes": data}})
        events.usage(exhausted=True)
        events.found()
