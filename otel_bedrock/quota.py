"""Quota: how many quota tokens an output token costs, by model.

Bedrock settles a call against the tokens-per-minute quota with input + cache write + output times
burndown; cache reads are free. Source of BURNDOWN: Amazon Bedrock user guide,
quotas-token-burndown, as of October 2026.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from otel_bedrock.model_id import ModelId, is_on_demand

SOURCE = "Amazon Bedrock user guide, quotas-token-burndown, October 2026"

# What may follow the version in an id: a date, and `-v1:0` with or without `:0`.
_END = r"(-\d{8})?(-v\d+(:\d+)?)?$"


@dataclass(frozen=True, slots=True, eq=False)
class Burndown:
    """One row: base ids that match `pattern` cost `factor` quota tokens per output token."""

    pattern: str
    factor: int


# First match wins.
BURNDOWN = (
    Burndown(rf"anthropic\.claude-[a-z]+-4-8{_END}", 15),
    Burndown(rf"anthropic\.claude-(opus-5-5|sonnet-5|opus-5|fable-5-1){_END}", 10),
    Burndown(rf"anthropic\.claude-[a-z]+-4(-[0-7])?{_END}", 5),
    Burndown(r"anthropic\.claude-(v2|instant|[23][-.:]|[23]$)", 5),
    # A Claude that the page does not name has no known factor.
    Burndown(r"anthropic\.", 0),
    Burndown(rf"openai\.gpt-5\.6-(sol|terra|luna){_END}", 10),
    Burndown(r"[a-z0-9-]+\.", 1),
)


@lru_cache(maxsize=1024)
def burndown(model: ModelId) -> int | None:
    """Return the factor of `model`; None where it is not known or does not apply."""
    if model.base_id is None or not is_on_demand(model):
        return None
    for row in BURNDOWN:
        if re.match(row.pattern, model.base_id):
            return row.factor or None
    return None
