"""Quota: what output tokens cost of a model's quota, and how large its quota is.

Bedrock settles a call against the tokens-per-minute quota with input + cache write + output times
burndown; cache reads are free. Source of BURNDOWN: Amazon Bedrock user guide,
quotas-token-burndown, as of October 2026.

Quotas of an account are told by Service Quotas, by names such as `Cross-region model inference
tokens per minute for Anthropic Claude 3.7 Sonnet V1`. A name is taken for a model only where all
its words and numbers are those of the model's id: no limit is better than another model's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import TypeVar

from otel_bedrock.frozen import dataclass
from otel_bedrock.model_id import ModelId, is_on_demand

SOURCE = "Amazon Bedrock user guide, quotas-token-burndown, October 2026"

MINUTE, DAY = "minute", "day"

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


@dataclass(frozen=True, slots=True)
class Quota:
    """One quota of an account in a Region, as Service Quotas tells it."""

    name: str
    value: int


def burndown(model: ModelId, own: Mapping[str, int] | None = None) -> int | None:
    """Return the factor of `model`; None where it is not known or does not apply.

    `own` comes before the table: factors by the id as called, or by base id.
    """
    if model.base_id is None or not is_on_demand(model):
        return None
    if own:
        found = _find(model, own)
        if found is not None:
            return found
    return _burndown(model.base_id)


@lru_cache(maxsize=1024)
def _burndown(base_id: str) -> int | None:
    for row in BURNDOWN:
        if re.match(row.pattern, base_id):
            return row.factor or None
    return None


def limit_of(model: ModelId, limits: Mapping[str, Mapping[str, int]]) -> Mapping[str, int] | None:
    """Return the limits by period of a table by the id as called, or by base id."""
    return _find(model, limits) if is_on_demand(model) else None


Value = TypeVar("Value")


def _find(model: ModelId, table: Mapping[str, Value]) -> Value | None:
    for key in (model.name, model.arn, model.profile_id, model.base_id):
        if key is not None and key in table:
            return table[key]
    return None


_NAME = (
    r"(?:(?P<kind>global cross-region|cross-region|on-demand) (?:model inference|invokemodel)"
    r" tokens per minute|(?P<day>model invocation max tokens per day)) for (?P<model>.+)"
)
# Said by some names and not by ids.
_FILLERS = frozenset(("ai",))


def quota_of(model: ModelId, period: str, quotas: Iterable[Quota]) -> int | None:
    """Return the limit of `model` among `quotas`; None where none or several of them are it."""
    if model.base_id is None or model.kind == "application-inference-profile":
        return None
    if not is_on_demand(model):
        return None
    kind = {None: "on-demand", "global": "global cross-region"}.get(model.geo, "cross-region")
    wanted = _words(model.base_id.replace(".", " ", 1))
    found = set()
    for quota in quotas:
        parts = re.fullmatch(_NAME, quota.name.strip().lower())
        if parts is None or (MINUTE if parts["day"] is None else DAY) != period:
            continue
        if parts["kind"] not in (None, kind):
            continue
        # The day's quota may be `(doubled for cross-region calls)`, whatever that comes to.
        name, _, note = parts["model"].partition("(")
        if _words(name) == wanted and not (note and model.geo):
            found.add(quota.value)
    return found.pop() if len(found) == 1 else None


@lru_cache(maxsize=4096)
def _words(text: str) -> tuple[tuple[str, ...], tuple[str, ...], str]:
    """Return words, numbers in their order and version: `Claude 3.7 Sonnet V1` and its id agree."""
    text = re.sub(r"-\d{8}(?=$|-)", "", text.lower().strip())
    version = re.search(r"[ -]v(\d+)(:\d+)?$", text)
    if version is not None:
        text = text[: version.start()]
    parts = re.findall(r"[a-z]+|\d+", text)
    words = sorted({part for part in parts if part.isalpha()} - _FILLERS)
    numbers = (part for part in parts if not part.isalpha())
    return tuple(words), tuple(numbers), "1" if version is None else version[1]
