"""Messages API: a Converse request, or a Claude body of InvokeModel, in Anthropic's own form.

For counting on bedrock-mantle, which takes nothing else. What has no equal there raises NoEqual,
which names the place: a prompt is counted whole or not at all.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Body = dict[str, Any]

# Members of a native body that count; the others (max_tokens, temperature, …) are refused.
COUNTED = (
    "messages",
    "system",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "output_format",
    "cache_control",
    "context_management",
    "mcp_servers",
)
# The text forms of a Converse document; Anthropic takes them as plain text.
_TEXTS = frozenset(("txt", "md", "csv", "html"))


class NoEqual(ValueError):
    """A member of the request has no equal in the Messages API; the message names it."""


class _Written:
    """What is written while a request is read: whether it is still letter for letter the same."""

    def __init__(self) -> None:
        self.exact = True


def from_native(raw: bytes) -> tuple[Body, tuple[str, ...]]:
    """Return the counted members of a Claude body of InvokeModel, and its beta flags.

    Raises:
        NoEqual: it is no such body.
    """
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, Mapping) or "messages" not in body:
        raise NoEqual("a body that is not in Claude's Messages form has no equal")
    counted = {name: body[name] for name in COUNTED if name in body}
    return counted, _betas(body.get("anthropic_beta"))


def from_converse(request: Mapping[str, Any]) -> tuple[Body, tuple[str, ...], bool]:
    """Return a Converse request in Anthropic's form, its beta flags, and whether it is exact.

    It is not where a tool's JSON result had to be written as text: how Bedrock spaces it is not
    documented. Cache points are left out: they change what is charged for, not how much it is.

    Raises:
        NoEqual: a member has no equal there.
    """
    written = _Written()
    more = request.get("additionalModelRequestFields") or {}
    if not isinstance(more, Mapping):
        raise NoEqual("additionalModelRequestFields: expected an object")
    body: Body = {
        "messages": [
            {
                "role": message.get("role"),
                "content": _blocks(
                    message.get("content") or (), f"messages.{index}.content", written
                ),
            }
            for index, message in enumerate(request.get("messages") or ())
        ]
    }
    system = _blocks(request.get("system") or (), "system", written)
    if system:
        body["system"] = system
    config = request.get("toolConfig") or {}
    tools = [*_tools(config.get("tools") or ()), *(more.get("tools") or ())]
    if tools:
        body["tools"] = tools
    choice = config.get("toolChoice")
    if choice:
        body["tool_choice"] = _choice(choice)
    for name in COUNTED:
        if name in more and name != "tools":
            body[name] = more[name]
    return body, _betas(more.get("anthropic_beta")), written.exact


def _betas(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(item for item in items if isinstance(item, str))


def _tools(tools: Iterable[Mapping[str, Any]]) -> Iterable[Body]:
    for index, tool in enumerate(tools):
        if "cachePoint" in tool:
            continue
        spec = tool.get("toolSpec")
        if spec is None:
            raise NoEqual(f"toolConfig.tools.{index}: {_kind(tool)} has no equal")
        found = {"name": spec.get("name"), "input_schema": (spec.get("inputSchema") or {})["json"]}
        for name in ("description", "strict"):
            if name in spec:
                found[name] = spec[name]
        yield found


def _choice(choice: Mapping[str, Any]) -> Body:
    kind = _kind(choice)
    if kind == "tool":
        return {"type": "tool", "name": choice["tool"].get("name")}
    return {"type": kind}


def _kind(block: Mapping[str, Any]) -> str:
    return next(iter(block), "an empty block")


def _blocks(blocks: Iterable[Mapping[str, Any]], at: str, written: _Written) -> list[Body]:
    found = []
    for index, block in enumerate(blocks):
        kind = _kind(block)
        if kind == "cachePoint":
            continue
        place = f"{at}.{index}.{kind}"
        write = _BLOCKS.get(kind)
        if write is None:
            raise NoEqual(f"{place} has no equal in the Messages API")
        found.append(write(block[kind], place, written))
    return found


def _text(value: Any, at: str, written: _Written) -> Body:
    return {"type": "text", "text": value}


def _json(value: Any, at: str, written: _Written) -> Body:
    written.exact = False
    return {"type": "text", "text": json.dumps(value, ensure_ascii=False)}


def _bytes(source: Mapping[str, Any], at: str, media: str) -> Body:
    data = source.get("bytes")
    if not isinstance(data, (bytes, bytearray)):
        raise NoEqual(f"{at}.source: only bytes can be sent to bedrock-mantle")
    return {"type": "base64", "media_type": media, "data": b64encode(data).decode()}


def _image(value: Mapping[str, Any], at: str, written: _Written) -> Body:
    media = f"image/{value.get('format')}"
    return {"type": "image", "source": _bytes(value.get("source") or {}, at, media)}


def _document(value: Mapping[str, Any], at: str, written: _Written) -> Body:
    source, form = value.get("source") or {}, value.get("format")
    found: Body = {"type": "document"}
    if "text" in source:
        found["source"] = _plain(source["text"])
    elif "content" in source:
        found["source"] = {
            "type": "content",
            "content": _blocks(source["content"], f"{at}.source.content", written),
        }
    elif form == "pdf":
        found["source"] = _bytes(source, at, "application/pdf")
    elif form in _TEXTS and isinstance(source.get("bytes"), (bytes, bytearray)):
        found["source"] = _plain(bytes(source["bytes"]).decode("utf-8", "replace"))
    else:
        raise NoEqual(f"{at}: a {form} document has no equal in the Messages API")
    for ours, theirs in (("name", "title"), ("context", "context"), ("citations", "citations")):
        if ours in value:
            found[theirs] = value[ours]
    return found


def _plain(text: str) -> Body:
    return {"type": "text", "media_type": "text/plain", "data": text}


def _tool_use(value: Mapping[str, Any], at: str, written: _Written) -> Body:
    return {
        "type": value.get("type", "tool_use"),
        "id": value.get("toolUseId"),
        "name": value.get("name"),
        "input": value.get("input"),
    }


def _tool_result(value: Mapping[str, Any], at: str, written: _Written) -> Body:
    found = {
        "type": "tool_result",
        "tool_use_id": value.get("toolUseId"),
        "content": _blocks(value.get("content") or (), f"{at}.content", written),
    }
    return {**found, "is_error": True} if value.get("status") == "error" else found


def _reasoning(value: Mapping[str, Any], at: str, written: _Written) -> Body:
    if "redactedContent" in value:
        data = b64encode(value["redactedContent"]).decode()
        return {"type": "redacted_thinking", "data": data}
    thought = value.get("reasoningText") or {}
    return {
        "type": "thinking",
        "thinking": thought.get("text"),
        "signature": thought.get("signature", ""),
    }


def _guarded(value: Mapping[str, Any], at: str, written: _Written) -> Body:
    # The mark is for the guardrail; what the model reads is what it marks.
    if "text" in value:
        return _text((value["text"] or {}).get("text"), at, written)
    return _image(value.get("image") or {}, at, written)


def _search_result(value: Mapping[str, Any], at: str, written: _Written) -> Body:
    found = {
        "type": "search_result",
        "source": value.get("source"),
        "title": value.get("title"),
        "content": [_text(one.get("text"), at, written) for one in value.get("content") or ()],
    }
    return {**found, "citations": value["citations"]} if "citations" in value else found


_BLOCKS: Mapping[str, Callable[[Any, str, _Written], Body]] = {
    "text": _text,
    "json": _json,
    "image": _image,
    "document": _document,
    "toolUse": _tool_use,
    "toolResult": _tool_result,
    "reasoningContent": _reasoning,
    "guardContent": _guarded,
    "searchResult": _search_result,
}
