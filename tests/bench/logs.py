"""What `logs report` takes for a record of 2 KB: µs of CPU, and the most memory, by kind of record.

    python tests/bench/logs.py [--records 200000] [--json]

Each kind is read from one local file in a process of its own, as a user's would be.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIZE = 2_048
# Kind -> whether it is compressed, and the tokens that each call wrote to the cache.
KINDS = {
    "plain": (False, 0),
    "gzip": (True, 0),
    "cache writes, by TTL": (False, 120),
}


def make_record(rng: random.Random, number: int, written: int) -> str:
    """One record of SIZE bytes: Claude by InvokeModel, mostly text, with escapes in it."""
    usage = {
        "input_tokens": number % 997,
        "output_tokens": number % 311,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": written,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written,
            "ephemeral_1h_input_tokens": 0,
        },
    }
    prompt = {"messages": [{"role": "user", "content": ""}]}
    answer = {
        "type": "message",
        "content": [{"type": "text", "text": ""}],
        "stop_reason": "end_turn",
        "usage": usage,
    }
    record = {
        "schemaType": "ModelInvocationLog",
        "schemaVersion": "1.0",
        "timestamp": f"2026-11-{1 + number % 28:02}T10:54:44Z",
        "accountId": "123456789012",
        "identity": {"arn": f"arn:aws:sts::123456789012:assumed-role/app-{number % 7}/session"},
        "region": "us-east-1",
        "requestId": f"{rng.getrandbits(32):08x}-0000-4000-a000-{number:012x}",
        "operation": "InvokeModel",
        "modelId": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "input": {
            "inputContentType": "application/json",
            "inputBodyJson": prompt,
            "inputTokenCount": usage["input_tokens"],
            "cacheReadInputTokenCount": 100,
            "cacheWriteInputTokenCount": written,
        },
        "output": {
            "outputContentType": "application/json",
            "outputBodyJson": answer,
            "outputTokenCount": usage["output_tokens"],
        },
        "requestMetadata": {"team": "search"},
    }
    words = ["the", "answer", 'with "quotes"', "and\n", "lines", "naïve", "which", "it", "says"]
    room = SIZE - len(json.dumps(record, separators=(",", ":")))
    text = ""
    while len(json.dumps(text)) < room:
        text += rng.choice(words) + " "
    prompt["messages"][0]["content"] = text[: len(text) // 3]
    answer["content"][0]["text"] = text[len(text) // 3 :]
    return json.dumps(record, separators=(",", ":"))


def write(path: Path, records: int, *, packed: bool, written: int) -> None:
    """Write so many records; their texts repeat, their ids do not."""
    rng = random.Random(1)
    made = [make_record(rng, number, written) for number in range(500)]
    with gzip.open(path, "wt", 6) if packed else path.open("w") as file:
        for number in range(records):
            text = made[number % len(made)]
            file.write(text.replace('"requestId":"', f'"requestId":"{number:x}-', 1) + "\n")


def measure(path: str, *, splits: bool) -> tuple[float, float, int]:
    """Report one file, in this process: CPU seconds, peak of resident MB, calls."""
    from otel_bedrock.invocation_logs import open_source
    from otel_bedrock.invocation_logs.brief import make_parse, read_briefly
    from otel_bedrock.invocation_logs.report import Report

    report = Report(by=("model", "identity"))
    started = time.process_time()
    for log in open_source(path).objects(None, None):
        for record in read_briefly(log, make_parse(splits=splits)):
            report.take(record)
    seconds = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds, peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), report.calls


def run(records: int) -> dict[str, tuple[float, float]]:
    """Measure every kind: µs of CPU for a record, peak of resident MB."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, (packed, written) in KINDS.items():
            path = Path(folder) / ("log.json.gz" if packed else "log.json")
            write(path, records, packed=packed, written=written)
            command = [sys.executable, __file__, "--one", str(path)]
            command += ["--splits"] if written else []
            seconds, peak, calls = json.loads(subprocess.check_output(command))
            assert calls == records
            found[kind] = (seconds / records * 1e6, peak)
            path.unlink()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--splits", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, splits=options.splits)))
        return
    found = run(options.records)
    if options.json:
        print(json.dumps(found))
        return
    for kind, (each, peak) in found.items():
        print(f"{kind:22} {each:6.1f} µs a record, {1e6 / each:9,.0f} records/s, {peak:4.0f} MB")


if __name__ == "__main__":
    main()
