"""Brief: of a record only what a report counts, parsed without the rest where msgspec is there.

A Brief is made of a record whose own counts tell everything; one whose body is needed too
(`Record.read_usage`) is a Record. Either way it is JSON that is parsed: in whatever order the
keys are, whatever is escaped, and what stands in a body is never taken for a field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

from otel_bedrock.call import Usage
from otel_bedrock.invocation_logs.inflate import inflate
from otel_bedrock.invocation_logs.parsing import loads
from otel_bedrock.invocation_logs.reading import LogObject, Skipped
from otel_bedrock.invocation_logs.record import SCHEMA, Record
from otel_bedrock.invocation_logs.values import Corrupt, Values
from otel_bedrock.invocation_logs.wrappers import unwrap
from otel_bedrock.model_id import parse
from otel_bedrock.providers import provider_of

# Total input, uncached, cache read, cache write, of it 5m and 1h, output, reasoning.
Counts = tuple["int | None", ...]
COUNTS = (
    "input_tokens",
    "uncached_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
)
# 2**53 - 1, as `usage.whole` has it.
_MOST = 2**53 - 1
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


def counts_of(usage: Usage) -> Counts:
    """Return the counts of `usage` in the order of COUNTS."""
    return tuple(getattr(usage, name) for name in COUNTS)


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
            total = given if read is None else given + read
            written = sent.cache_write_input_token_count
            return (total, given, read, written, None, None, told, None)

    _decode = msgspec.json.Decoder(_Brief).decode
    BRIEF = _Brief


def make_parse(*, variants: bool = False) -> Callable[[bytes], Any]:
    """Return what parses a value: to a Brief where that is enough, else to what JSON has.

    `variants` says that the service tier and the latency mode matter, which bodies may tell.
    """
    decode = _decode
    if decode is None:
        return loads
    waits: dict[str, bool] = {}

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
            or type(told) is not int
            or not 0 <= given <= _MOST
            or not 0 <= told <= _MOST
            or (read is not None and (type(read) is not int or not 0 <= read <= _MOST))
            # What was written is split by TTL in the body.
            or (written is not None and (type(written) is not int or written != 0))
            or brief.error_code is not None
            or brief.schema_type != SCHEMA
            or not brief.request_id
            or (variants and (_TIER in text or _LATENCY in text))
        ):
            return loads(text)
        if read is None:
            # Of such models only the body tells what came from the cache.
            model = brief.model_id
            if model not in waits:
                if len(waits) > 4_096:
                    waits.clear()
                waits[model] = provider_of(parse(model)).includes_cache
            if waits[model]:
                return loads(text)
        return brief

    return parse_briefly


def read_briefly(log: LogObject, parse: Callable[[bytes], Any]) -> Iterator[Any]:
    """Read one object: a Brief or a Record for each record, a Skipped for what is none."""
    try:
        values = Values(inflate(log.open(0)), parse=parse)
        for value in values:
            if type(value) is BRIEF:
                yield value
                continue
            line = value.line if isinstance(value, Corrupt) else values.line
            for found in unwrap(value, line):
                if isinstance(found, Corrupt):
                    yield Skipped(log.name, found.line, found.why)
                elif type(found) is BRIEF:
                    yield found
                else:
                    yield Record(found, log.fetch)
    except OSError as error:
        yield Skipped(log.name, None, error.strerror or str(error))
