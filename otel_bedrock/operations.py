"""TABLE: one row for each API operation of Bedrock's run-time services that we tell about."""

from __future__ import annotations

from types import MappingProxyType

from otel_bedrock.frozen import dataclass

CHAT = "chat"
TEXT_COMPLETION = "text_completion"
EMBEDDINGS = "embeddings"
RETRIEVAL = "retrieval"
GENERATE_CONTENT = "generate_content"


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One row.

    `name` is the value of `gen_ai.operation.name`, None where the model decides. `reads`
    names how request, answer and events are read (the keys of the tables in `request`,
    `answer` and `events`). `stream` is the member of the answer that holds its event stream, `body`
    the one that holds a body. `spends` says that the call uses tokens of a model, so that an
    answer without usage is missing something. `model` leads to the model's id or ARN in the
    request: the first of these paths that is there.
    """

    service: str
    api: str
    name: str | None
    reads: str
    stream: str | None = None
    body: str | None = None
    spends: bool = False
    model: tuple[str, ...] = ("modelId",)


_RAG = "retrieveAndGenerateConfiguration"
_RAG_MODEL = (
    f"{_RAG}.knowledgeBaseConfiguration.modelArn",
    f"{_RAG}.externalSourcesConfiguration.modelArn",
)
_RERANK_MODEL = (
    "rerankingConfiguration.bedrockRerankingConfiguration.modelConfiguration.modelArn",
)

_RUNTIME = "bedrock-runtime"
_AGENTS = "bedrock-agent-runtime"

# fmt: off
_ROWS = (
    Operation(_RUNTIME, "Converse", CHAT, "converse", spends=True),
    Operation(_RUNTIME, "ConverseStream", CHAT, "converse", stream="stream", spends=True),
    Operation(_RUNTIME, "InvokeModel", None, "invoke", body="body", spends=True),
    Operation(_RUNTIME, "InvokeModelWithResponseStream", None, "invoke", stream="body",
              spends=True),
    Operation(_RUNTIME, "StartAsyncInvoke", GENERATE_CONTENT, "plain"),
    Operation(_RUNTIME, "CountTokens", "count_tokens", "count_tokens"),
    Operation(_RUNTIME, "ApplyGuardrail", "apply_guardrail", "guardrail", model=()),
    Operation(_RUNTIME, "InvokeGuardrailChecks", "apply_guardrail", "guardrail", model=()),
    # Agents and knowledge bases call models on their own; what those spend is told by an
    # agent's trace, where it was asked for, and by nothing else.
    Operation(_AGENTS, "InvokeAgent", "invoke_agent", "agent", stream="completion", model=()),
    Operation(_AGENTS, "InvokeInlineAgent", "invoke_agent", "agent", stream="completion",
              model=("foundationModel",)),
    Operation(_AGENTS, "Retrieve", RETRIEVAL, "knowledge_base", model=()),
    Operation(_AGENTS, "Rerank", RETRIEVAL, "knowledge_base", model=_RERANK_MODEL),
    Operation(_AGENTS, "RetrieveAndGenerate", CHAT, "knowledge_base", model=_RAG_MODEL),
    Operation(_AGENTS, "RetrieveAndGenerateStream", CHAT, "knowledge_base", stream="stream",
              model=_RAG_MODEL),
)
# fmt: on

TABLE = MappingProxyType({(row.service, row.api): row for row in _ROWS})

# The first question that the patched method asks of every AWS call.
SERVICES = frozenset(row.service for row in _ROWS)
