"""Exact token counts of every Amazon Bedrock call, as OpenTelemetry spans and metrics."""

from otel_bedrock.attribution import attribution
from otel_bedrock.aws_lambda import flush_after
from otel_bedrock.budget import BudgetExceeded, Limit, TokenBudget
from otel_bedrock.counting import (
    TokenCount,
    TokenCountUnsupported,
    count_tokens,
    count_tokens_async,
)
from otel_bedrock.instrumentor import BedrockInstrumentor, flush, instrument, uninstrument
from otel_bedrock.version import __version__

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
    "uninstrument",
]
