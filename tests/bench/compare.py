"""What a call costs with us, without us, and by hand: one table, with the target of each row.

The kinds take turns, so that what the machine does meanwhile hits all alike, and a target is a
ratio within the run, never a time. The exit code is 1 where one is missed. A new row is a function
that yields it, in PARTS.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import logs
from floors import ContractFloor, Floor
from instructions import instructions
from measure import Effort, Round, Row, Setup, measure, over, render, row
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from scenarios import SCENARIOS, Scenario, answered_at_once, make_client, make_s3_client
from throughput import throughput

from otel_bedrock.config import read_config
from otel_bedrock.instrumentor import Given, exchange

_IMPORT = """
import time
import boto3, botocore.client, wrapt, opentelemetry.sdk.trace, opentelemetry.sdk.metrics.export
import opentelemetry.instrumentation.instrumentor, opentelemetry.instrumentation.utils
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
given = {"tracer_provider": TracerProvider(), "meter_provider": MeterProvider()}
started = time.perf_counter()
import otel_bedrock
otel_bedrock.instrument(**given)
print((time.perf_counter() - started) * 1000)
"""


class _Nothing(SpanProcessor):
    """Takes spans and drops them: exporting is not what is measured."""


class Bench:
    """A client, providers, and the kinds of call that are compared."""

    def __init__(self, sampler: Any = ALWAYS_ON) -> None:
        self.client, self.use = make_client()
        self.tracer_provider = TracerProvider(sampler=sampler)
        self.tracer_provider.add_span_processor(_Nothing())
        self.meter_provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
        self.given = Given(read_config({}), self.tracer_provider, self.meter_provider, None, False)

    def kind(self, name: str, given: Given | None) -> Setup:
        """Return the scenario `name` as it is `given` that activation, None for bare."""
        scenario = SCENARIOS[name]

        def setup() -> Callable[[], None]:
            exchange(given)
            self.use(scenario)
            return lambda: scenario.call(self.client)

        return setup

    def by_hand(self, name: str, floor: type[ContractFloor | Floor]) -> Setup:
        """Return the scenario `name`, bare, with the `floor` after each call.

        Where we stand, that is: in a loop over itself the same floor takes two thirds of the time,
        for there the processor has nothing else in its caches.
        """
        scenario = SCENARIOS[name]

        def setup() -> Callable[[], None]:
            tell = floor(self.tracer_provider, self.meter_provider).call
            self.use(scenario)

            def call() -> None:
                scenario.call(self.client)
                tell()

            return call

        return setup

    def kinds(self, name: str) -> dict[str, Setup]:
        """Return the scenario `name`, bare and ours, and with the floors."""
        return {
            "bare": self.kind(name, None),
            "ours": self.kind(name, self.given),
            "contract": self.by_hand(name, ContractFloor),
            "floor": self.by_hand(name, Floor),
        }

    def peak(self, scenario: Scenario) -> float:
        """Return the allocation peak of one call, KiB over bare."""
        self.use(scenario)
        peaks = {}
        for kind, given in (("bare", None), ("ours", self.given)):
            exchange(given)
            for _ in range(3):
                scenario.call(self.client)
            gc.collect()
            tracemalloc.start()
            scenario.call(self.client)
            peaks[kind] = tracemalloc.get_traced_memory()[1] / 1024
            tracemalloc.stop()
        exchange(None)
        return peaks["ours"] - peaks["bare"]


# Scenario -> most that it may cost over bare, in contract floors.
_CALLS = {
    "converse": 1.2,
    "invoke_model, 1 KB": 1.2,
    "converse, 41 messages, tools": 1.3,
    "converse, 429": 1.3,
}
_SAMPLED_OUT = 1.25
# Scenario of a thousand events -> the same with ten, and the most that an event may cost over
# bare, as a share of bare's own.
_STREAMS = {
    "converse_stream, 1,000 events": ("converse_stream, 10 events", 0.04),
    "invoke stream, 1,000 events": ("invoke stream, 10 events", 0.08),
}


def calls(effort: Effort) -> Iterable[Row]:
    bench = Bench()
    for name, target in _CALLS.items():
        rounds = measure(bench.kinds(name), effort.calls, effort.slices)
        yield row(name, rounds, _floors, target, "contract floors over bare")


def _floors(each: Round) -> float:
    return over(each) / over(each, "contract")


def bodies(effort: Effort) -> Iterable[Row]:
    """Large bodies against a small one in the same rounds."""
    bench = Bench()
    for name in ("invoke_model, 100 KB", "invoke_model, 5 MB", "invoke_model, embedding"):
        small = bench.kinds("invoke_model, 1 KB")
        kinds = {**bench.kinds(name), "small": small["bare"], "small, ours": small["ours"]}
        rounds = measure(kinds, effort.calls // 2, effort.slices)
        yield row(
            name,
            rounds,
            lambda each: over(each) / (each["small, ours"] - each["small"]),
            1.2,
            "of the 1 KB case",
        )


def streams(effort: Effort) -> Iterable[Row]:
    """What an event costs: a long stream less a short one."""
    bench = Bench()
    for name, (short, target) in _STREAMS.items():
        few = bench.kinds(short)
        many = bench.kinds(name)
        kinds = {
            "bare": many["bare"],
            "ours": many["ours"],
            "short": few["bare"],
            "short, ours": few["ours"],
        }
        rounds = measure(kinds, effort.calls // 20, effort.slices, turn=1)
        yield row(
            name,
            rounds,
            lambda each: (each["ours"] - each["short, ours"]) / (each["bare"] - each["short"]) - 1,
            target,
            "of bare, per event",
        )


def without_sdk(effort: Effort) -> Iterable[Row]:
    bench, given = Bench(), Given(read_config({}), None, None, None, False)
    kinds = {"bare": bench.kind("converse", None), "ours": bench.kind("converse", given)}
    rounds = measure(kinds, effort.calls * 2, effort.slices)
    yield row("converse, no SDK", rounds, lambda each: over(each) / each["bare"], 0.02, "of bare")


def sampled_out(effort: Effort) -> Iterable[Row]:
    rounds = measure(Bench(ALWAYS_OFF).kinds("converse"), effort.calls, effort.slices)
    meaning = "contract floors, sampled out"
    yield row("converse, sampled out", rounds, _floors, _SAMPLED_OUT, meaning)


def other_services(effort: Effort) -> Iterable[Row]:
    """The wrapper alone, around a call that returns at once, for 1 µs drowns in a real one."""
    bench, call = Bench(), make_s3_client().list_buckets

    def kind(given: Given | None) -> Setup:
        def setup() -> Callable[[], None]:
            exchange(given)
            return lambda: _many(call)

        return setup

    with answered_at_once():
        rounds = [
            {kind: value / _MANY for kind, value in each.items()}
            for each in measure(
                {"bare": kind(None), "ours": kind(bench.given)}, effort.calls, effort.slices
            )
        ]
    yield row("a call of another service", rounds, over, 1.0, "µs over bare")


_MANY = 100


def _many(call: Callable[[], Any]) -> None:
    for _ in range(_MANY):
        call()


def allocation(effort: Effort) -> Iterable[Row]:
    peak = Bench().peak(SCENARIOS["invoke_model, 5 MB"])
    yield Row("allocation peak, 5 MB", peak, 128, "KiB over bare")


def importing(effort: Effort) -> Iterable[Row]:
    """Each time a new process, with its bytecode at hand as in any installation."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "OTEL"))}
    times = [
        float(
            subprocess.check_output(
                [sys.executable, "-c", _IMPORT],
                text=True,
                env=environment,
                cwd=Path(__file__).parent,
            )
        )
        for _ in range(12)
    ]
    # The first ones may compile.
    yield Row("import and instrument()", statistics.median(times[2:]), 20, "ms")


def invocation_logs(effort: Effort) -> Iterable[Row]:
    """Records of 2 KB in a second of one core."""
    found = logs.run(max(2_000, 1_000 * effort.calls))
    for kind, (each, _) in found.items():
        yield Row(f"logs report, {kind}", 1e6 / each, 50_000, "records a second", least=True)
    yield Row("logs report, memory", max(peak for _, peak in found.values()), 150, "MB")


def by_instructions(_: Effort) -> Iterable[Row]:
    return instructions(_CALLS, _STREAMS, ("converse", _SAMPLED_OUT))


PARTS: Mapping[str, Callable[[Effort], Iterable[Row]]] = {
    "instructions": by_instructions,
    "calls": calls,
    "bodies": bodies,
    "streams": streams,
    "no-sdk": without_sdk,
    "sampled-out": sampled_out,
    "other-services": other_services,
    "allocation": allocation,
    "import": importing,
    "throughput": throughput,
    "logs": invocation_logs,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=Effort.calls, help="calls in a slice")
    parser.add_argument("--slices", type=int, default=Effort.slices, help="slices of each kind")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    arguments = parser.parse_args()
    wanted = arguments.parts.split(",")
    unknown = [part for part in wanted if part not in PARTS]
    if unknown:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    # Without an SDK, each change of the activation would say so again.
    logging.getLogger("otel_bedrock").setLevel(logging.ERROR)
    effort = Effort(arguments.calls, arguments.slices)
    table: list[Row] = []
    for part in wanted:
        print(f"measuring: {part}", file=sys.stderr)
        table.extend(PARTS[part](effort))
    if arguments.json:
        print(json.dumps([{**vars(each), "met": each.met} for each in table]))
    else:
        print("\n".join(render(table)))
    missed = [each.name for each in table if not each.met]
    if missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
