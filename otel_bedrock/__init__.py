"""Exact token counts of every Amazon Bedrock call, as OpenTelemetry spans and metrics."""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from otel_bedrock.attribution import attribution
from otel_bedrock.aws_lambda import flush_after
from otel_bedrock.instrumentor import BedrockInstrumentor, flush, instrument, uninstrument
from otel_bedrock.version import __version__

if _TYPE_CHECKING:
    from otel_bedrock.budget import TokenBudget
    from otel_bedrock.budget_limit import BudgetExceeded, Limit
    from otel_bedrock.counting import (
        TokenCount,
        TokenCountUnsupported,
        count_tokens,
        count_tokens_async,
    )
    from otel_bedrock.elsewhere import record_usage

__all__ = [
    "BedrockInstrumentor",
    "BudgetExceeded",
    "Limit",
    "TokenBudget",
    "TokenCount",
    "TokenCountUnsupported",
    "__version__",
    "attribution",
    "count_tokens",
    "count_tokens_async",
    "flush",
    "flush_after",
    "instrument",
    "record_usage",
    "uninstrument",
]

# What only some programs use is imported when it is asked for: it would be a third of the time
# that importing us takes.
_LATER = {
    "BudgetExceeded": "budget_limit",
    "Limit": "budget_limit",
    "TokenBudget": "budget",
    "TokenCount": "counting",
    "TokenCountUnsupported": "counting",
    "count_tokens": "counting",
    "count_tokens_async": "counting",
    "record_usage": "elsewhere",
}


def __getattr__(name: str) -> _Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(_import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
