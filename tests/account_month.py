"""A month of an account's model invocation logs, made up, with everything that real ones have.

`write_month(folder, records=…, seed=…)` writes the objects of a bucket and returns the Truth: what
a reader must find in them. The same arguments give the same bytes. As a program it writes a month
to look at, or to measure with:

    python tests/account_month.py FOLDER --records 1000000
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

ACCOUNT = "123456789012"
BUCKET = "company-bedrock-logs"
REGION = "us-east-1"
START = datetime(2026, 10, 1, tzinfo=timezone.utc)
DAYS = 31

_ROLE = f"arn:aws:sts::{ACCOUNT}:assumed-role"
IDENTITIES = (
    f"{_ROLE}/search-service/i-0aaaaaaaaaaaaaaa1",
    f"{_ROLE}/support-bot/i-0bbbbbbbbbbbbbbb2",
    f"{_ROLE}/AWSReservedSSO_Developer/jane@example.com",
    f"arn:aws:iam::{ACCOUNT}:user/nightly",
)
TEAMS = ("search", "support", 'quo"ted\\team', None)
KINDS = ("uncached", "cache_read", "cache_write", "output")


@dataclass(slots=True)
class Cost:
    """What one call used; None is what neither counts nor body tell."""

    uncached: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    output: int | None = None
    write_1h: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A model as it is called: how, and what its bodies look like."""

    model_id: str
    # As on metrics.
    name: str
    operation: str
    body: Callable[[Cost, random.Random], Any]
    cached: bool = False
    split: bool = False
    generates: bool = True


def _words(rng: random.Random, least: int = 4, most: int = 60) -> str:
    # Texts that look like the fields that are counted, and that need escapes.
    words = ('"inputTokenCount":999', "naïve", "\\", "\n", "count", '{"output":', "\u2028", "x")
    return " ".join(rng.choices(words, k=rng.randint(least, most)))


def _usage_camel(cost: Cost) -> dict[str, int]:
    read, write = cost.cache_read, cost.cache_write
    usage = {
        "inputTokens": cost.uncached,
        "outputTokens": cost.output,
        "totalTokens": cost.uncached + cost.output + (read or 0) + (write or 0),
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": write,
    }
    return {key: value for key, value in usage.items() if value is not None}


def converse(cost: Cost, rng: random.Random) -> Any:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": _words(rng)}]}},
        "stopReason": "end_turn",
        "metrics": {"latencyMs": rng.randint(100, 9_000)},
        "usage": _usage_camel(cost),
    }


def _claude_usage(cost: Cost) -> dict[str, Any]:
    usage: dict[str, Any] = {"input_tokens": cost.uncached, "output_tokens": cost.output}
    if cost.cache_read is not None:
        usage["cache_read_input_tokens"] = cost.cache_read
        usage["cache_creation_input_tokens"] = cost.cache_write
        long = cost.write_1h or 0
        usage["cache_creation"] = {
            "ephemeral_5m_input_tokens": cost.cache_write - long,
            "ephemeral_1h_input_tokens": long,
        }
    return usage


def claude(cost: Cost, rng: random.Random) -> Any:
    return {
        "id": f"msg_bdrk_{rng.getrandbits(64):x}",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": _words(rng)}],
        "stop_reason": "end_turn",
        "usage": _claude_usage(cost),
    }


def claude_chunks(cost: Cost, rng: random.Random) -> Any:
    started = {**_claude_usage(cost), "output_tokens": 1}
    message = {"id": "msg_bdrk_1", "type": "message", "role": "assistant", "usage": started}
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_delta", "index": 0, "delta": {"text": _words(rng)}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": cost.output},
        },
        {"type": "message_stop"},
    ]


def nova_chunks(cost: Cost, rng: random.Random) -> Any:
    return [
        {"contentBlockDelta": {"delta": {"text": _words(rng)}, "contentBlockIndex": 0}},
        {
            "metadata": {"usage": _usage_camel(cost)},
            "amazon-bedrock-invocationMetrics": {
                "inputTokenCount": cost.uncached,
                "outputTokenCount": cost.output,
                "invocationLatency": 900,
                "firstByteLatency": 90,
            },
        },
    ]


def openai(cost: Cost, rng: random.Random) -> Any:
    read = cost.cache_read or 0
    details = {} if cost.cache_read is None else {"prompt_tokens_details": {"cached_tokens": read}}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": _words(rng)}}],
        "usage": {
            "prompt_tokens": cost.uncached + read,
            "completion_tokens": cost.output,
            "total_tokens": cost.uncached + read + cost.output,
            **details,
        },
    }


def llama(cost: Cost, rng: random.Random) -> Any:
    return {
        "generation": _words(rng),
        "prompt_token_count": cost.uncached,
        "generation_token_count": cost.output,
        "stop_reason": "stop",
    }


def titan_embedding(cost: Cost, rng: random.Random) -> Any:
    vector = [round(rng.uniform(-1, 1), 6) for _ in range(16)]
    return {"embedding": vector, "inputTextTokenCount": cost.uncached}


_SONNET = "anthropic.claude-sonnet-4-5-20250929-v1:0"
_OPUS = "anthropic.claude-opus-4-6-v1"
_PROFILE = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:application-inference-profile/ab12cd34ef56"
_NATIVE, _CHUNKS = "InvokeModel", "InvokeModelWithResponseStream"
# fmt: off
SOURCES = (
    Source(f"us.{_SONNET}", f"us.{_SONNET}", "Converse", converse, cached=True),
    Source(f"us.{_SONNET}", f"us.{_SONNET}", "ConverseStream", converse, cached=True),
    Source(f"global.{_OPUS}", f"global.{_OPUS}", _NATIVE, claude, cached=True, split=True),
    Source(f"global.{_OPUS}", f"global.{_OPUS}", _CHUNKS, claude_chunks, cached=True, split=True),
    Source(f"arn:aws:bedrock:{REGION}::foundation-model/{_SONNET}", _SONNET, "Converse", converse),
    Source(_PROFILE, "application-inference-profile/ab12cd34ef56", "ConverseStream", converse),
    Source("amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0", _CHUNKS, nova_chunks),
    Source("openai.gpt-oss-120b-1:0", "openai.gpt-oss-120b-1:0", _NATIVE, openai),
    Source("openai.gpt-5.6-sol", "openai.gpt-5.6-sol", _NATIVE, openai, cached=True),
    Source("us.meta.llama3-3-70b-instruct-v1:0", "us.meta.llama3-3-70b-instruct-v1:0", _NATIVE,
           llama),
    Source("amazon.titan-embed-text-v2:0", "amazon.titan-embed-text-v2:0", _NATIVE,
           titan_embedding, generates=False),
    Source("acme.newmodel-v1:0", "acme.newmodel-v1:0", "Converse", converse),
)
# fmt: on


@dataclass(slots=True)
class Sums:
    """What a reader must find for one key; a kind that no record reported is None."""

    requests: int = 0
    errors: int = 0
    uncached: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    output: int | None = None
    write_1h: int | None = None
    first: str = "9"
    last: str = "0"

    def add(self, row: Row) -> None:
        self.requests += 1
        self.errors += row.error
        for name in (*KINDS, "write_1h"):
            count = getattr(row.cost, name)
            if count is not None:
                setattr(self, name, (getattr(self, name) or 0) + count)
        self.first = min(self.first, row.time)
        self.last = max(self.last, row.time)


@dataclass(frozen=True, slots=True)
class Row:
    """One call: what a report may group by, and what it used."""

    request_id: str
    time: str
    model: str
    identity: str
    operation: str
    team: str | None
    cost: Cost
    error: bool = False

    @property
    def day(self) -> str:
        return self.time[:10]


@dataclass(slots=True)
class Truth:
    """What is in the folder. `rows` is empty where the month was written without keeping them."""

    rows: list[Row] = field(default_factory=list)
    calls: int = 0
    duplicates: int = 0
    # Lines, and objects, that nobody can read.
    corrupt: int = 0
    objects: int = 0

    def sums(self, *by: str, where: Callable[[Row], bool] = lambda row: True) -> dict[Any, Sums]:
        """Sums by the fields of Row, as tuples where there are several."""
        found: dict[Any, Sums] = {}
        for row in self.rows:
            if where(row):
                key = tuple(getattr(row, name) for name in by)
                found.setdefault(key[0] if len(by) == 1 else key, Sums()).add(row)
        return found

    def total(self) -> Sums:
        """Sums over everything."""
        whole = Sums()
        for row in self.rows:
            whole.add(row)
        return whole


class Month:
    """Makes the records, and lays them out in objects."""

    def __init__(self, folder: Path, seed: int, keep: bool, trouble: bool) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.keep = keep
        self.trouble = trouble
        self.truth = Truth()

    def call(self, when: datetime) -> tuple[dict[str, Any], Row]:
        """One call: its record, and what must be read of it."""
        rng = self.rng
        source = rng.choice(SOURCES)
        cost = Cost(rng.randint(0, 5_000), output=rng.randint(0, 900) if source.generates else None)
        if source.cached and rng.random() < 0.7:
            cost.cache_read = rng.choice((0, rng.randint(1, 100_000)))
            if not source.model_id.startswith("openai."):
                cost.cache_write = rng.choice((0, 0, rng.randint(1, 20_000)))
                if source.split and cost.cache_write:
                    cost.write_1h = rng.choice((0, cost.cache_write))
        error = rng.random() < 0.03
        team = rng.choice(TEAMS)
        bits = f"{rng.getrandbits(128):032x}"
        request_id = f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"
        record: dict[str, Any] = {
            "schemaType": "ModelInvocationLog",
            "schemaVersion": "1.0",
            "timestamp": f"{when:%Y-%m-%dT%H:%M:%SZ}",
            "accountId": ACCOUNT,
            "identity": {"arn": rng.choice(IDENTITIES)},
            "region": REGION,
            "requestId": request_id,
            "operation": source.operation,
            "modelId": source.model_id,
        }
        if source.model_id.startswith(("us.", "global.")):
            record["inferenceRegion"] = "us-west-2"
        if team is not None:
            record["requestMetadata"] = {"team": team, "note": '"modelId":"not.me"'}
        prompt = {"messages": [{"role": "user", "content": [{"text": _words(rng)}]}]}
        given: dict[str, Any] = {"inputContentType": "application/json", "inputBodyJson": prompt}
        record["input"] = given
        if error:
            record["errorCode"] = rng.choice(("ThrottlingException", "ValidationException"))
            cost = Cost()
        else:
            given["inputTokenCount"] = cost.uncached
            if cost.cache_read is not None:
                given["cacheReadInputTokenCount"] = cost.cache_read
            if cost.cache_write is not None:
                given["cacheWriteInputTokenCount"] = cost.cache_write
            told = {"outputContentType": "application/json"}
            told["outputBodyJson"] = source.body(cost, rng)
            if cost.output is not None:
                told["outputTokenCount"] = cost.output
            record["output"] = told
            self._vary(record, cost, when, request_id)
        row = Row(
            request_id,
            record["timestamp"],
            source.name,
            record["identity"]["arn"],
            source.operation,
            team,
            cost,
            error,
        )
        return record, row

    def _vary(self, record: dict[str, Any], cost: Cost, when: datetime, request_id: str) -> None:
        """Some records have no bodies, or none of theirs here, or no counts beside them."""
        chance = self.rng.random()
        given, told = record["input"], record["output"]
        if chance < 0.05:
            del given["inputBodyJson"], told["outputBodyJson"]
            cost.write_1h = None
        elif chance < 0.10:
            for side, part in (("input", given), ("output", told)):
                key = f"{_hour(when)}/data/{request_id}_{side}.json.gz"
                body = part.pop(f"{side}BodyJson")
                part[f"{side}BodyS3Path"] = f"s3://{BUCKET}/{key}"
                self._put(key, _pack(json.dumps(body)))
        elif chance < 0.15 and record["operation"] != _CHUNKS:
            for part in (given, told):
                for name in [name for name in part if name.endswith("TokenCount")]:
                    del part[name]
        elif chance < 0.20:
            told["outputBodyJson"] = json.dumps(told["outputBodyJson"])
        elif chance < 0.25:
            record["unheardOf"] = {"inputTokenCount": 1, "deep": [[{"requestId": "no"}]]}
            given["outputTokenCount"] = 77
            told["inputTokenCount"] = 88

    def line(self, record: dict[str, Any]) -> str:
        """One record as JSON, in one of the ways to write it."""
        rng, chance = self.rng, self.rng.random()
        if chance < 0.2:
            record = dict(sorted(record.items(), key=lambda _: rng.random()))
        if chance < 0.1:
            return json.dumps(record)
        text = json.dumps(record, separators=(",", ":"), ensure_ascii=chance < 0.6)
        if chance > 0.95:
            # The same keys, escaped.
            text = text.replace('"inputTokenCount":', '"\\u0069nputTokenCount":')
            text = text.replace('"requestId":', '"request\\u0049d":')
        return text

    def write(self, records: int) -> Truth:
        """Write the month, hour by hour."""
        self._put(f"{_root()}/amazon-bedrock-logs-permission-check", b"")
        late: list[str] = []
        for hour, count in _spread(records, self.rng):
            when = START + timedelta(hours=hour)
            lines = []
            for _ in range(count):
                record, row = self.call(when + timedelta(seconds=self.rng.randrange(3_600)))
                text = self.line(record)
                self.truth.calls += 1
                if self.keep:
                    self.truth.rows.append(row)
                chance = self.rng.random()
                if self.trouble and chance < 0.02:
                    late.append(text)  # delivered with a later hour's
                    continue
                lines.append(text)
                if self.trouble and chance < 0.05:
                    (lines if chance < 0.03 else late).append(text)
                    self.truth.duplicates += 1
            if late and self.rng.random() < 0.2:
                lines, late = lines + late, []
            if self.trouble and lines and self.rng.random() < 0.1:
                lines.insert(self.rng.randrange(len(lines)), self._corrupt(lines[-1]))
                self.truth.corrupt += 1
            self._object(when, lines)
        if late:
            self._object(START + timedelta(days=DAYS, hours=3), late)
        if self.trouble:
            self._broken_objects()
        return self.truth

    def _corrupt(self, line: str) -> str:
        return self.rng.choice(("this is no JSON", line[: len(line) // 2], '{"other": "object"}'))

    def _object(self, when: datetime, lines: list[str]) -> None:
        if not lines:
            return
        stamp = f"{when:%Y%m%dT%H%M%S}000Z_{self.rng.getrandbits(64):016x}"
        text = "".join(f"{line}\n" for line in lines)
        self._put(f"{_hour(when)}/{stamp}.json.gz", _pack(text))
        self.truth.objects += 1

    def _broken_objects(self) -> None:
        """One that is no gzip at all under its name, one that ends in its second record."""
        when = START + timedelta(days=3)
        self._put(f"{_hour(when)}/damaged.json.gz", b"\x1f\x8b" + bytes(range(64)))
        (first, row), (second, _) = self.call(when), self.call(when)
        # Stored, not deflated: so it is known how much of it comes out.
        whole = _pack(f"{json.dumps(first)}\n{json.dumps(second)}\n", level=0)
        self._put(f"{_hour(when)}/ends-early.json.gz", whole[:-40])
        self.truth.calls += 1
        if self.keep:
            self.truth.rows.append(row)
        self.truth.objects += 2
        # The damaged object; the record that is cut off, and that its object ends early.
        self.truth.corrupt += 2

    def _put(self, key: str, data: bytes) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _pack(text: str, level: int = 1) -> bytes:
    return gzip.compress(text.encode(), level, mtime=0)


def _root() -> str:
    return f"AWSLogs/{ACCOUNT}/BedrockModelInvocationLogs"


def _hour(when: datetime) -> str:
    return f"{_root()}/{REGION}/{when:%Y/%m/%d/%H}"


def _spread(records: int, rng: random.Random) -> Iterator[tuple[int, int]]:
    """Hours with their counts: few at night, none in some."""
    hours = sorted(rng.sample(range(DAYS * 24), k=min(DAYS * 24, max(4, records // 8))))
    for index, hour in enumerate(hours):
        yield hour, records * (index + 1) // len(hours) - records * index // len(hours)


def write_month(
    folder: str | Path,
    *,
    records: int = 2_000,
    seed: int = 7,
    keep: bool = True,
    trouble: bool = True,
) -> Truth:
    """Write a month of `records` calls; `trouble` adds duplicates, late files and corrupt data."""
    return Month(Path(folder), seed, keep, trouble).write(records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--records", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    truth = write_month(options.folder, records=options.records, seed=options.seed, keep=False)
    print(
        f"{truth.calls:,} calls in {truth.objects:,} objects; {truth.duplicates:,} records twice,"
        f" {truth.corrupt:,} corrupt"
    )


if __name__ == "__main__":
    main()
