"""Messages: every dialect in the conventions' shapes; whatever else comes never raises."""

from __future__ import annotations

import base64
import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_bedrock.content import deltas, messages
from otel_bedrock.content.excerpt import CUT, MARGIN, Copier, fit
from otel_bedrock.content.pieces import Pieces
from otel_bedrock.operations import TABLE

COPY = Copier(65_536)
PNG = b"\x89PNG, but not really: 37 bytes of it"
PNG64 = base64.b64encode(PNG).decode()
IMAGE = {"type": "blob", "modality": "image", "mime_type": "image/png", "byte_size": len(PNG)}


def _text(text):
    return {"type": "text", "content": text}


def _user(*parts):
    return {"role": "user", "parts": list(parts)}


def _assistant(*parts):
    return {"role": "assistant", "parts": list(parts)}


def _call(arguments, name="get_weather", identity="t1"):
    return {"type": "tool_call", "id": identity, "name": name, "arguments": arguments}


def _response(response, identity="t1"):
    return {"type": "tool_call_response", "id": identity, "response": response}


# --- Requests ------------------------------------------------------------------------------

CONVERSE_PARTS = [
    ({"text": "Hello"}, [_text("Hello")]),
    ({"text": ""}, []),
    ({"cachePoint": {"type": "default"}}, []),
    ({"image": {"format": "png", "source": {"bytes": PNG}}}, [IMAGE]),
    (
        {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/k.png"}}}},
        [{"type": "uri", "modality": "image", "mime_type": "image/png", "uri": "s3://b/k.png"}],
    ),
    (
        {"document": {"format": "pdf", "name": "taxes", "source": {"bytes": b"12345"}}},
        [
            {
                "type": "blob",
                "modality": "document",
                "mime_type": "application/pdf",
                "byte_size": 5,
            }
        ],
    ),
    ({"document": {"name": "x", "source": {"text": "plain"}}}, [_text("plain")]),
    ({"document": {"name": "x", "source": {"content": [{"text": "a"}]}}}, [_text("a")]),
    (
        {"video": {"format": "three_gp", "source": {"bytes": b"123"}}},
        [{"type": "blob", "modality": "video", "mime_type": "video/3gpp", "byte_size": 3}],
    ),
    (
        {"audio": {"format": "wav", "source": {"bytes": b"1234"}}},
        [{"type": "blob", "modality": "audio", "mime_type": "audio/wav", "byte_size": 4}],
    ),
    (
        {"toolUse": {"toolUseId": "t1", "name": "get_weather", "input": {"city": "Rome"}}},
        [_call({"city": "Rome"})],
    ),
    ({"toolResult": {"toolUseId": "t1", "content": [{"text": "sunny"}]}}, [_response("sunny")]),
    (
        {"toolResult": {"toolUseId": "t1", "content": [{"json": {"sky": [1, 2.5, None]}}]}},
        [_response({"sky": [1, 2.5, None]})],
    ),
    (
        {
            "toolResult": {
                "toolUseId": "t1",
                "content": [{"text": "a"}, {"image": {"format": "png", "source": {"bytes": PNG}}}],
            }
        },
        [_response([_text("a"), IMAGE])],
    ),
    ({"guardContent": {"text": {"text": "guarded", "qualifiers": []}}}, [_text("guarded")]),
    (
        {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "SIGNED"}}},
        [{"type": "reasoning", "content": "hm"}],
    ),
    (
        {"reasoningContent": {"redactedContent": b"secret"}},
        [{"type": "generic", "generic_type": "redacted_reasoning"}],
    ),
    (
        {"citationsContent": {"content": [{"text": "cited"}], "citations": [{"title": "no"}]}},
        [_text("cited")],
    ),
    ({"searchResult": {"source": "s", "title": "t", "content": [{"text": "f"}]}}, [_text("f")]),
    ({"futureBlock": {"text": "no"}}, [{"type": "generic", "generic_type": "futureBlock"}]),
    ({}, [{"type": "generic", "generic_type": "unknown"}]),
    (7, [{"type": "generic", "generic_type": "int"}]),
]


@pytest.mark.parametrize(("block", "parts"), CONVERSE_PARTS)
def test_a_block_of_converse(block, parts):
    found = messages.read_request(
        "converse", {"messages": [{"role": "user", "content": [block]}]}, COPY
    )
    assert found == ({"input": [_user(*parts)]} if parts else {})


ANTHROPIC_PARTS = [
    ("Hello", [_text("Hello")]),
    ([{"type": "text", "text": "Hello", "cache_control": {}}], [_text("Hello")]),
    (
        [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG64}}],
        [IMAGE],
    ),
    (
        [{"type": "image", "source": {"type": "url", "url": "https://e.com/x.png"}}],
        [{"type": "uri", "modality": "image", "uri": "https://e.com/x.png"}],
    ),
    (
        [{"type": "document", "source": {"type": "file", "file_id": "file_1"}}],
        [{"type": "file", "modality": "document", "file_id": "file_1"}],
    ),
    (
        [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "T"}}],
        [_text("T")],
    ),
    (
        [{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Rome"}}],
        [_call({"city": "Rome"})],
    ),
    ([{"type": "tool_result", "tool_use_id": "t1", "content": "sunny"}], [_response("sunny")]),
    (
        [
            {
                "type": "tool_result",
                "tool_use_id": "t1",
                "content": [{"type": "text", "text": "sunny"}],
                "is_error": False,
            }
        ],
        [_response("sunny")],
    ),
    ([{"type": "tool_result", "tool_use_id": "t1"}], [_response([])]),
    (
        [{"type": "thinking", "thinking": "hm", "signature": "SIGNED"}],
        [{"type": "reasoning", "content": "hm"}],
    ),
    (
        [{"type": "redacted_thinking", "data": "c2VjcmV0"}],
        [{"type": "generic", "generic_type": "redacted_thinking"}],
    ),
    (
        [{"type": "server_tool_use", "id": "t1", "name": "web_search", "input": {"query": "q"}}],
        [
            {
                "type": "server_tool_call",
                "id": "t1",
                "name": "web_search",
                "server_tool_call": {"type": "web_search", "arguments": {"query": "q"}},
            }
        ],
    ),
    (
        [{"type": "from the future", "text": "no"}],
        [{"type": "generic", "generic_type": "unknown"}],
    ),
    # OpenAI's.
    (
        [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG64}"}}],
        [IMAGE],
    ),
    (
        [{"type": "image_url", "image_url": {"url": "https://e.com/x.png"}}],
        [{"type": "uri", "modality": "image", "uri": "https://e.com/x.png"}],
    ),
    (
        [{"type": "input_image", "image_url": PNG64}],
        [{"type": "blob", "modality": "image", "byte_size": len(PNG)}],
    ),
    (
        [{"type": "input_audio", "input_audio": {"format": "wav", "data": PNG64}}],
        [
            {
                "type": "blob",
                "modality": "audio",
                "mime_type": "audio/wav",
                "byte_size": len(PNG),
            }
        ],
    ),
    (
        [{"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PNG64}"}}],
        [
            {
                "type": "blob",
                "modality": "document",
                "mime_type": "application/pdf",
                "byte_size": len(PNG),
            }
        ],
    ),
]


def _invoke(body, **more):
    return messages.read_request("invoke", {"body": json.dumps(body), **more}, COPY)


@pytest.mark.parametrize(("content", "parts"), ANTHROPIC_PARTS)
def test_a_block_of_anthropic_or_openai(content, parts):
    assert _invoke({"messages": [{"role": "user", "content": content}]}) == {
        "input": [_user(*parts)]
    }


BODIES = {
    "claude 2": ({"prompt": "Human: hi"}, {"input": [_user(_text("Human: hi"))]}),
    "claude": (
        {
            "system": [{"type": "text", "text": "Be kind"}],
            "messages": [{"role": "user", "content": "hi"}],
            "tools": [
                {"name": "get_weather", "description": "d", "input_schema": {"type": "object"}},
                {"type": "bash_20250124", "name": "bash"},
            ],
        },
        {
            "input": [_user(_text("hi"))],
            "system": [_text("Be kind")],
            "tools": [
                {"type": "function", "name": "get_weather"},
                {"type": "bash_20250124", "name": "bash"},
            ],
        },
    ),
    "nova": (
        {
            "system": [{"text": "Be kind"}],
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"text": "hi"},
                        {"image": {"format": "png", "source": {"bytes": PNG64}}},
                    ],
                }
            ],
            "toolConfig": {"tools": [{"toolSpec": {"name": "get_weather"}}, {"cachePoint": {}}]},
        },
        {
            "input": [_user(_text("hi"), IMAGE)],
            "system": [_text("Be kind")],
            "tools": [{"type": "function", "name": "get_weather"}],
        },
    ),
    "openai": (
        {
            "messages": [
                {"role": "system", "content": "Be kind"},
                {"role": "user", "content": "hi", "name": "Ann"},
                {
                    "role": "assistant",
                    "content": None,
                    "reasoning_content": "hm",
                    "tool_calls": [
                        {
                            "id": "t1",
                            "type": "function",
                            "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
                        },
                        {
                            "id": "t2",
                            "function": {"name": "get_weather", "arguments": '{"city": "Ro'},
                        },
                    ],
                },
                {"role": "tool", "tool_call_id": "t1", "content": "sunny"},
            ],
            "tools": [{"type": "function", "function": {"name": "get_weather"}}],
        },
        {
            "input": [
                {"role": "system", "parts": [_text("Be kind")]},
                {"role": "user", "parts": [_text("hi")], "name": "Ann"},
                _assistant(
                    {"type": "reasoning", "content": "hm"},
                    _call({"city": "Rome"}),
                    _call('{"city": "Ro', identity="t2"),
                ),
                {"role": "tool", "parts": [_response("sunny")]},
            ],
            "tools": [{"type": "function", "name": "get_weather"}],
        },
    ),
    "openai responses": (
        {
            "instructions": "Be kind",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
                {
                    "type": "function_call",
                    "call_id": "t1",
                    "name": "get_weather",
                    "arguments": "{}",
                },
                {"type": "function_call_output", "call_id": "t1", "output": "sunny"},
            ],
        },
        {
            "input": [
                _user(_text("hi")),
                _assistant(_call({})),
                {"role": "tool", "parts": [_response("sunny")]},
            ],
            "system": [_text("Be kind")],
        },
    ),
    "cohere command r": (
        {
            "preamble": "Be kind",
            "chat_history": [
                {"role": "USER", "message": "hi"},
                {"role": "CHATBOT", "message": "hello"},
            ],
            "message": "weather?",
        },
        {
            "input": [
                _user(_text("hi")),
                _assistant(_text("hello")),
                _user(_text("weather?")),
            ],
            "system": [_text("Be kind")],
        },
    ),
    "titan text": ({"inputText": "hi"}, {"input": [_user(_text("hi"))]}),
    "titan image": (
        {"inputText": "hi", "inputImage": PNG64},
        {
            "input": [
                _user(_text("hi")),
                _user({"type": "blob", "modality": "image", "byte_size": len(PNG)}),
            ]
        },
    ),
    "cohere embed": (
        {"texts": ["a", "b"], "images": [f"data:image/png;base64,{PNG64}"]},
        {"input": [_user(_text("a"), _text("b")), _user(IMAGE)]},
    ),
    "cohere embed 4": (
        {"inputs": [{"content": [{"type": "text", "text": "a"}]}]},
        {"input": [_user(_text("a"))]},
    ),
    "cohere rerank": (
        {"query": "q", "documents": ["a", {"text": "b"}]},
        {"input": [_user(_text("q")), _user(_text("a")), _user(_text("b"))]},
    ),
    "nova embed": (
        {"singleEmbeddingParams": {"text": {"value": "a"}}},
        {"input": [_user(_text("a"))]},
    ),
    "nova canvas": ({"textToImageParams": {"text": "a cat"}}, {"input": [_user(_text("a cat"))]}),
    "stability": ({"text_prompts": [{"text": "a cat"}]}, {"input": [_user(_text("a cat"))]}),
    "nobody's": ({"question": "hi"}, {}),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_of_invoke_model(name):
    body, expected = BODIES[name]
    assert _invoke(body) == expected


def test_the_other_operations():
    assert messages.read_request(
        "guardrail", {"source": "OUTPUT", "content": [{"text": {"text": "hi"}}]}, COPY
    ) == {"input": [_assistant(_text("hi"))]}
    inner = {"messages": [{"role": "user", "content": [{"text": "hi"}]}]}
    expected = {"input": [_user(_text("hi"))]}
    assert messages.read_request("guardrail", inner, COPY) == expected
    count = {"input": {"converse": inner}}
    assert messages.read_request("count_tokens", count, COPY) == expected
    count = {"input": {"invokeModel": {"body": b'{"prompt": "hi"}'}}}
    assert messages.read_request("count_tokens", count, COPY) == expected
    assert messages.read_request("agent", {"inputText": "hi"}, COPY) == expected
    assert messages.read_request("knowledge_base", {"input": {"text": "hi"}}, COPY) == expected
    asked = {"queries": [{"type": "TEXT", "textQuery": {"text": "hi"}}]}
    assert messages.read_request("knowledge_base", asked, COPY) == expected
    assert messages.read_request("nobody's", inner, COPY) == {}


def test_a_body_over_the_limit_or_in_a_file_is_let_go_of():
    assert messages.read_request("invoke", {"body": '{"prompt": "hi"}'}, COPY, 5) == {}
    assert messages.read_request("invoke", {"body": object()}, COPY) == {}
    assert messages.read_request("invoke", {"body": b"no json"}, COPY) == {}


def test_a_word_that_is_a_text_is_not_told():
    """Roles, ids, types and names are words of a protocol; they are not redacted, so not free."""
    found = messages.read_request(
        "converse",
        {
            "messages": [
                {
                    "role": "my secret role",
                    "content": [
                        {"toolUse": {"toolUseId": "my secret id", "name": "my secret name"}},
                        {"type": "my secret type"},
                    ],
                }
            ],
            "toolConfig": {"tools": [{"toolSpec": {"name": "my secret tool"}}]},
        },
        COPY,
    )
    assert "secret" not in json.dumps(found)


# --- Answers -------------------------------------------------------------------------------

ANSWERS = {
    "converse": (
        {
            "output": {
                "message": {
                    "role": "assistant",
                    "content": [
                        {"text": "Hi"},
                        {"toolUse": {"toolUseId": "t1", "name": "get_weather", "input": {}}},
                    ],
                }
            }
        },
        [_assistant(_text("Hi"), _call({}))],
    ),
    "claude": (
        {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hi"}]},
        [_assistant(_text("Hi"))],
    ),
    "claude 2": ({"type": "completion", "completion": " Hi"}, [_assistant(_text(" Hi"))]),
    "openai": (
        {
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "Hi"}},
                {"index": 1, "message": {"role": "assistant", "content": "Ho"}},
            ]
        },
        [_assistant(_text("Hi")), _assistant(_text("Ho"))],
    ),
    "openai text": ({"choices": [{"text": "Hi"}]}, [_assistant(_text("Hi"))]),
    "openai responses": (
        {
            "output": [
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "Hi"}],
                },
            ]
        },
        [_assistant({"type": "reasoning", "content": "hm"}), _assistant(_text("Hi"))],
    ),
    "titan": ({"results": [{"outputText": "Hi"}]}, [_assistant(_text("Hi"))]),
    "llama": ({"generation": "Hi", "stop_reason": "stop"}, [_assistant(_text("Hi"))]),
    "mistral": ({"outputs": [{"text": "Hi"}]}, [_assistant(_text("Hi"))]),
    "cohere": ({"generations": [{"text": "Hi"}]}, [_assistant(_text("Hi"))]),
    "cohere command r": (
        {"text": "Hi", "chat_history": [{"role": "USER", "message": "no"}]},
        [_assistant(_text("Hi"))],
    ),
    "cohere 2": (
        {"message": {"role": "assistant", "content": [{"type": "text", "text": "Hi"}]}},
        [_assistant(_text("Hi"))],
    ),
    "ai21": ({"completions": [{"data": {"text": "Hi"}}]}, [_assistant(_text("Hi"))]),
    "plain": ({"response": "Hi"}, [_assistant(_text("Hi"))]),
    "guardrail": ({"outputs": [{"text": "Blocked"}]}, [_assistant(_text("Blocked"))]),
    "retrieve and generate": ({"output": {"text": "Hi"}}, [_assistant(_text("Hi"))]),
    "images": (
        {"images": [PNG64]},
        [_assistant({"type": "blob", "modality": "image", "byte_size": len(PNG)})],
    ),
    "embedding": ({"embedding": [0.1], "inputTextTokenCount": 1}, []),
    "rerank": ({"results": [{"index": 0, "relevance_score": 0.5}]}, []),
    "count": ({"inputTokens": 5}, []),
    "nothing": ({}, []),
    "an empty text": (
        {"output": {"message": {"role": "assistant", "content": [{"text": ""}]}}},
        [],
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer(name):
    answer, expected = ANSWERS[name]
    before = copy.deepcopy(answer)
    assert messages.read_answer(answer, COPY) == ({"output": expected} if expected else {})
    assert answer == before


# --- Streams -------------------------------------------------------------------------------


def _gather(events, limit=65_536, read=deltas.read_event):
    pieces = Pieces(limit)
    for event in events:
        before = copy.deepcopy(event)
        read(event, pieces)
        assert event == before
    return pieces.messages(Copier(limit))


def _chunk(body):
    return {"chunk": {"bytes": json.dumps(body).encode()}}


def _delta(delta, index=0):
    return {"contentBlockDelta": {"contentBlockIndex": index, "delta": delta}}


CONVERSE_STREAM = [
    {"messageStart": {"role": "assistant"}},
    _delta({"reasoningContent": {"text": "h"}}),
    _delta({"reasoningContent": {"text": "m"}}),
    _delta({"reasoningContent": {"signature": "SIGNED"}}),
    {"contentBlockStop": {"contentBlockIndex": 0}},
    _delta({"text": "H"}, 1),
    _delta({"text": 'i "you"'}, 1),
    _delta({"citation": {"title": "no"}}, 1),
    {"contentBlockStop": {"contentBlockIndex": 1}},
    {
        "contentBlockStart": {
            "contentBlockIndex": 2,
            "start": {"toolUse": {"toolUseId": "t1", "name": "get_weather"}},
        }
    },
    _delta({"toolUse": {"input": ""}}, 2),
    _delta({"toolUse": {"input": '{"city": "'}}, 2),
    _delta({"toolUse": {"input": 'Rome"}'}}, 2),
    {"contentBlockStop": {"contentBlockIndex": 2}},
    {"messageStop": {"stopReason": "tool_use"}},
    {"metadata": {"usage": {"inputTokens": 1}}},
]
SAID = [
    _assistant({"type": "reasoning", "content": "hm"}, _text('Hi "you"'), _call({"city": "Rome"}))
]

CLAUDE_STREAM = [
    {"type": "message_start", "message": {"role": "assistant", "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}},
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "thinking_delta", "thinking": "h"},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "thinking_delta", "thinking": "m"},
    },
    {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "signature_delta", "signature": "S"},
    },
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi "}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": '"you"'}},
    {
        "type": "content_block_start",
        "index": 2,
        "content_block": {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {}},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": '{"city":'},
    },
    {
        "type": "content_block_delta",
        "index": 2,
        "delta": {"type": "input_json_delta", "partial_json": '"Rome"}'},
    },
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
    {"type": "message_stop"},
]

OPENAI_STREAM = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}}]},
    {"choices": [{"index": 0, "delta": {"content": "Hi "}}]},
    {"choices": [{"index": 0, "delta": {"content": '"you"'}}]},
    {
        "choices": [
            {
                "index": 0,
                "delta": {
                    "tool_calls": [
                        {
                            "index": 0,
                            "id": "t1",
                            "function": {"name": "get_weather", "arguments": '{"city":'},
                        }
                    ]
                },
            }
        ]
    },
    {
        "choices": [
            {
                "index": 0,
                "delta": {"tool_calls": [{"index": 0, "function": {"arguments": '"Rome"}'}}]},
            }
        ]
    },
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    {"choices": [], "usage": {"prompt_tokens": 1}},
]

STREAMS = {
    "converse": (CONVERSE_STREAM, SAID),
    "nova": ([_chunk(event) for event in CONVERSE_STREAM], SAID),
    "claude": ([_chunk(event) for event in CLAUDE_STREAM], SAID),
    "openai": ([_chunk(event) for event in OPENAI_STREAM], SAID),
    "titan": ([_chunk({"outputText": "Hi"})], [_assistant(_text("Hi"))]),
    "llama": (
        [_chunk({"generation": "H"}), _chunk({"generation": "i", "stop_reason": "stop"})],
        [_assistant(_text("Hi"))],
    ),
    "mistral": (
        [_chunk({"outputs": [{"text": "H"}]}), _chunk({"outputs": [{"text": "i"}]})],
        [_assistant(_text("Hi"))],
    ),
    "mistral chat": (
        [_chunk({"choices": [{"index": 0, "message": {"content": text}}]}) for text in "Hi"],
        [_assistant(_text("Hi"))],
    ),
    "cohere": (
        [
            _chunk({"generations": [{"text": "Hi"}]}),
            _chunk({"amazon-bedrock-invocationMetrics": {}}),
        ],
        [_assistant(_text("Hi"))],
    ),
    "cohere command r": (
        [_chunk({"event_type": "text-generation", "text": text}) for text in "Hi"],
        [_assistant(_text("Hi"))],
    ),
    "cohere 2": (
        [
            _chunk({"type": "content-delta", "delta": {"message": {"content": {"text": text}}}})
            for text in "Hi"
        ],
        [_assistant(_text("Hi"))],
    ),
    "claude 2": ([_chunk({"completion": "Hi"})], [_assistant(_text("Hi"))]),
    "retrieve and generate": ([{"output": {"text": "Hi"}}], [_assistant(_text("Hi"))]),
    "a tool without arguments": (
        [
            {
                "contentBlockStart": {
                    "contentBlockIndex": 0,
                    "start": {"toolUse": {"toolUseId": "t1", "name": "get_weather"}},
                }
            }
        ],
        [_assistant(_call({}))],
    ),
    "arguments that are no json": (
        [
            {
                "contentBlockStart": {
                    "contentBlockIndex": 0,
                    "start": {"toolUse": {"toolUseId": "t1", "name": "get_weather"}},
                }
            },
            _delta({"toolUse": {"input": '{"city": "Ro'}}),
        ],
        [_assistant(_call('{"city": "Ro'))],
    ),
    "arguments that are json and no object": (
        [_delta({"toolUse": {"input": "5"}})],
        [_assistant({"type": "tool_call", "name": "unknown", "arguments": "5"})],
    ),
    "an image": (
        [
            {"contentBlockStart": {"contentBlockIndex": 0, "start": {"image": {"format": "png"}}}},
            _delta({"image": {"source": {"bytes": PNG[:10]}}}),
            _delta({"image": {"source": {"bytes": PNG[10:]}}}),
        ],
        [_assistant(IMAGE)],
    ),
    "something unknown": (
        [_delta({"futureDelta": {"text": "no"}}), _delta({"futureDelta": {"text": "no"}})],
        [_assistant({"type": "generic", "generic_type": "futureDelta"})],
    ),
    "something with a name of ours": (
        [_delta({"blob": "no"})],
        [_assistant({"type": "generic", "generic_type": "unknown"})],
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream(name):
    events, expected = STREAMS[name]
    assert _gather(events) == expected


def test_the_events_of_an_agent():
    events = [{"chunk": {"bytes": b"Hi"}}, {"trace": {}}, {"chunk": {"bytes": b" 5"}}]
    assert _gather(events, read=deltas.READERS["agent"]) == [_assistant(_text("Hi 5"))]


def test_a_long_stream_costs_no_more_than_its_limit():
    pieces = Pieces(1000)
    for _ in range(50_000):
        deltas.read_event(_delta({"text": "x" * 10}), pieces)
        deltas.read_event(_delta({"toolUse": {"input": "y" * 10}}, 3), pieces)
    (message,) = pieces.messages(Copier(10**9))
    assert len(json.dumps(message)) < 1000 + MARGIN + 200
    (message,) = pieces.messages(Copier(1000))
    assert CUT in json.dumps(message, ensure_ascii=False)
    pieces = Pieces(1000)
    for number in range(50_000):
        deltas.read_event(_delta({"toolUse": {"input": "y"}}, number), pieces)
    (message,) = pieces.messages(Copier(1000))
    assert len(message["parts"]) < 100
    assert message["parts"][-1] == {"type": "generic", "generic_type": "left_out"}


# --- Copies --------------------------------------------------------------------------------


def test_a_copy_goes_through_the_redaction_keys_included():
    shout = Copier(1000, str.upper)
    assert shout({"a": ["b", {"c": 1, "d": None}]}) == {"A": ["B", {"C": 1, "D": None}]}
    with pytest.raises(TypeError, match="redact"):
        Copier(1000, lambda text: None)("text")
    with pytest.raises(ZeroDivisionError):
        Copier(1000, lambda text: 1 / 0)({"a": []})


def test_a_secret_across_the_cut_is_not_left_in_half():
    secret = "4111-1111-1111-1111"
    text = "x" * 90 + secret + "y" * 5000
    copier = Copier(100, lambda given: given.replace(secret, "*"))
    assert "4111" not in copier(text)
    # Also where what is redacted makes room for the end of what was looked at.
    text = secret * 200 + "z" * (100 + MARGIN - 10 - 19 * 59) + secret + "z" * 5000
    assert "4111" not in copier(text)
    # Also where a stream was cut at the limit.
    pieces = Pieces(100)
    for piece in ("x" * (100 + MARGIN - 40), secret + "-and-more"):
        pieces.add(0, "text", piece)
    (message,) = pieces.messages(copier)
    assert "4111" not in json.dumps(message)


def test_what_no_exporter_can_carry_becomes_text():
    copied = COPY({"a": float("nan"), "b": 2**70, "c": b"12", "d": {1, 2}, 5: "\ud800", "t": (1,)})
    assert copied == {
        "a": "nan",
        "b": "[large number]",
        "c": "[2 bytes]",
        "d": "[set]",
        "[int]": "?",
        "t": [1],
    }


def test_a_structure_that_holds_itself_comes_to_an_end():
    twice = []
    twice += [twice, twice]
    assert len(json.dumps(Copier(1000)(twice))) < 20_000
    content = [{"toolResult": {"toolUseId": "t1"}}]
    content[0]["toolResult"]["content"] = content
    assert messages.read_request("converse", {"messages": [{"content": content}]}, COPY)


def test_nothing_is_cut_that_fits():
    items = [_user(_text("a" * 500))]
    text = json.dumps(items, separators=(",", ":"))
    assert fit(items, len(text)) == (items, text)
    assert fit(items, len(text) - 1) is not None
    assert fit(items, len(text) - 1).items != items


def test_the_longest_texts_are_cut_first():
    items = [_user(_text("question")), _user(_response("x" * 50_000)), _user(_text("y" * 300))]
    fitted = fit(items, 1000)
    assert fitted.items[0] == items[0]
    assert fitted.items[2] == items[2]
    assert 900 < len(fitted.json) <= 1000
    assert fitted.items[1]["parts"][0]["response"].endswith("x" + CUT)


def test_structures_become_text_where_their_texts_are_not_what_is_long():
    fitted = fit([_user(_text("question")), _user(_response(list(range(10_000))))], 1000)
    assert fitted.items[0] == _user(_text("question"))
    assert fitted.items[1]["parts"][0]["response"].startswith("[0,1,2,3,")
    assert 900 < len(fitted.json) <= 1000


def test_the_oldest_messages_are_left_out_where_there_are_too_many():
    fitted = fit([_user(_text(f"message {number}")) for number in range(1000)], 2000)
    assert fitted.items[-1] == _user(_text("message 999"))
    (part,) = fitted.items[0]["parts"]
    assert part == {
        "type": "generic",
        "generic_type": "left_out",
        "count": 1001 - len(fitted.items),
    }
    assert len(fitted.json) <= 2000


@pytest.mark.parametrize("limit", [0, 1, 10, 50])
def test_a_limit_for_which_everything_is_too_long(limit):
    assert fit([_user(_text("x" * 500))], limit) is None


# --- Whatever comes ------------------------------------------------------------------------

_KEYS = st.sampled_from(
    "messages role content text type message image source bytes data url document toolUse"
    " toolUseId input toolResult json reasoningContent reasoningText name system tools toolConfig"
    " toolSpec function tool_calls arguments tool_call_id choices delta output results outputs"
    " generations completions outputText generation contentBlockDelta contentBlockStart start"
    " contentBlockIndex index content_block messageStart chat_history inputText texts images"
    " inputImage chunk guardContent citationsContent searchResult summary image_url input_audio"
    " converse invokeModel body queries textQuery partial_json thinking".split()
) | st.text(max_size=5)
_VALUES = st.sampled_from(
    "text thinking tool_use tool_result image image_url content_block_delta content_block_start"
    " message_start function_call reasoning document server_tool_use user OUTPUT".split()
)
_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | _VALUES
)
JSON = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=5),
    max_leaves=40,
)
READS = sorted({row.reads for row in TABLE.values()})


def _check(found, limit):
    for value in found.values():
        assert value
        fitted = fit(value, limit)
        if fitted is not None:
            assert len(fitted.json) <= limit
            assert json.loads(fitted.json) == fitted.items
            fitted.json.encode()


@given(JSON, st.sampled_from(READS), st.integers(0, 300))
def test_no_request_raises(parameters, reads, limit):
    before = copy.deepcopy(parameters)
    _check(messages.read_request(reads, parameters, Copier(limit)), limit)
    assert repr(parameters) == repr(before)


@given(JSON, st.integers(0, 300))
def test_no_body_raises(body, limit):
    data = json.dumps(body, default=str).encode()
    _check(messages.read_request("invoke", {"body": data}, Copier(limit)), limit)


@given(JSON, st.integers(0, 300))
def test_no_answer_raises(answer, limit):
    _check(messages.read_answer(answer, Copier(limit)), limit)


@given(st.lists(JSON, max_size=6), st.integers(0, 300), st.booleans())
def test_no_event_raises(events, limit, chunked):
    pieces = Pieces(limit)
    for event in events:
        data = json.dumps(event, default=str).encode()
        deltas.read_event({"chunk": {"bytes": data}} if chunked else event, pieces)
        deltas.READERS["agent"](event, pieces)
    _check({"output": pieces.messages(Copier(limit)) or [{}]}, limit)


@given(st.text(), st.integers(1, 12))
def test_a_text_is_the_same_however_it_is_cut_into_events(text, size):
    cut = [text[at : at + size] for at in range(0, len(text), size)]
    assert _gather([_delta({"text": piece}) for piece in cut]) == (
        [_assistant(_text(Copier(65_536)(text)))] if text else []
    )


@given(JSON, st.integers(1, 12))
def test_arguments_are_the_same_however_they_are_cut_into_events(arguments, size):
    text = json.dumps({"given": arguments}, default=str)
    cut = [text[at : at + size] for at in range(0, len(text), size)]
    start = {"toolUse": {"toolUseId": "t1", "name": "get_weather"}}
    events = [{"contentBlockStart": {"contentBlockIndex": 0, "start": start}}]
    events += [_delta({"toolUse": {"input": piece}}) for piece in cut]
    ((part,),) = ((message["parts"]) for message in _gather(events))
    assert repr(part["arguments"]) == repr(Copier(65_536)(json.loads(text)))
