"""Fuzz the reading layer, guided by coverage: `python tests/fuzz.py -max_total_time=300`.

Needs atheris (`pip install atheris`), which is no dependency: it is run by hand, outside CI. The
options are libFuzzer's. It starts from tests/corpus/; what it learns goes into a scratch folder, or
into the one that is named. `--seed-corpus` writes tests/corpus/ anew.

An input is a byte that says what is read, and what is read: JSON, or lines of JSON for streams.
Whatever it is, nothing may raise but what is listed, and every count must be one that OTLP can
carry.
"""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed: pip install atheris")

CORPUS = Path(__file__).parent / "corpus"

with atheris.instrument_imports(include=["otel_bedrock"]):
    from otel_bedrock import answer, events, request, shapes, usage
    from otel_bedrock.call import Usage
    from otel_bedrock.model_id import parse
    from otel_bedrock.operations import TABLE
    from otel_bedrock.providers import GENERIC
    from otel_bedrock.providers import TABLE as PROVIDERS

_ROWS = tuple(TABLE.values())
_PROVIDERS = (*PROVIDERS, GENERIC)
_COUNTS = [field.name for field in fields(Usage) if field.name.endswith("tokens")]


def _check_count(count: Any) -> None:
    if count is not None and (type(count) is not int or not 0 <= count < 2**63):
        raise AssertionError(f"no count: {count!r}")


def _check_usage(told: Usage | None) -> None:
    for name in _COUNTS if told is not None else ():
        _check_count(getattr(told, name))


def _check_found(found: dict[str, Any]) -> None:
    _check_usage(found.get("usage"))
    for name in ("server_latency_ms", "retry_attempts", "counted_tokens"):
        _check_count(found.get(name))
    for units in (found.get("guardrail_units") or {}).values():
        _check_count(units)
    for reason in found.get("finish_reasons") or ():
        if type(reason) is not str:
            raise AssertionError(f"no reason: {reason!r}")


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _read_answer(which: int, data: bytes) -> None:
    value = _json(data)
    row = _ROWS[which % len(_ROWS)]
    for provider in (_PROVIDERS[which % len(_PROVIDERS)], GENERIC):
        _check_found(answer.read_answer(row, value, provider))
        _check_found(answer.read_body_details(value, provider))
    _check_found(answer.read_converse_details(value if isinstance(value, dict) else {}))


def _read_usage(which: int, data: bytes) -> None:
    value = _json(data)
    reports = [
        usage.read_headers(value) if isinstance(value, dict) else None,
        usage.read_usage(value, inclusive=bool(which & 1)),
        usage.read_body(value),
        usage.read_metrics(value),
        usage.read_additional(value),
    ]
    for final in (True, False):
        _check_usage(usage.decide(reports, final=final))
        _check_usage(usage.decide(reports[::-1], final=final))
    merged = None
    for report in reports:
        merged = usage.merge(merged, report)
        usage.held(report, splits=True, includes=True)
    _check_usage(usage.decide([merged]))


def _see_events(which: int, data: bytes) -> None:
    dialects = sorted(events.DIALECTS)
    dialect = dialects[which % len(dialects)]
    seen = events.DIALECTS[dialect](_PROVIDERS[which % len(_PROVIDERS)])
    for line in data.split(b"\n"):
        # An event is what botocore parsed: a dict of one member. Chunks are the model's bytes.
        event = {"chunk": {"bytes": line}} if dialect == "invoke" else _json(line)
        if not isinstance(event, dict):
            continue
        seen.see(event)
        for exhausted in (True, False):
            _check_usage(seen.usage(exhausted=exhausted))
            _check_found(seen.found(exhausted=exhausted))
        events.time_per_output_token(seen, seen.usage())


def _read_call(which: int, data: bytes) -> None:
    row = _ROWS[which % len(_ROWS)]
    value = _json(data)
    model = data[:64].decode("utf-8", "replace")
    for parameters in (value, {"modelId": model, "body": data}):
        if not isinstance(parameters, dict):
            continue
        for wanted in (True, False):
            call, _ = request.read_call(row, parameters, wanted=wanted, aliases={model: "x.y"})
            if type(call.operation) is not str:
                raise AssertionError(f"no operation: {call.operation!r}")
    parse(model)


_TARGETS: tuple[Callable[[int, bytes], None], ...] = (
    _read_answer,
    _read_usage,
    _see_events,
    _read_call,
)


def run(data: bytes) -> None:
    """Read one input."""
    if data:
        _TARGETS[data[0] % len(_TARGETS)](data[0] // len(_TARGETS), data[1:])


_ODD = (0, -1, 28.0, 2**53, 2**63, 1e308, True, None, "", "5m", [], {}, [0], [[]], {"a": 1})


def _change(value: Any, chance: random.Random, parts: list[Any]) -> Any:
    """Return JSON with one place in it changed: to something odd, or to a part of the input."""
    parts.append(value)
    if not isinstance(value, (dict, list)) or not value or chance.random() < 0.15:
        odd = chance.choice(_ODD) if chance.random() < 0.6 else chance.choice(parts)
        return chance.choice((odd, odd, [value, odd], [value, value]))
    key = chance.choice(list(value) if isinstance(value, dict) else range(len(value)))
    changed = value.copy()
    if chance.random() < 0.1:
        del changed[key]
    else:
        changed[key] = _change(value[key], chance, parts)
    return changed


def mutate(data: bytes, limit: int, seed: int) -> bytes:
    """Change an input: half of the time as JSON, which bytes at random seldom leave whole."""
    chance = random.Random(seed)
    lines = data[1:].split(b"\n")
    at = chance.randrange(len(lines))
    value = _json(lines[at])
    if value is None or chance.random() < 0.5:
        return bytes(atheris.Mutate(data, limit))
    lines[at] = json.dumps(_change(value, chance, []), separators=(",", ":")).encode()
    made = data[:1] + b"\n".join(lines)
    return made if len(made) <= limit else bytes(atheris.Mutate(data, limit))


def _which(target: Callable[[int, bytes], None], index: int) -> bytes:
    return bytes([index * len(_TARGETS) + _TARGETS.index(target)])


def write_corpus() -> None:
    """Write what fuzzing begins with: the samples of test_fuzz.py, one file for each."""
    import test_fuzz

    for old in CORPUS.glob("*"):
        old.unlink()

    def put(name: str, target: Callable[[int, bytes], None], index: int, data: bytes) -> None:
        (CORPUS / name).write_bytes(_which(target, index) + data)

    def line(value: Any) -> bytes:
        return json.dumps(value, separators=(",", ":")).encode()

    operations = [row.api for row in _ROWS]
    put("answer-converse", _read_answer, operations.index("Converse"), line(test_fuzz._ANSWER))
    put("usage-converse", _read_usage, 0, line(test_fuzz._ANSWER))
    headers = {name: "12" for _, name in shapes.HEADER_NAMES}
    put("usage-headers", _read_usage, 0, line(headers))
    invoked = {"ResponseMetadata": {"RequestId": "r", "RetryAttempts": 1, "HTTPHeaders": headers}}
    put("answer-invoke", _read_answer, operations.index("InvokeModel"), line(invoked))
    put("answer-count", _read_answer, operations.index("CountTokens"), line({"inputTokens": 5}))
    assessed = {"action": "GUARDRAIL_INTERVENED", "usage": {"topicPolicyUnits": 2}}
    put("answer-guardrail", _read_answer, operations.index("ApplyGuardrail"), line(assessed))
    for index, body in enumerate(test_fuzz._BODIES):
        put(f"usage-body-{index}", _read_usage, index, line(body))
        put(f"answer-body-{index}", _read_answer, operations.index("InvokeModel"), line(body))
    dialects = sorted(events.DIALECTS)
    converse = b"\n".join(line({name: value}) for name, value in test_fuzz._CONVERSE_EVENTS)
    put("events-converse", _see_events, dialects.index("converse"), converse)
    invoke = dialects.index("invoke")
    put("events-claude", _see_events, invoke, b"\n".join(map(line, test_fuzz._CHUNKS[:4])))
    for index, body in enumerate(test_fuzz._BODIES[1:]):
        last = {usage.METRICS_KEY: test_fuzz._METRICS}
        put(f"events-chunks-{index}", _see_events, invoke, line(body) + b"\n" + line(last))
    step = {"modelInvocationOutput": {"metadata": {"usage": test_fuzz._SPENT}}}
    trace = line({"trace": {"trace": {"orchestrationTrace": step}}})
    put("events-agent", _see_events, dialects.index("agent"), trace + b"\n" + trace)
    asked = {
        "modelId": test_fuzz.CLAUDE,
        "inferenceConfig": {"maxTokens": 5, "stopSequences": ["."], "temperature": 0.5},
        "additionalModelRequestFields": {"top_k": 3},
        "requestMetadata": {"team": "a"},
    }
    put("call-converse", _read_call, operations.index("Converse"), line(asked))
    body = {"max_tokens": 5, "stop": ["."], "inputText": "hi", "messages": []}
    asked = {"modelId": "nobody.knows-v1:0", "body": json.dumps(body), "requestMetadata": "{}"}
    put("call-invoke", _read_call, operations.index("InvokeModel"), line(asked))
    put("call-body", _read_call, operations.index("InvokeModel"), line(body))
    for index, model in enumerate(
        (
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.meta.llama3-8b-v1:0",
            "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0",
            "us.anthropic.claude-sonnet-4-6",
        )
    ):
        put(f"call-model-{index}", _read_call, operations.index("Converse"), model.encode())


def _words() -> list[str]:
    """Return what the reading layer looks for, each as libFuzzer's dictionaries have it."""
    rows = (*shapes.SHAPES, shapes.INVOCATION_METRICS)
    paths = [path for row in rows for name in shapes.FIELDS for path in getattr(row, name)]
    steps = {step for path in paths for step in path.split(".")} - {"*", "#"}
    for path in CORPUS.glob("*"):
        steps.update(re.findall(r'"([\w-]+)"', path.read_bytes()[1:].decode("utf-8", "replace")))
    numbers = ["9223372036854775807", "9223372036854775808", "-1", "1e308", "28.0", "null", "true"]
    return [f'\\"{step}\\":' for step in sorted(steps)] + numbers


def main() -> None:
    if "--seed-corpus" in sys.argv:
        sys.path.insert(0, str(Path(__file__).parent))
        write_corpus()
        return
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    words = scratch / "words"
    words.write_text("".join(f'"{word}"\n' for word in _words()))
    learnt = scratch / "learnt"
    learnt.mkdir()
    given = sys.argv[1:]
    # The first folder is the one that is written to.
    folders = [] if any(not word.startswith("-") for word in given) else [str(learnt)]
    options = [f"-dict={words}", f"-artifact_prefix={scratch}/", "-max_len=4096"]
    atheris.Setup(
        [sys.argv[0], *options, *given, *folders, str(CORPUS)], run, custom_mutator=mutate
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
