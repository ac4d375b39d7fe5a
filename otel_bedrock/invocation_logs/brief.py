"""Brief: of a record only what a report counts, parsed without the rest where msgspec is there.

A Brief is made of a record whose own counts tell everything; one whose body is needed too
(`Record.read_usage`) is a Record. Either way it is JSON that is parsed: in whatever order the
keys are, whatever is escaped, and what stands in a body is never taken for a field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from otel_bedrock import usage
from otel_bedrock.call import Usage
from otel_bedrock.invocation_logs.inflate import inflate
from otel_bedrock.invocation_logs.parsing import loads
from otel_bedrock.invocation_logs.reading import LogObject, Skipped
from otel_bedrock.invocation_logs.record import SCHEMA, Record
from otel_bedrock.invocation_logs.values import Corrupt, Values
from otel_bedrock.invocation_logs.wrappers import Unwrapper
from otel_bedrock.model_id import parse
from otel_bedrock.operations import EMBEDDINGS
from otel_bedrock.providers import provider_of

# In the order of COUNTS. Reasoning tokens, a part of the output, stand in bodies alone.
Counts = tuple["int | None", ...]
COUNTS = (
    "input_tokens",
    "uncached_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
)
# 2**53 - 1, as `usage.whole` has it.
_MOST = 2**53 - 1
_NO_TTLS: tuple[int | None, int | None] = (None, None)
_STREAM = "ConverseStream"
_CONVERSE = frozenset(("Converse", _STREAM))
# The name of a member that no record has.
_NOWHERE = "otel_bedrock.ttls"
_LATENCY = b"performanceConfig"
_TIER = b"serviceTier"


class Counted(Protocol):
    """What a report takes: a Record, a Brief of one, a line of a batch job."""

    @property
    def request_id(self) -> str | None: ...
    @property
    def operation(self) -> str | None: ...
    @property
    def model_id(self) -> str | None: ...
    @property
    def identity(self) -> str | None: ...
    @property
    def region(self) -> str | None: ...
    @property
    def timestamp(self) -> str | None: ...
    @property
    def error_code(self) -> str | None: ...
    @property
    def metadata(self) -> Any: ...


def counts_of(known: Usage) -> Counts:
    """Return counts in the order of COUNTS."""
    return tuple([getattr(known, name) for name in COUNTS])


try:
    import msgspec
except ModuleNotFoundError:
    _decode: Callable[[bytes], Any] | None = None
    BRIEF: Any = None
else:

    class _Identity(msgspec.Struct, gc=False):
        arn: Any = None

    class _Sent(msgspec.Struct, gc=False, rename="camel"):
        input_token_count: Any = None
        cache_read_input_token_count: Any = None
        cache_write_input_token_count: Any = None

    class _Told(msgspec.Struct, gc=False, rename="camel"):
        output_token_count: Any = None
        output_body_json: msgspec.Raw = msgspec.Raw()

    class _Answer(msgspec.Struct, gc=False):
        usage: dict[str, Any]

    class _Creation(msgspec.Struct, gc=False):
        ephemeral_5m_input_tokens: int
        ephemeral_1h_input_tokens: int

    class _ClaudeUsage(msgspec.Struct, gc=False):
        input_tokens: int
        cache_creation: _Creation
        input_tokens_details: None = None

    class _Claude(msgspec.Struct, gc=False):
        usage: _ClaudeUsage

    class _Brief(msgspec.Struct, gc=False, rename="camel"):
        request_id: str
        model_id: str
        schema_type: str
        timestamp: str
        input: _Sent
        output: _Told
        operation: str | None = None
        region: str | None = None
        error_code: Any = None
        _identity: _Identity | None = msgspec.field(default=None, name="identity")
        _metadata: Any = msgspec.field(default=None, name="requestMetadata")
        # Of what was written to the cache, how much for 5 minutes and for an hour.
        ttls: tuple[int | None, int | None] = msgspec.field(default=_NO_TTLS, name=_NOWHERE)

        @property
        def identity(self) -> str | None:
            arn = self._identity.arn if self._identity is not None else None
            return arn if isinstance(arn, str) and arn else None

        @property
        def metadata(self) -> Any:
            return self._metadata if isinstance(self._metadata, dict) else {}

        @property
        def counts(self) -> Counts:
            sent, told = self.input, self.output.output_token_count
            given, read = sent.input_token_count, sent.cache_read_input_token_count
            written = sent.cache_write_input_token_count
            total = given + (read or 0) + (written or 0)
            return (total, given, read, written, *self.ttls, told)

    _decode = msgspec.json.Decoder(_Brief).decode
    _decode_answer = msgspec.json.Decoder(_Answer).decode
    _decode_claude = msgspec.json.Decoder(_Claude).decode
    BRIEF = _Brief


def make_parse(*, splits: bool = False, variants: bool = False) -> Callable[[bytes], Any]:
    """Return what parses a value: to a Brief where that is enough, else to what JSON has.

    `splits` says that the TTL of cache writes matters, `variants` that the service tier and the
    latency mode do; those are told by bodies.
    """
    decode = _decode
    if decode is None:
        return loads
    # Model -> whether a body may count cached tokens in its input, whether ConverseStream's may,
    # and whether it puts out tokens.
    models: dict[str, tuple[bool, bool, bool]] = {}

    def parse_briefly(text: bytes) -> Any:
        try:
            brief = decode(text)
        except (ValueError, RecursionError):
            # No record, or one with a member of another type than they have.
            return loads(text)
        sent, told = brief.input, brief.output.output_token_count
        given, read = sent.input_token_count, sent.cache_read_input_token_count
        written = sent.cache_write_input_token_count
        if (
            type(given) is not int
            or not 0 <= given <= _MOST
            or (told is not None and (type(told) is not int or not 0 <= told <= _MOST))
            or (read is not None and (type(read) is not int or not 0 <= read <= _MOST))
            or (written is not None and (type(written) is not int or not 0 <= written <= _MOST))
            or brief.error_code is not None
            or brief.schema_type != SCHEMA
            or not brief.request_id
            or (variants and (_TIER in text or _LATENCY in text))
        ):
            return loads(text)
        includes = False
        if read is None or told is None or written:
            model = brief.model_id
            if model not in models:
                if len(models) > 4_096:
                    models.clear()
                row = provider_of(parse(model))
                streams = row.converse_stream_inclusive
                models[model] = (row.includes_cache, streams, row.operation != EMBEDDINGS)
            includes, streams, generates = models[model]
            if (read is None and includes) or (told is None and generates):
                return loads(text)
            if written and streams and brief.operation == _STREAM:
                return loads(text)
        if written and (splits or includes):
            # Of a body that counts the cache in its input, the input is believed.
            ttls = _read_ttls(brief, written)
            if ttls is None:
                return loads(text)
            if splits:
                brief.ttls = ttls
        return brief

    return parse_briefly


def _read_ttls(brief: Any, written: int) -> tuple[int | None, int | None] | None:
    """Read the TTLs of what was written, as `Record` does; None where that takes a Record."""
    body = brief.output.output_body_json
    if brief.operation not in _CONVERSE:
        # Most calls that write to a cache: without asking every shape of usage whether it fits.
        try:
            split = _decode_claude(body).usage.cache_creation
        except ValueError:
            pass
        else:
            short, long = split.ephemeral_5m_input_tokens, split.ephemeral_1h_input_tokens
            if short >= 0 and long >= 0:
                return (short, long) if short + long == written else _NO_TTLS
    try:
        answer = _decode_answer(body)
    except ValueError:
        # No body, one of another shape, or a list of chunks.
        return None
    read = usage.read_usage if brief.operation in _CONVERSE else usage.read_body
    report = read({"usage": answer.usage})
    if report is None or report.inclusive:
        return None
    ttls = (report.counts.get("cache_write_5m"), report.counts.get("cache_write_1h"))
    # As `usage.decide` has it.
    trusted = ttls != _NO_TTLS and (ttls[0] or 0) + (ttls[1] or 0) == written
    return ttls if trusted else _NO_TTLS


def read_briefly(log: LogObject, parse: Callable[[bytes], Any]) -> Iterator[Any]:
    """Read one object: a Brief or a Record for each record, a Skipped for what is none."""
    try:
        values = Values(inflate(log.open(0)), parse=parse)
        unwrapper = Unwrapper()
        for value in values:
            if type(value) is BRIEF:
                yield value
                continue
            line = value.line if isinstance(value, Corrupt) else values.line
            for found in unwrapper.take(value, line):
                if isinstance(found, Corrupt):
                    yield Skipped(log.name, found.line, found.why)
                elif type(found) is BRIEF:
                    yield found
                else:
                    yield Record(found, log.fetch)
        for missing in unwrapper.end():
            yield Skipped(log.name, missing.line, missing.why)
    except OSError as error:
        yield Skipped(log.name, None, error.strerror or str(error))
