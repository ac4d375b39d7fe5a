"""ApplyGuardrail: lets everything pass, and counts text units instead of tokens."""

from __future__ import annotations

import json
from typing import Any

from otel_bedrock.testing.prompt import text_of

# https://aws.amazon.com/bedrock/pricing/: a text unit has up to 1,000 characters.
_UNIT = 1000
_UNITS = (
    "automatedReasoningPolicies",
    "automatedReasoningPolicyUnits",
    "contentPolicyImageUnits",
    "contentPolicyUnits",
    "contextualGroundingPolicyUnits",
    "sensitiveInformationPolicyFreeUnits",
    "sensitiveInformationPolicyUnits",
    "topicPolicyUnits",
    "wordPolicyUnits",
)
_CHARGED = frozenset({"contentPolicyUnits", "topicPolicyUnits"})


def apply_guardrail(request: dict[str, Any]) -> bytes:
    """The response body of a guardrail that finds nothing wrong."""
    blocks = request.get("content", [])
    text = text_of([block.get("text", {}) for block in blocks])
    units = -(-len(text) // _UNIT)
    usage = {name: units if name in _CHARGED else 0 for name in _UNITS}
    body = {
        "action": "NONE",
        "actionReason": "No action.",
        "assessments": [],
        "guardrailCoverage": {
            "images": None,
            "textCharacters": {"guarded": len(text), "total": len(text)},
        },
        "output": [],
        "outputs": [],
        "usage": usage,
    }
    return json.dumps(body, separators=(",", ":")).encode()
