"""TABLE: every span attribute and metric that we emit; README's tables are rendered from it.

Names of OpenTelemetry's GenAI conventions are literals here: opentelemetry-semantic-conventions
has no `gen_ai.*` newer than v1.41, and pinning it has broken others' installations.
"""

from __future__ import annotations

from otel_bedrock.config import SEMCONV_141, SEMCONV_2026_10
from otel_bedrock.frozen import dataclass

NEW = frozenset((SEMCONV_2026_10,))
OLD = frozenset((SEMCONV_141,))
EVER = NEW | OLD

SCHEMA_URLS = {
    SEMCONV_2026_10: "https://opentelemetry.io/schemas/gen-ai/1.42.0",
    SEMCONV_141: "https://opentelemetry.io/schemas/1.41.0",
}

PROVIDER_NAME = "aws.bedrock"
# What values beyond a limit are counted under.
OTHER = "other"
TTL = "bedrock.cache.ttl"
TTL_UNKNOWN = "unknown"
MISSING_REASON = "bedrock.usage.missing.reason"
SITE = "site"
POLICY = "policy"
ORIGIN = "bedrock.usage.origin"
PERIOD = "bedrock.quota.period"
COUNTED = "bedrock.count_tokens.input_tokens"
COUNT_DIFFERENCE = "bedrock.count_tokens.difference"
BUDGET_EXCEEDED = "bedrock.budget.exceeded"
BUDGET_LIMIT = "bedrock.budget.limit"
BUDGET_ENFORCED = "bedrock.budget.enforced"
METADATA_PREFIX = "bedrock.request_metadata."
ATTRIBUTION_PREFIX = "bedrock.attribution."
TOKEN_TYPE = "gen_ai.token.type"
MODALITY = "gen_ai.token.modality"
MODALITY_UNKNOWN = "unknown"

CALL, PARAMETER, OUTCOME, USAGE, FIXED = "call", "parameter", "outcome", "usage", "fixed"
CONTENT, COST, BUDGET = "content", "cost", "budget"
# Of the record of an invocation log, beside what a live call tells too.
LOG = "log"
# The event with content, where that is captured on events.
DETAILS = "gen_ai.client.inference.operation.details"
# On that event; a span has the message as the description of its status.
ERROR_MESSAGE = "error.message"


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """One span attribute.

    `source` and `field` say where its value comes from: a field of Call, one of its
    parameters, a field of Outcome or Usage, or the call's content. `at_start`: samplers see
    it. `on_metrics`: it is an attribute of metrics as well. `sets`: the sets of names that
    have it.
    """

    key: str
    type: str
    source: str
    field: str
    sentence: str
    at_start: bool = False
    on_metrics: bool = False
    sets: frozenset[str] = EVER


# fmt: off
ATTRIBUTES = (
    Attribute("gen_ai.operation.name", "string", CALL, "operation",
              "What was asked: `chat`, `text_completion`, `embeddings`, …", True, True),
    Attribute("gen_ai.provider.name", "string", FIXED, "provider", "Always `aws.bedrock`.",
              True, True),
    Attribute("gen_ai.request.model", "string", CALL, "model.name",
              "The model id as sent; opaque ARNs as `<kind>/<id>`, without account id.",
              True, True),
    Attribute("server.address", "string", CALL, "address", "Host of the endpoint.", True, True),
    Attribute("server.port", "int", CALL, "port", "Port of the endpoint.", True, True),
    Attribute("cloud.region", "string", CALL, "region", "Region of the client.", False, True),
    Attribute("bedrock.model.base_id", "string", CALL, "model.base_id",
              "The foundation model's id, without geo prefix, ARN and context suffix.",
              False, True),
    Attribute("bedrock.model.arn", "string", CALL, "model.arn", "The ARN, where one was sent."),
    Attribute("bedrock.model.geo", "string", CALL, "model.geo",
              "The geo prefix of a cross-Region profile: `us`, `eu`, `global`, …"),
    Attribute("bedrock.inference_profile.id", "string", CALL, "model.profile_id",
              "Id of the inference profile, where one was asked."),
    Attribute("gen_ai.request.max_tokens", "int", PARAMETER, "max_tokens",
              "Most tokens to generate."),
    Attribute("gen_ai.request.temperature", "double", PARAMETER, "temperature", "Temperature."),
    Attribute("gen_ai.request.top_p", "double", PARAMETER, "top_p", "Nucleus sampling."),
    Attribute("gen_ai.request.top_k", "int", PARAMETER, "top_k", "Top-k sampling."),
    Attribute("gen_ai.request.stop_sequences", "string[]", PARAMETER, "stop_sequences",
              "Stop sequences."),
    Attribute("gen_ai.request.frequency_penalty", "double", PARAMETER, "frequency_penalty",
              "Frequency penalty."),
    Attribute("gen_ai.request.presence_penalty", "double", PARAMETER, "presence_penalty",
              "Presence penalty."),
    Attribute("gen_ai.request.seed", "int", PARAMETER, "seed", "Seed."),
    Attribute("gen_ai.request.choice.count", "int", PARAMETER, "choice_count",
              "Candidates asked for, where not one."),
    Attribute("gen_ai.request.encoding_formats", "string[]", PARAMETER, "encoding_formats",
              "Encodings asked for (embeddings)."),
    Attribute("gen_ai.embeddings.dimension.count", "int", PARAMETER, "dimension_count",
              "Dimensions asked for (embeddings)."),
    Attribute("gen_ai.request.stream", "boolean", PARAMETER, "stream", "True for streams."),
    Attribute("aws.bedrock.guardrail.id", "string", PARAMETER, "guardrail_id",
              "The guardrail, where one is used."),
    Attribute("aws.bedrock.knowledge_base.id", "string", PARAMETER, "knowledge_base_id",
              "The knowledge base, where one is asked."),
    Attribute("gen_ai.agent.id", "string", PARAMETER, "agent_id", "The agent that was invoked."),
    Attribute("gen_ai.response.finish_reasons", "string[]", OUTCOME, "finish_reasons",
              "As Bedrock sent them; `error` where a stream ended before its final event."),
    Attribute("gen_ai.response.id", "string", OUTCOME, "response_id",
              "The answer's own id, never invented."),
    Attribute("gen_ai.response.model", "string", OUTCOME, "response_model",
              "The model that the answer names."),
    Attribute("gen_ai.response.time_to_first_chunk", "double", OUTCOME, "time_to_first_chunk",
              "Seconds from request to first chunk (streams)."),
    Attribute("gen_ai.usage.input_tokens", "int", USAGE, "input_tokens",
              "All input tokens, cache included."),
    Attribute("gen_ai.usage.output_tokens", "int", USAGE, "output_tokens",
              "All output tokens, reasoning included."),
    Attribute("gen_ai.usage.cache_read.input_tokens", "int", USAGE, "cache_read_tokens",
              "Input tokens read from the prompt cache."),
    Attribute("gen_ai.usage.cache_write.input_tokens", "int", USAGE, "cache_write_tokens",
              "Input tokens written to the prompt cache.", sets=NEW),
    Attribute("gen_ai.usage.cache_creation.input_tokens", "int", USAGE, "cache_write_tokens",
              "The same, by its name until v1.41.", sets=OLD),
    Attribute("gen_ai.usage.reasoning.output_tokens", "int", USAGE, "reasoning_tokens",
              "Output tokens spent on reasoning, where the answer tells."),
    Attribute("bedrock.usage.uncached.input_tokens", "int", USAGE, "uncached_tokens",
              "Input tokens neither read from nor written to the cache."),
    Attribute("bedrock.usage.cache_write.5m.input_tokens", "int", USAGE, "cache_write_5m_tokens",
              "Cache writes kept for 5 minutes."),
    Attribute("bedrock.usage.cache_write.1h.input_tokens", "int", USAGE, "cache_write_1h_tokens",
              "Cache writes kept for an hour."),
    Attribute("bedrock.usage.source", "string", USAGE, "source",
              "Who told the counts: `usage`, `headers`, `body`, `metrics`, an agent's `trace`, a"
              " `log`."),
    Attribute("bedrock.usage.complete", "boolean", OUTCOME, "complete",
              "False where a stream ended before its final event."),
    Attribute(COUNTED, "int", OUTCOME, "counted_tokens",
              "The answer of CountTokens, which is not usage; of other calls where `count_before`"
              " had it asked before."),
    Attribute(COUNT_DIFFERENCE, "int", FIXED, "",
              "Input tokens billed minus those counted before the call (`count_before`)."),
    Attribute("bedrock.service_tier", "string", OUTCOME, "service_tier",
              "The tier that served the call; of a failed one, that was asked for.", False, True),
    Attribute("bedrock.latency_mode", "string", OUTCOME, "latency_mode",
              "`standard` or `optimized`, as served; of a failed call, as asked."),
    Attribute("bedrock.prompt_router.invoked_model", "string", OUTCOME, "invoked_model",
              "The model that a prompt router chose."),
    Attribute("bedrock.guardrail.action", "string", OUTCOME, "guardrail_action",
              "What the guardrail did: `INTERVENED` or `NONE`."),
    Attribute("bedrock.server.latency_ms", "int", OUTCOME, "server_latency_ms",
              "Bedrock's own latency, in milliseconds."),
    Attribute("bedrock.retry_attempts", "int", OUTCOME, "retry_attempts",
              "Retries inside this call."),
    Attribute("bedrock.throttle.reason", "string", OUTCOME, "throttle_reason",
              "Why Bedrock throttled: `tokens_per_minute`, `tokens_per_day`,"
              " `requests_per_minute`, `capacity` or `other`."),
    Attribute("aws.request_id", "string", OUTCOME, "request_id", "The request's id at AWS."),
    Attribute("error.type", "string", OUTCOME, "error_type",
              "Bedrock's error code, else the exception's class.", False, True),
    Attribute("bedrock.cost.usd", "double", COST, "usd",
              "Opt-in (`prices`): what the call cost in US dollars; absent where not known."),
    Attribute("bedrock.cost.source", "string", COST, "source",
              "Opt-in (`prices`): whose prices those are."),
    Attribute("bedrock.cost.date", "string", COST, "date",
              "Opt-in (`prices`): the day of their data, where the source says it."),
    Attribute(ORIGIN, "string", LOG, "origin",
              "Only on what does not come from the process that called: `invocation_log`, `batch`.",
              False, True),
    Attribute("cloud.account.id", "string", LOG, "account", "The account, where a log tells."),
    Attribute("bedrock.identity.arn", "string", LOG, "identity", "Who called, where a log tells."),
    Attribute("bedrock.inference.region", "string", LOG, "inference_region",
              "The Region that a cross-Region profile chose, where a log tells."),
    Attribute(BUDGET_EXCEEDED, "string[]", BUDGET, "excesses",
              "Limits of a budget that does not enforce them, which the call went over."),
    Attribute("gen_ai.input.messages", "string", CONTENT, "input",
              "Opt-in (`capture_content`): what was said to the model, as JSON."),
    Attribute("gen_ai.output.messages", "string", CONTENT, "output",
              "Opt-in (`capture_content`): what the model said, as JSON."),
    Attribute("gen_ai.system_instructions", "string", CONTENT, "system",
              "Opt-in (`capture_content`): the system prompt, as JSON."),
    Attribute("gen_ai.tool.definitions", "string", CONTENT, "tools",
              "Opt-in (`capture_content`): types and names of the tools on offer, as JSON."),
)
# fmt: on

COSTS = tuple((row.field, row.key) for row in ATTRIBUTES if row.source == COST)

COUNTER, HISTOGRAM, GAUGE = "counter", "histogram", "gauge"

DEFAULT, ALL, OPT_IN = "default", "metrics=all", "opt-in"
PRICES, LIMITS, BUDGETS = "prices", "quota_limits", "budget"

_TOKENS = tuple(4**power for power in range(14))
_SECONDS = tuple(0.01 * 2**power for power in range(14))


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric; `key` is its short name in the code, `when` says what switches it on."""

    key: str
    name: str
    kind: str
    unit: str
    sentence: str
    buckets: tuple[float, ...] | None = None
    sets: frozenset[str] = EVER
    when: str = DEFAULT


_USAGE = "gen_ai.client.inference.usage"

# fmt: off
METRICS = (
    Metric("input", f"{_USAGE}.input_tokens", COUNTER, "{token}",
           "Input tokens, cache included.", sets=NEW),
    Metric("output", f"{_USAGE}.output_tokens", COUNTER, "{token}",
           "Output tokens, reasoning included.", sets=NEW),
    Metric("cache_read", f"{_USAGE}.cache_read.input_tokens", COUNTER, "{token}",
           "Input tokens read from the prompt cache.", sets=NEW),
    Metric("cache_write", f"{_USAGE}.cache_write.input_tokens", COUNTER, "{token}",
           "Input tokens written to the prompt cache; `bedrock.cache.ttl`: 5m, 1h, unknown.",
           sets=NEW),
    Metric("reasoning", f"{_USAGE}.reasoning.output_tokens", COUNTER, "{token}",
           "Output tokens spent on reasoning.", sets=NEW),
    Metric("operation_input", "gen_ai.client.inference.operation.input_tokens", HISTOGRAM,
           "{token}", "Input tokens of one successful call.", _TOKENS, NEW),
    Metric("operation_output", "gen_ai.client.inference.operation.output_tokens", HISTOGRAM,
           "{token}", "Output tokens of one successful call.", _TOKENS, NEW),
    Metric("inference_duration", "gen_ai.client.inference.duration", HISTOGRAM, "s",
           "Duration of one call; `error.type` on failures.", _SECONDS, NEW),
    Metric("time_to_first_chunk", "gen_ai.client.inference.time_to_first_chunk", HISTOGRAM, "s",
           "From request to first chunk (streams).", _SECONDS, NEW),
    Metric("time_per_output_token", "bedrock.client.time_per_output_token", HISTOGRAM, "s",
           "From first to last chunk, over the output tokens after the first; once a stream.",
           (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)),
    Metric("time_per_output_chunk", "gen_ai.client.inference.time_per_output_chunk", HISTOGRAM,
           "s", "Between two chunks of a stream.", _SECONDS, NEW, OPT_IN),
    Metric("embeddings_duration", "gen_ai.client.embeddings.duration", HISTOGRAM, "s",
           "Duration of one embeddings call.", _SECONDS, NEW),
    Metric("embeddings_input", "gen_ai.client.embeddings.operation.input_tokens", HISTOGRAM,
           "{token}", "Input tokens of one successful embeddings call.", _TOKENS, NEW),
    Metric("operation_duration", "gen_ai.client.operation.duration", HISTOGRAM, "s",
           "Duration of operations without a metric of their own; in v1.41 of all.", _SECONDS),
    Metric("agent_duration", "gen_ai.invoke_agent.duration", HISTOGRAM, "s",
           "Duration of one agent invocation.", _SECONDS, NEW),
    Metric("old_usage", "gen_ai.client.token.usage", HISTOGRAM, "{token}",
           "Tokens of one call by `gen_ai.token.type`: input (cache included) or output.",
           _TOKENS, OLD),
    Metric("old_time_to_first_chunk", "gen_ai.client.operation.time_to_first_chunk", HISTOGRAM,
           "s", "From request to first chunk (streams).", _SECONDS, OLD),
    Metric("old_time_per_output_chunk", "gen_ai.client.operation.time_per_output_chunk",
           HISTOGRAM, "s", "Between two chunks of a stream.", _SECONDS, OLD, OPT_IN),
    Metric("burndown", "bedrock.client.quota.burndown", GAUGE, "1",
           "Quota tokens that an output token of a model costs, for each model seen; rules compute"
           " quota tokens a minute from it: uncached input + cache write + output times burndown."),
    Metric("limit", "bedrock.client.quota.limit", GAUGE, "{token}",
           "The quota of each model seen, in quota tokens a `bedrock.quota.period`: minute or day;"
           " quota tokens over it are the utilisation.", when=LIMITS),
    Metric("cost", "bedrock.client.cost", COUNTER, "{USD}",
           "US dollars that calls cost; those whose price is not known are not in it.",
           when=PRICES),
    Metric("budget_exceeded", "bedrock.client.budget.exceeded", COUNTER, "{call}",
           "Calls that went over a limit of the budget, by `bedrock.budget.limit`; refused where"
           " `bedrock.budget.enforced`.", when=BUDGETS),
    Metric("budget_unchecked", "bedrock.client.budget.unchecked", COUNTER, "{call}",
           "Calls that went out while the budget's shared store did not answer.", when=BUDGETS),
    Metric("missing", "bedrock.client.usage.missing", COUNTER, "{call}",
           "Calls whose usage Bedrock never sent; `bedrock.usage.missing.reason`: aborted,"
           " error, unsupported."),
    Metric("retries", "bedrock.client.retries", COUNTER, "{attempt}", "Retries inside calls."),
    Metric("guardrail_units", "bedrock.client.guardrail.units", COUNTER, "{unit}",
           "Guardrail text units by `policy`."),
    Metric("guardrail_interventions", "bedrock.client.guardrail.interventions", COUNTER,
           "{call}", "Calls in which a guardrail intervened."),
    Metric("errors", "bedrock.instrumentation.errors", COUNTER, "{error}",
           "Failures of this instrumentation, by `site`; calls are never affected."),
    Metric("server_latency", "bedrock.client.server_latency", HISTOGRAM, "s",
           "Bedrock's own latency.", _SECONDS, EVER, ALL),
    Metric("max_tokens_unset", "bedrock.client.max_tokens.unset", COUNTER, "{call}",
           "Calls that reserve the model's maximum of output tokens.", None, EVER, ALL),
)
# fmt: on

# gen_ai.operation.name -> keys of its duration and its input histogram in the new set.
DURATIONS = {
    "chat": "inference_duration",
    "text_completion": "inference_duration",
    "generate_content": "inference_duration",
    "embeddings": "embeddings_duration",
    "invoke_agent": "agent_duration",
}
INPUT_HISTOGRAMS = {"embeddings": "embeddings_input"}


def render() -> str:
    """Return the tables of attributes and metrics as Markdown."""
    lines = ["| span attribute | type | on metrics | what |", "|---|---|---|---|"]
    for row in ATTRIBUTES:
        note = "" if row.sets == EVER else f" (only with {_sets(row.sets)})"
        lines.append(
            f"| `{row.key}` | {row.type} | {'yes' if row.on_metrics else ''} |"
            f" {row.sentence}{note} |"
        )
    lines.append(
        f"| `{METADATA_PREFIX}<key>` | string |  | Values of `requestMetadata`, allow-listed. |"
    )
    lines.append(
        f"| `{ATTRIBUTION_PREFIX}<key>` | string | `attribution_metric_keys` |"
        " What `attribution()` was given: tenant, feature, … |"
    )
    lines += ["", "| metric | kind | unit | when | what |", "|---|---|---|---|---|"]
    for metric in METRICS:
        when = metric.when if metric.sets == EVER else f"{metric.when}, {_sets(metric.sets)}"
        lines.append(
            f"| `{metric.name}` | {metric.kind} | {metric.unit} | {when} | {metric.sentence} |"
        )
    lines += [
        "",
        f"Token counters also have `{MODALITY}`, which is `{MODALITY_UNKNOWN}`: Bedrock breaks no"
        f" count down by it. The token histogram of v1.41 has `{TOKEN_TYPE}`: `input`, `output`.",
        "",
        "Content on events (`EVENT_ONLY`, `SPAN_AND_EVENT`) is that of one log record a call,"
        f" `{DETAILS}`, which has what the span has, and of a failed call `{ERROR_MESSAGE}`.",
    ]
    return "\n".join(lines) + "\n"


def _sets(sets: frozenset[str]) -> str:
    return ", ".join(sorted(sets))
