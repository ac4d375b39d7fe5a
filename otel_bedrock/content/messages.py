"""Messages: what a request says and what an answer says, in the conventions' shapes.

Found is a dict with those of `input`, `system`, `tools` and `output` that are there; each is a
list. Nothing here raises, whatever the data looks like; every text goes through `clean`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from otel_bedrock.content.media import Clean, Part, describe, word
from otel_bedrock.content.parts import (
    generic,
    items,
    read_block,
    read_parts,
    tool_call,
    tool_response,
)
from otel_bedrock.paths import dig, first
from otel_bedrock.request import read_json

Found = dict[str, list[dict[str, Any]]]
Message = dict[str, Any]

USER, ASSISTANT, TOOL = "user", "assistant", "tool"

# Cohere shouts; roles of all others are told as sent.
_ROLES = {"USER": USER, "CHATBOT": ASSISTANT, "SYSTEM": "system", "TOOL": TOOL}

# Items of OpenAI's Responses that are messages of their own -> whose.
_ITEMS = {
    "function_call": ASSISTANT,
    "reasoning": ASSISTANT,
    "function_call_output": TOOL,
}

# Where a request body has what is said to the model: a text, a message, or a list of either.
_SAID = (
    "chat_history",
    "messages",
    "message",
    "input",
    "prompt",
    "inputText",
    "texts",
    "inputs",
    "query",
    "documents",
    "text_prompts",
    "textToImageParams.text",
    "textToVideoParams.text",
    "singleEmbeddingParams.text.value",
    "segmentedEmbeddingParams.text.value",
)
_SYSTEM = ("system", "preamble", "instructions")
_TOOLS = ("tools", "toolConfig.tools")
_IMAGES = ("inputImage", "image", "images")

# Where a message, or what stands for one in an answer, has its text, if it has no content.
_TEXTS = (
    "message",
    "text",
    "outputText",
    "generation",
    "completion",
    "data.text",
    "generated_text",
    "output_text",
    "response",
    "output",
)
_REASONING = ("reasoning_content", "reasoning")

# Where an answer has its messages; else it is one.
_ANSWERS = (
    "output.message",
    "choices",
    "results",
    "outputs",
    "generations",
    "completions",
    "output",
    "message",
)

# Where a tool's definition stands in an item of a list of tools -> its type.
_DEFINED = (
    ("toolSpec", "function"),
    ("function", "function"),
    ("systemTool", "systemTool"),
)


def read_request(reads: str, parameters: Any, clean: Clean, body_limit: int = 65_536) -> Found:
    """Read the parameters of a call; `reads` is that of its row in `operations.TABLE`."""
    read = _REQUESTS.get(reads)
    found = {} if read is None else read(parameters, clean, body_limit)
    return {name: value for name, value in found.items() if value}


def read_answer(answer: Any, clean: Clean) -> Found:
    """Read what a call answered: that of Converse or ApplyGuardrail, or an InvokeModel body."""
    for path in _ANSWERS:
        value = dig(answer, path)
        if isinstance(value, Mapping):
            value = [value]
        messages = [
            message for item in items(value) for message in _read_message(item, ASSISTANT, clean)
        ]
        if messages:
            return {"output": messages}
    messages = _read_message(answer, ASSISTANT, clean) or _read_images(answer, ASSISTANT, clean)
    return {"output": messages} if messages else {}


def _read_converse(parameters: Any, clean: Clean, _: int) -> Found:
    return {
        "input": _read_said(dig(parameters, "messages"), clean),
        "system": _read_system(dig(parameters, "system"), clean),
        "tools": _read_tools(dig(parameters, "toolConfig.tools")),
    }


def _read_invoke(parameters: Any, clean: Clean, body_limit: int) -> Found:
    body = read_json(dig(parameters, "body"), body_limit)
    said = [message for path in _SAID for message in _read_said(dig(body, path), clean)]
    return {
        "input": said + _read_images(body, USER, clean),
        "system": _read_system(first(body, _SYSTEM), clean),
        "tools": _read_tools(first(body, _TOOLS)),
    }


def _read_count_tokens(parameters: Any, clean: Clean, body_limit: int) -> Found:
    asked = dig(parameters, "input")
    if dig(asked, "converse") is not None:
        return _read_converse(dig(asked, "converse"), clean, body_limit)
    return _read_invoke(dig(asked, "invokeModel"), clean, body_limit)


def _read_guardrail(parameters: Any, clean: Clean, _: int) -> Found:
    role = ASSISTANT if dig(parameters, "source") == "OUTPUT" else USER
    guarded = _message(role, read_parts(dig(parameters, "content"), clean))
    return {"input": [*guarded, *_read_said(dig(parameters, "messages"), clean)]}


def _read_agent(parameters: Any, clean: Clean, _: int) -> Found:
    return {
        "input": _read_said(dig(parameters, "inputText"), clean),
        "system": _read_system(dig(parameters, "instruction"), clean),
    }


def _read_knowledge_base(parameters: Any, clean: Clean, _: int) -> Found:
    asked = first(parameters, ("input.text", "retrievalQuery.text"))
    queries = [dig(query, "textQuery") for query in items(dig(parameters, "queries"))]
    return {"input": _read_said(asked, clean) + _read_said(queries, clean)}


_REQUESTS: Mapping[str, Callable[[Any, Clean, int], Found]] = {
    "converse": _read_converse,
    "invoke": _read_invoke,
    "count_tokens": _read_count_tokens,
    "guardrail": _read_guardrail,
    "agent": _read_agent,
    "knowledge_base": _read_knowledge_base,
}


def _read_said(said: Any, clean: Clean) -> list[Message]:
    """Read a text, a message, or a list of them; texts in a row are one message."""
    if isinstance(said, (str, Mapping)):
        said = [said]
    texts: list[Part] = []
    messages: list[Message] = []
    for item in items(said):
        if isinstance(item, str):
            texts.extend(read_block(item, clean))
            continue
        messages += _message(USER, texts) + _read_message(item, USER, clean)
        texts = []
    return messages + _message(USER, texts)


def _message(role: Any, parts: list[Part]) -> list[Message]:
    return [{"role": role, "parts": parts}] if parts else []


def _read_message(item: Any, role: str, clean: Clean) -> list[Message]:
    """Read a message; none where nothing is said. `role` is whose it is unless it says so."""
    if isinstance(item, str):
        return _message(role, list(read_block(item, clean)))
    # A choice of OpenAI's holds a message; Cohere's message is its own content.
    inner = dig(item, "message")
    if isinstance(inner, Mapping):
        item = inner
    if not isinstance(item, Mapping):
        return []
    kind = item.get("type")
    owner = _ITEMS.get(kind) if isinstance(kind, str) else None
    if owner is not None:
        return _message(owner, list(read_block(item, clean)))
    told = item.get("role")
    role = _ROLES.get(told, word(told) or role) if isinstance(told, str) else role
    content = item.get("content")
    if content is None:
        texts = (dig(item, path) for path in _TEXTS)
        content = next((text for text in texts if isinstance(text, str)), None)
    name = item.get("name")
    named = {"name": clean(name)} if isinstance(name, str) else {}
    if "tool_call_id" in item:
        parts = [tool_response(item["tool_call_id"], content, clean)]
    else:
        parts = [*_read_thoughts(item, clean), *read_parts(content, clean)]
        parts += [_read_call(call, clean) for call in items(item.get("tool_calls"))]
    return [{**message, **named} for message in _message(role, parts)]


def _read_thoughts(item: Mapping[str, Any], clean: Clean) -> list[Part]:
    thought = first(item, _REASONING)
    if not isinstance(thought, str) or not thought:
        return []
    return [{"type": "reasoning", "content": clean(thought)}]


def _read_call(call: Any, clean: Clean) -> Part:
    name = first(call, ("function.name", "name"))
    arguments = first(call, ("function.arguments", "arguments", "parameters", "input"))
    return tool_call(dig(call, "id"), name, arguments, clean)


def _read_images(body: Any, role: str, clean: Clean) -> list[Message]:
    """Say which images stand at the top of a body, which all are base64 or data URLs."""
    found = [
        image
        for path in _IMAGES
        for image in (items(dig(body, path)) or [dig(body, path)])
        if isinstance(image, str)
    ]
    return _message(role, [describe("image", clean, uri=image) for image in found])


def _read_system(system: Any, clean: Clean) -> list[Part]:
    # The conventions allow text here, and generic parts.
    return [
        part if part["type"] in ("text", "generic") else generic(part["type"])
        for part in read_parts(system, clean)
    ]


def _read_tools(tools: Any) -> list[dict[str, Any]]:
    """Read tools' types and names: the conventions advise against the rest, for its size."""
    return [tool for item in items(tools) for tool in _read_tool(item)]


def _read_tool(item: Any) -> Iterable[dict[str, Any]]:
    kind = word(dig(item, "type"))
    kind = "function" if kind in (None, "custom") else kind
    for path, of_path in _DEFINED:
        if isinstance(dig(item, path), Mapping):
            item, kind = dig(item, path), of_path
            break
    name = word(dig(item, "name"))
    if name is not None:
        yield {"type": kind, "name": name}
