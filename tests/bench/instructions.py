"""Instructions: what a call costs by valgrind's count, which no busy machine changes.

A kind is run alone, once with a few calls and once with more, and the difference counts: the
instructions of processor that a call takes, of Python's own as well as of ours and the SDK's. What
it does not tell is how long memory and caches make them wait.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from measure import Row, over

_FEW, _MORE = 20, 120
_REFS = re.compile(r"I\s+refs:\s+([\d,]+)")


@dataclass(frozen=True)
class _Run:
    """One kind of call of one scenario, made so many times."""

    kind: str
    calls: int
    name: str
    sampled: bool = True


def instructions(
    targets: Mapping[str, float],
    streams: Mapping[str, tuple[str, float]],
    sampled_out: tuple[str, float],
) -> Iterable[Row]:
    """Yield a row for each scenario, for an event of `streams`, and for a span not recorded."""
    if shutil.which("valgrind") is None:
        print("LEFT OUT: instructions, which need valgrind", file=sys.stderr)
        return
    for name, target in targets.items():
        yield _call(name, name, target, sampled=True)
    name, target = sampled_out
    yield _call(f"{name}, sampled out", name, target, sampled=False)
    for name, (short, target) in streams.items():
        yield _event(name, short, target)


def _call(title: str, name: str, target: float, *, sampled: bool) -> Row:
    kinds = ("bare", "ours", "contract")
    counts = _counts(_Run(kind, calls, name, sampled) for kind in kinds for calls in (_FEW, _MORE))
    few, more = counts[::2], counts[1::2]
    each = {
        kind: (many - some) / (_MORE - _FEW) / 1000
        for kind, some, many in zip(kinds, few, more, strict=True)
    }
    return Row(
        f"{title}: thousands of instructions",
        over(each) / over(each, "contract"),
        target,
        "contract floors over bare",
        bare=each["bare"],
        ours=over(each),
        contract=over(each, "contract"),
    )


def _event(name: str, short: str, target: float) -> Row:
    """What one of a thousand events takes, beyond what ten take."""
    runs = (_Run(kind, 5, each) for kind in ("bare", "ours") for each in (name, short))
    bare_long, bare_short, ours_long, ours_short = _counts(runs)
    bare, ours = bare_long - bare_short, ours_long - ours_short
    return Row(f"{name}: instructions", ours / bare - 1, target, "of bare, per event")


def _counts(runs: Iterable[_Run]) -> list[int]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(_count, runs))


def _count(run: _Run) -> int:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *("valgrind", "--tool=cachegrind", "--cache-sim=no", "--branch-sim=no"),
                f"--cachegrind-out-file={folder}/out",
                *(sys.executable, str(Path(__file__)), json.dumps(vars(run))),
            ],
            # Where hashes differ from run to run, so do the ways through dicts.
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=True,
        )
    found = _REFS.search(done.stderr)
    assert found is not None, done.stderr
    return int(found[1].replace(",", ""))


def _make(run: _Run) -> None:
    from compare import ALWAYS_OFF, ALWAYS_ON, Bench

    call = Bench(ALWAYS_ON if run.sampled else ALWAYS_OFF).kinds(run.name)[run.kind]()
    for _ in range(run.calls):
        call()


if __name__ == "__main__":
    _make(_Run(**json.loads(sys.argv[1])))
