"""Soak: a million calls, and streams let go of in every way; each told once, memory flat.

A real boto3 client without sockets (see bench/scenarios.py) and the SDK's own providers, read
in cumulative and in delta temporality, by a thread of its own as in production: the garbage
collector then meets abandoned streams under the SDK's locks too.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import logging
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "bench"))

from opentelemetry.sdk.metrics import Counter as CounterInstrument
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from scenarios import EVENTS, SCENARIOS, Scenario, make_client

import otel_bedrock
from otel_bedrock import abandoned
from otel_bedrock.testing.frames import encode_chunk, encode_event

_USAGE = "gen_ai.client.inference.usage"
_INPUT = f"{_USAGE}.input_tokens"
_OUTPUT = f"{_USAGE}.output_tokens"
_CACHED = f"{_USAGE}.cache_read.input_tokens"
_MISSING = "bedrock.client.usage.missing"
_ERRORS = "bedrock.instrumentation.errors"
_DURATION = "gen_ai.client.inference.duration"
_COUNTED = (_INPUT, _OUTPUT, _CACHED, _MISSING, _ERRORS)

_SAMPLE_EVERY = 0.25
_COLLECT_EVERY = 1.0
_STREAM_EVENTS = 8


class Spans(SpanProcessor):
    """Counts spans; `next` of a count is atomic, and spans end in two threads."""

    def __init__(self) -> None:
        self._starts, self._ends = itertools.count(), itertools.count()

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        next(self._starts)

    def on_end(self, span: Any) -> None:
        next(self._ends)

    def counts(self) -> tuple[int, int]:
        """Return how many started and ended; ends the counting."""
        return next(self._starts), next(self._ends)


class Complaints(logging.Handler):
    """Keeps what our logger and the SDK's say: a span ended twice is a warning there."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        self.said[f"{record.name}: {record.getMessage()}"] += 1


class Reader(MetricReader):
    """Adds up the metrics that matter here; `flush()` makes it collect as well."""

    def __init__(self, temporality: AggregationTemporality) -> None:
        super().__init__({CounterInstrument: temporality, Histogram: temporality})
        self._adds = temporality is AggregationTemporality.DELTA
        self._adding = threading.Lock()
        self.sums: Counter[str] = Counter()

    def _receive_metrics(self, metrics_data: Any, *_: Any, **__: Any) -> None:
        sums: Counter[str] = Counter()
        for resource in metrics_data.resource_metrics if metrics_data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        if metric.name in _COUNTED:
                            sums[metric.name] += point.value
                        elif metric.name == _DURATION:
                            sums[_DURATION] += point.count
        with self._adding:
            self.sums = self.sums + sums if self._adds else sums

    def shutdown(self, timeout_millis: float = 30_000, **_: Any) -> None:
        pass


class Metrics:
    """Both temporalities of one provider, read now and then."""

    def __init__(self) -> None:
        self.readers = {
            "cumulative": Reader(AggregationTemporality.CUMULATIVE),
            "delta": Reader(AggregationTemporality.DELTA),
        }
        self.provider = MeterProvider(metric_readers=list(self.readers.values()))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(_COLLECT_EVERY):
            self.provider.force_flush()

    def stop(self) -> None:
        """Collect for the last time."""
        self._over.set()
        self._thread.join(60)
        self.provider.force_flush()


class Stream:
    """One answer of a stream, and what may be counted after so many of its events were read."""

    def __init__(self, scenario: Scenario, told: list[dict[str, int]]) -> None:
        self.scenario = scenario
        self.told = told


def _converse_stream(count: int, spent: tuple[int, int, int]) -> Stream:
    fresh, output, cached = spent
    usage = {"inputTokens": fresh, "outputTokens": output, "cacheReadInputTokens": cached}
    usage["totalTokens"] = sum(spent)
    text = {"contentBlockIndex": 0, "delta": {"text": " fox"}}
    frames = [
        encode_event("messageStart", {"role": "assistant"}),
        *[encode_event("contentBlockDelta", text) for _ in range(count)],
        encode_event("messageStop", {"stopReason": "end_turn"}),
        encode_event("metadata", {"metrics": {"latencyMs": 812}, "usage": usage}),
    ]
    parameters = SCENARIOS["converse"].parameters
    scenario = Scenario("converse_stream", parameters, b"".join(frames), EVENTS)
    whole = {_INPUT: fresh + cached, _OUTPUT: output, _CACHED: cached}
    return Stream(scenario, [{_MISSING: 1}] * len(frames) + [whole])


def _invoke_stream(count: int, spent: tuple[int, int, int]) -> Stream:
    fresh, output, cached = spent
    start = {"input_tokens": fresh, "cache_read_input_tokens": cached, "output_tokens": 1}
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text", "text": " fox"}}
    stop = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    metrics = {
        "inputTokenCount": fresh,
        "outputTokenCount": output,
        "cacheReadInputTokenCount": cached,
    }
    frames = [
        encode_chunk({"type": "message_start", "message": {"id": "msg_1", "usage": start}}),
        *[encode_chunk(text) for _ in range(count)],
        encode_chunk({**stop, "usage": {"output_tokens": output}}),
        encode_chunk({"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics}),
    ]
    parameters = SCENARIOS["invoke_model, 1 KB"].parameters
    scenario = Scenario("invoke_model_with_response_stream", parameters, b"".join(frames), EVENTS)
    begun = {_INPUT: fresh + cached, _CACHED: cached}
    whole = {**begun, _OUTPUT: output}
    # The first event tells the input, the last but one the output and why it stopped.
    told = [{_MISSING: 1}, *[{**begun, _MISSING: 1}] * (count + 1), whole, whole]
    return Stream(scenario, told)


def _converse(spent: tuple[int, int, int]) -> tuple[Scenario, dict[str, int]]:
    fresh, output, cached = spent
    model = SCENARIOS["converse"]
    body = model.body.decode().replace('"inputTokens": 21', f'"inputTokens": {fresh}')
    body = body.replace('"outputTokens": 96', f'"outputTokens": {output}')
    body = body.replace('"cacheReadInputTokens": 0', f'"cacheReadInputTokens": {cached}')
    told = {_INPUT: fresh + cached, _OUTPUT: output, _CACHED: cached}
    return Scenario("converse", model.parameters, body.encode()), told


def _read(stream: Any, events: int) -> int:
    """Read so many events and break off; return how many there were."""
    seen = 0
    if events:
        for _ in stream:
            seen += 1
            if seen == events:
                break
    return seen


def _drop(stream: Any, events: int) -> int:
    return _read(stream, events)


def _drop_in_cycle(stream: Any, events: int) -> int:
    held = [stream]
    held.append(held)
    return _read(stream, events)


def _drop_with_iterator(stream: Any, events: int) -> int:
    # The generator, still suspended, goes with the stream.
    return sum(1 for _ in itertools.islice(iter(stream), events))


def _close(stream: Any, events: int) -> int:
    seen = _read(stream, events)
    stream.close()
    return seen


def _exhaust(stream: Any, events: int) -> int:
    return sum(1 for _ in stream)


def _close_exhausted(stream: Any, events: int) -> int:
    seen = _exhaust(stream, events)
    stream.close()
    return seen


_WAYS: tuple[Callable[[Any, int], int], ...] = (
    _drop,
    _drop,
    _drop_in_cycle,
    _drop_with_iterator,
    _close,
    _exhaust,
    _close_exhausted,
)


def _resident() -> float:
    """Return the resident memory of this process in MB, 0 where it cannot be asked."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Soak:
    """One run."""

    def __init__(self, calls: int, streams: int, seed: int, bound: float) -> None:
        self.calls = calls
        self.streams = streams
        self.bound = bound
        self.random = random.Random(seed)
        self.spans = Spans()
        self.metrics = Metrics()
        self.complaints = Complaints()
        self.expected: Counter[str] = Counter()
        self.ways: Counter[str] = Counter()
        # Calls and streams that were made.
        self.made = [0, 0]
        self.stopped = False
        self.memory: list[float] = []
        self.open: list[int] = []
        for name in ("otel_bedrock", "opentelemetry"):
            logging.getLogger(name).addHandler(self.complaints)

    def run(self, every: float) -> None:
        """Make all of the calls; once interrupted, no more of them."""
        signal.signal(signal.SIGINT, self._stop)
        tracers = TracerProvider(shutdown_on_exit=False)
        tracers.add_span_processor(self.spans)
        client, use = make_client()
        otel_bedrock.instrument(tracer_provider=tracers, meter_provider=self.metrics.provider)
        self.started = time.monotonic()
        said = sampled = self.started
        try:
            for done, make in enumerate(self._work(client, use), 1):
                if self.stopped:
                    print(f"interrupted after {done - 1:,}: what was made is checked", flush=True)
                    break
                make()
                now = time.monotonic()
                if now - sampled >= _SAMPLE_EVERY:
                    sampled = now
                    self.memory.append(_resident())
                    self.open.append(len(abandoned._state.open))
                if now - said >= every:
                    said = now
                    self._say(done, now)
            self.seconds = time.monotonic() - self.started
            # Twice: what is let go of by the one may be held by a cycle of the other.
            gc.collect()
            gc.collect()
            otel_bedrock.flush()
            self.left = len(abandoned._state.open) + len(abandoned._state.collected)
            self.metrics.stop()
        finally:
            otel_bedrock.uninstrument()

    def _stop(self, *_: Any) -> None:
        # The second one ends the program.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.stopped = True

    def _say(self, done: int, now: float) -> None:
        total = self.calls + self.streams
        rate = done / (now - self.started)
        print(
            f"{done:,} of {total:,}, {rate:,.0f} a second, {(total - done) / rate:,.0f} s to go,"
            f" {_resident():.1f} MB, {len(abandoned._state.open)} streams open",
            flush=True,
        )

    def _work(self, client: Any, use: Callable[[Scenario], None]) -> Iterator[Callable[[], None]]:
        """Give the calls and the streams in random order, evenly over the run."""
        spent = [(self.random.randrange(1, 5_000), 2 + i * 7, i % 3 * 100) for i in range(16)]
        answers = [_converse(each) for each in spent]
        kinds = (
            [_converse_stream(_STREAM_EVENTS, each) for each in spent],
            [_invoke_stream(_STREAM_EVENTS, each) for each in spent],
        )

        def call() -> None:
            scenario, told = self.random.choice(answers)
            use(scenario)
            client.converse(**scenario.parameters)
            self.expected.update(told)
            self.made[0] += 1

        def stream() -> None:
            one = self.random.choice(kinds[done % 2])
            way = self.random.choice(_WAYS)
            use(one.scenario)
            answer = getattr(client, one.scenario.method)(**one.scenario.parameters)
            events = self.random.randrange(len(one.told))
            seen = way(answer.get("stream") or answer["body"], events)
            self.expected.update(one.told[seen])
            self.ways[way.__name__] += 1
            self.made[1] += 1

        done = 0
        for left in range(self.calls + self.streams, 0, -1):
            if self.random.randrange(left) < self.streams - done:
                done += 1
                yield stream
            else:
                yield call

    def quarters(self) -> list[float]:
        """Return the median memory of each quarter of the run."""
        size = max(1, len(self.memory) // 4)
        return [statistics.median(self.memory[at * size :][:size] or [0.0]) for at in range(4)]

    def problems(self) -> list[str]:
        """Return what did not hold, each as a sentence."""
        found = []
        started, ended = self.spans.counts()
        made = sum(self.made)
        if started != made:
            found.append(f"{made:,} calls, {started:,} spans")
        if ended != started:
            found.append(f"{started:,} spans started, {ended:,} ended")
        expected = {**self.expected, _DURATION: made}
        for name, reader in self.metrics.readers.items():
            told = reader.sums
            for metric in (*_COUNTED, _DURATION):
                if told[metric] != expected.get(metric, 0):
                    wanted = expected.get(metric, 0)
                    found.append(f"{metric} ({name}): {told[metric]:,}, the answers: {wanted:,}")
        if self.left:
            found.append(f"{self.left} streams are still waited for, though all are gone")
        found.extend(f"said {times} times: {what}" for what, times in self.complaints.said.items())
        _, second, _, last = self.quarters()
        if last - second > self.bound:
            found.append(
                f"memory grew from {second:.1f} MB in the second quarter to {last:.1f} MB in the"
                f" last; {self.bound:g} MB are allowed"
            )
        return found

    def report(self) -> None:
        """Print the figures."""
        calls, streams = self.made
        print(
            f"{calls:,} calls and {streams:,} streams in {self.seconds:,.0f} s"
            f" ({(calls + streams) / self.seconds:,.0f} a second)"
        )
        print("streams: " + ", ".join(f"{k.strip('_')} {v:,}" for k, v in self.ways.items()))
        print("counted: " + ", ".join(f"{key} {n:,}" for key, n in sorted(self.expected.items())))
        if any(self.memory):
            start, end = self.memory[0], self.memory[-1]
            medians = ", ".join(f"{quarter:.1f}" for quarter in self.quarters())
            print(
                f"memory: {start:.1f} MB at the start, {self.memory[len(self.memory) // 2]:.1f}"
                f" in the middle, {end:.1f} at the end; medians of the quarters {medians}"
            )
        else:
            print("memory: cannot be asked on this system, and was not checked")
        print(f"streams open at once: at most {max(self.open, default=0)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000_000, help="Converse (default 1000000)")
    parser.add_argument("--streams", type=int, default=200_000, help="streams (default 200000)")
    parser.add_argument("--seed", type=int, default=1, help="of the random choices (default 1)")
    parser.add_argument("--bound", type=float, default=5.0, help="MB it may grow (default 5)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two lines")
    arguments = parser.parse_args()
    soak = Soak(arguments.calls, arguments.streams, arguments.seed, arguments.bound)
    soak.run(arguments.every)
    soak.report()
    problems = soak.problems()
    for problem in problems:
        print(f"FAILED: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
