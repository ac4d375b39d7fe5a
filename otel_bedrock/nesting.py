"""Nesting: the inference that a framework's own GenAI instrumentation has begun around a call.

OpenTelemetry's GenAI utilities keep the running inference in the context, as an object that
inner instrumentations publish to. Under it our span stays, as a child, and the usage goes to the
outer span, so that no backend adds it up twice. The object is recognised by what it has, so that
the utilities need not be installed.
"""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context

from otel_bedrock.call import Usage

# opentelemetry.util.genai.invocation.CLIENT_INFERENCE_CONTEXT_KEY
CONTEXT_KEY = "opentelemetry.genai.client.inference.context"

# Instrumentations of the same botocore call: an inference that one of them began is no
# framework's, and our span keeps its usage. Scope name -> how to switch it off.
CONFLICTS = {
    "opentelemetry.instrumentation.genai.bedrock": "genai-bedrock",
    "opentelemetry.instrumentation.botocore": "botocore",
    "opentelemetry.instrumentation.bedrock": "bedrock",
    "openinference.instrumentation.bedrock": "bedrock",
}

# Field of Usage -> what the outer inference calls it.
_PUBLISHED = (
    ("input_tokens", "usage_input_tokens"),
    ("output_tokens", "usage_output_tokens"),
    ("cache_read_tokens", "usage_cache_read_input_tokens"),
    ("cache_write_tokens", "usage_cache_write_input_tokens"),
    ("reasoning_tokens", "usage_reasoning_output_tokens"),
)


def enclosing(here: Context) -> Any:
    """Return the inference around the call that starts in `here`; None where there is none."""
    outer: Any = here.get(CONTEXT_KEY)
    if outer is None or not hasattr(outer, "usage_input_tokens"):
        return None
    scope = getattr(trace.get_current_span(here), "instrumentation_scope", None)
    name = getattr(scope, "name", "") or ""
    if any(name == known or name.startswith(f"{known}.") for known in CONFLICTS):
        return None
    return outer


def publish(outer: Any, usage: Usage | None) -> None:
    """Give the usage to the enclosing inference; what is not known leaves its value alone."""
    for field, name in _PUBLISHED:
        count = getattr(usage, field, None)
        if count is not None and hasattr(outer, name):
            setattr(outer, name, count)
