"""Mantle: what bedrock-mantle answers to count_tokens, in Anthropic's own form.

https://docs.aws.amazon.com/bedrock/latest/userguide/count-tokens.html#count-tokens-mantle
"""

from __future__ import annotations

import json
import re

from otel_bedrock.testing.errors import Refused, invalid
from otel_bedrock.testing.exchange import Exchange, Whole, load, read_prompt
from otel_bedrock.testing.shapes.claude import MESSAGES

PATH = "/anthropic/v1/messages/count_tokens"

# What AWS's codes are called in Anthropic's answers.
_TYPES = {
    "AccessDeniedException": "permission_error",
    "ExpiredTokenException": "authentication_error",
    "InternalServerException": "api_error",
    "ResourceNotFoundException": "not_found_error",
    "ServiceUnavailableException": "overloaded_error",
    "ThrottlingException": "rate_limit_error",
    "UnrecognizedClientException": "authentication_error",
    "ValidationException": "invalid_request_error",
}
_KNOWN = frozenset(
    "model messages system tools tool_choice thinking output_config cache_control".split()
)
# Signed for this service and no other; or an API key.
_SIGNED = re.compile(r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/[a-z0-9-]+/bedrock-mantle/")
# Models are named without date and version, and the early ones are not there.
_NAME = re.compile(r"anthropic\.claude-[a-z]+-[4-9](-\d)?")


def count(exchange: Exchange) -> Whole:
    """Answer a count_tokens request."""
    headers = exchange.headers
    if not headers.get("x-api-key") and not _SIGNED.match(headers.get("authorization", "")):
        raise Refused("UnrecognizedClientException", "Authentication failed.", 401)
    if "anthropic-version" not in headers:
        raise invalid("anthropic-version: header is required")
    body = load(exchange.raw)
    for name in body:
        if name not in _KNOWN:
            raise invalid(f"{name}: Extra inputs are not permitted")
    model = str(body.get("model"))
    if not model.startswith("anthropic."):
        raise invalid(f"The model '{model}' does not support the '/anthropic/v1/messages' API")
    if not _NAME.fullmatch(model):
        raise Refused("ResourceNotFoundException", f"model: {model}")
    for index, message in enumerate(body.get("messages") or ()):
        _check(message.get("content"), index)
    prompt = read_prompt(MESSAGES.read, body)
    return Whole(json.dumps({"input_tokens": prompt.tokens}).encode(), [])


def _check(content: object, index: int) -> None:
    """Refuse blocks in Converse's form."""
    for place, block in enumerate(content if isinstance(content, list) else ()):
        if not isinstance(block, dict) or "type" not in block:
            raise invalid(f"messages.{index}.content.{place}.type: Field required")


def error_body(refusal: Refused, request_id: str) -> bytes:
    """The body of an error response, as Anthropic words it."""
    error = {"type": _TYPES.get(refusal.name, "api_error"), "message": refusal.message}
    return json.dumps({"type": "error", "request_id": request_id, "error": error}).encode()
