"""TABLE: one row for each API operation of Bedrock's run-time services that we tell about."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

CHAT = "chat"
TEXT_COMPLETION = "text_completion"
EMBEDDINGS = "embeddings"
GENERATE_CONTENT = "generate_content"


@dataclass(frozen=True, slots=True)
class Operation:
    """One row.

    `name` is the value of `gen_ai.operation.name`, None where the model decides. `reads`
    names how request and answer are read (the keys of `request.READERS` and
    `usage.READERS`). `stream` is the member of the answer that holds its event stream, `body`
    the one that holds a body. `spends` says that the call uses tokens of a model, so that an
    answer without usage is missing something.
    """

    service: str
    api: str
    name: str | None
    reads: str
    stream: str | None = None
    body: str | None = None
    spends: bool = False


_ROWS = (
    Operation("bedrock-runtime", "Converse", CHAT, "converse", spends=True),
    Operation("bedrock-runtime", "ConverseStream", CHAT, "converse", stream="stream", spends=True),
    Operation("bedrock-runtime", "InvokeModel", None, "invoke", body="body", spends=True),
    Operation(
        "bedrock-runtime",
        "InvokeModelWithResponseStream",
        None,
        "invoke",
        stream="body",
        spends=True,
    ),
    Operation("bedrock-runtime", "CountTokens", "count_tokens", "count_tokens"),
    Operation("bedrock-runtime", "ApplyGuardrail", "apply_guardrail", "guardrail"),
    Operation("bedrock-runtime", "InvokeGuardrailChecks", "apply_guardrail", "guardrail"),
)

TABLE = MappingProxyType({(row.service, row.api): row for row in _ROWS})

# The first question that the patched method asks of every AWS call.
SERVICES = frozenset(row.service for row in _ROWS)
