"""Prompt: what `count` reads from a file or a pipe, as arguments of converse or invoke_model."""

from __future__ import annotations

import json
import sys
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from otel_bedrock.cli.commands import CommandError

TEXT, CONVERSE, INVOKE = "text", "converse", "invoke"
FORMS = (TEXT, CONVERSE, INVOKE)
TITLES = {TEXT: "plain text", CONVERSE: "a Converse request", INVOKE: "an InvokeModel body"}

# Members by which a JSON object without messages is known as the body of a model.
_BODIES = ("anthropic_version", "prompt", "inputText")
_MODEL = "modelId"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request: its form, its members, and the model that the file itself names."""

    form: str
    members: Mapping[str, Any]
    model: str | None = None

    @property
    def messages(self) -> Sequence[Mapping[str, Any]]:
        """The conversation; () where a body has none."""
        found = self.members.get("messages")
        return found if isinstance(found, list) else ()

    @property
    def max_tokens(self) -> int | None:
        """The most that the request lets be generated, where it says so."""
        config = self.members.get("inferenceConfig")
        found = config.get("maxTokens") if isinstance(config, Mapping) else None
        if found is None and self.form == INVOKE:
            found = self.members.get("max_tokens")
        return found if type(found) is int and found >= 0 else None

    def arguments(self) -> dict[str, Any]:
        """Return what count_tokens takes, but for the model."""
        if self.form == INVOKE:
            return {"body": json.dumps(self.members, ensure_ascii=False)}
        return dict(self.members)

    def of(self, messages: Sequence[Mapping[str, Any]]) -> Prompt:
        """Return the same request with other messages."""
        return replace(self, members={**self.members, "messages": list(messages)})

    def under(self, system: str) -> Prompt:
        """Return the same request with this system prompt in place of its own."""
        said: Any = system if self.form == INVOKE else [{"text": system}]
        return replace(self, members={**self.members, "system": said})


def read_prompt(source: str, form: str | None = None) -> Prompt:
    """Read FILE, or standard input where it is `-`.

    Raises:
        CommandError: it cannot be read, or is not what `form` says; the message says what to do.
    """
    name = "standard input" if source == "-" else source
    try:
        raw = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise CommandError(
            f"{name}: not UTF-8 text. Images and documents go into a Converse request, as base64."
        ) from None
    if not text.strip():
        raise CommandError(f"{name}: empty: there is nothing to count")
    if form == TEXT:
        return _said(text)
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        if form is None:
            return _said(text)
        raise CommandError(f"{name}: expected {TITLES[form]} as JSON: {error}") from None
    if isinstance(data, list) and _is_messages(data):
        data = {"messages": data}
    found = _form_of(data)
    if found == TEXT and form is None:
        return _said(text)
    if not isinstance(data, dict) or found == TEXT:
        raise CommandError(f"{name}: expected {TITLES[form or found]}: an object with messages")
    form = form or found
    model = data.pop(_MODEL, None)
    if form == CONVERSE:
        data = _decoded(data, name)
    return Prompt(form, data, model if isinstance(model, str) else None)


def _said(text: str) -> Prompt:
    return Prompt(TEXT, {"messages": [{"role": "user", "content": [{"text": text}]}]})


def _is_messages(data: Any) -> bool:
    return (
        isinstance(data, list)
        and bool(data)
        and all(isinstance(one, dict) and "role" in one and "content" in one for one in data)
    )


def _form_of(data: Any) -> str:
    """Tell a request from a text that happens to be JSON, and one form from the other."""
    if not isinstance(data, dict):
        return TEXT
    messages = data.get("messages")
    if any(name in data for name in _BODIES):
        return INVOKE
    if not isinstance(messages, list) or not _is_messages(messages):
        return TEXT
    contents = [message["content"] for message in messages]
    native = any(
        isinstance(content, str)
        or any(isinstance(block, dict) and "type" in block for block in content)
        for content in contents
    )
    return INVOKE if native else CONVERSE


def _decoded(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a Converse request with its base64 texts as bytes, as the AWS CLI takes them."""
    import botocore.session

    session = botocore.session.get_session()
    model = session.get_service_model("bedrock-runtime")
    shape = model.operation_model("Converse").input_shape
    found: dict[str, Any] = _bytes(data, shape, name)
    return found


def _bytes(value: Any, shape: Any, at: str) -> Any:
    kind = shape.type_name
    if kind == "blob" and isinstance(value, str):
        try:
            return b64decode(value, validate=True)
        except (NotBase64, ValueError):
            raise CommandError(f"{at}: expected base64") from None
    if kind == "structure" and isinstance(value, dict) and shape.members:
        return {
            key: _bytes(member, shape.members[key], f"{at}.{key}")
            if key in shape.members
            else member
            for key, member in value.items()
        }
    if kind == "list" and isinstance(value, list):
        return [_bytes(item, shape.member, f"{at}.{n}") for n, item in enumerate(value)]
    return value
