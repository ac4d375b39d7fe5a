"""What a call costs with us, without us, and by hand: one table, with the target of each row.

Slices of each kind alternate in one process, so that what the machine does meanwhile hits all
alike. A row is the median over the slices; a target is a ratio within the run, never a time.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from floors import ContractFloor, Floor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from scenarios import SCENARIOS, Scenario, make_client

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


# Kind -> what is done before a slice of it, and what is timed.
Kinds = dict[str, tuple[Callable[[], None], Callable[[], None]]]


@dataclass
class Row:
    """One line of the table; `share` is what `target` is the most for."""

    name: str
    bare: float
    ours: float
    floor: float
    contract: float
    share: float
    target: float
    meaning: str

    @property
    def met(self) -> bool:
        return self.share <= self.target


class _Nothing(SpanProcessor):
    """Takes spans and drops them: exporting is not what is measured."""


def _slice(call: Callable[[], None], calls: int) -> float:
    """Return the median microseconds of one call: what interrupts a few does not count."""
    times = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e6


def _measure(kinds: Kinds, calls: int, slices: int) -> dict[str, float]:
    """Time `kinds` (prepare, call) in alternation; the median microseconds of each."""
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for prepare, call in kinds.values():
        prepare()
        _slice(call, max(2, calls // 5))
    for _ in range(slices):
        for kind, (prepare, call) in kinds.items():
            prepare()
            gc.collect()
            times[kind].append(_slice(call, calls))
    return {kind: statistics.median(values) for kind, values in times.items()}


class Bench:
    """A client, providers, and the switch between instrumented and bare."""

    def __init__(self, sampler: Any = ALWAYS_ON) -> None:
        self.client, self.use = make_client()
        self.tracer_provider = TracerProvider(sampler=sampler)
        self.tracer_provider.add_span_processor(_Nothing())
        self.meter_provider = MeterProvider(metric_readers=[InMemoryMetricReader()])
        self.contract = ContractFloor(self.tracer_provider, self.meter_provider)
        self.floor = Floor(self.tracer_provider, self.meter_provider)
        self.given = Given(read_config({}), self.tracer_provider, self.meter_provider, None, False)

    def compare(self, scenario: Scenario, calls: int, slices: int, *, sdk: bool = True):
        self.use(scenario)
        given = self.given if sdk else Given(read_config({}), None, None, None, False)
        kinds = {
            "bare": (lambda: exchange(None), lambda: scenario.call(self.client)),
            "ours": (lambda: exchange(given), lambda: scenario.call(self.client)),
            "contract": (lambda: exchange(None), self.contract.call),
            "floor": (lambda: exchange(None), self.floor.call),
        }
        try:
            return _measure(kinds, calls, slices)
        finally:
            exchange(None)

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
# Scenario -> most that an event may cost over bare, as a share of bare's own.
_STREAMS = {"converse_stream, 1,000 events": 0.04, "invoke stream, 1,000 events": 0.08}


def rows(calls: int, slices: int) -> list[Row]:
    """Measure everything; a few minutes."""
    bench = Bench()
    table: list[Row] = []

    def add(name: str, found: dict[str, float], share: float, target: float, meaning: str) -> float:
        over = found["ours"] - found["bare"]
        bare, floor, contract = found["bare"], found["floor"], found["contract"]
        table.append(Row(name, bare, over, floor, contract, share, target, meaning))
        return over

    small = 0.0
    for name, target in _CALLS.items():
        found = bench.compare(SCENARIOS[name], calls, slices)
        share = (found["ours"] - found["bare"]) / found["contract"]
        over = add(name, found, share, target, "contract floors over bare")
        small = over if name == "invoke_model, 1 KB" else small
    for name in ("invoke_model, 100 KB", "invoke_model, 5 MB", "invoke_model, embedding"):
        found = bench.compare(SCENARIOS[name], max(5, calls // 4), slices)
        add(name, found, (found["ours"] - found["bare"]) / small, 1.2, "of the 1 KB case")
    for name, target in _STREAMS.items():
        found = bench.compare(SCENARIOS[name], max(2, calls // 40), slices)
        call = "converse" if "converse" in name else "invoke_model, 1 KB"
        fixed = next(row.ours for row in table if row.name == call)
        events = SCENARIOS[name].events
        share = max(0.0, found["ours"] - found["bare"] - fixed) / events / (found["bare"] / events)
        add(name, found, share, target, "of bare, per event")
    found = bench.compare(SCENARIOS["converse"], calls, slices, sdk=False)
    share = (found["ours"] - found["bare"]) / found["bare"]
    add("converse, no SDK", found, share, 0.02, "of bare")
    off = Bench(ALWAYS_OFF)
    found = off.compare(SCENARIOS["converse"], calls, slices)
    share = (found["ours"] - found["bare"]) / found["contract"]
    add("converse, sampled out", found, share, 1.25, "contract floors, sampled out")
    peak = bench.peak(SCENARIOS["invoke_model, 5 MB"])
    table.append(Row("allocation peak, 5 MB", 0, peak, 0, 0, peak, 128, "KiB over bare"))
    times = [
        float(subprocess.check_output([sys.executable, "-c", _IMPORT], text=True)) for _ in range(7)
    ]
    least = statistics.median(times)
    table.append(Row("import and instrument()", 0, least * 1000, 0, 0, least, 20, "ms"))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="calls in a slice (default 200)")
    parser.add_argument("--slices", type=int, default=15, help="slices of each kind (default 15)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    arguments = parser.parse_args()
    table = rows(arguments.calls, arguments.slices)
    if arguments.json:
        print(json.dumps([{**vars(row), "met": row.met} for row in table]))
    else:
        print("| scenario | bare, µs | ours over bare | floor | contract floor | is | target | |")
        print("|---|---|---|---|---|---|---|---|")
        for row in table:
            print(
                f"| {row.name} | {row.bare:,.0f} | {row.ours:,.1f} | {row.floor:,.0f} |"
                f" {row.contract:,.0f} | {row.share:.3g} {row.meaning} | {row.target:g} |"
                f" {'' if row.met else 'MISSED'} |"
            )
    missed = [row.name for row in table if not row.met]
    if missed:
        print(f"missed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
