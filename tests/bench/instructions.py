"""Instructions: what a call costs by valgrind's count, which no busy machine changes.

A kind is run alone, once with a few calls and once with more, and the difference counts: the
instructions of processor that a call takes, of Python's own as well as of ours and the SDK's. What
it does not tell is how long memory and caches make them wait.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from measure import Row, over

_FEW, _MORE = 20, 120
_KINDS = ("bare", "ours", "contract")
_REFS = re.compile(r"I\s+refs:\s+([\d,]+)")


def instructions(targets: Mapping[str, float], sampled_out: tuple[str, float]) -> Iterable[Row]:
    """Yield a row for each scenario of `targets`, and for one of which no span is recorded."""
    if shutil.which("valgrind") is None:
        print("LEFT OUT: instructions, which need valgrind", file=sys.stderr)
        return
    for name, target in targets.items():
        yield _row(name, name, target, sampled=True)
    name, target = sampled_out
    yield _row(f"{name}, sampled out", name, target, sampled=False)


def _row(title: str, name: str, target: float, *, sampled: bool) -> Row:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        asked = [(kind, calls) for kind in _KINDS for calls in (_FEW, _MORE)]
        counts = dict(
            zip(asked, pool.map(lambda one: _count(*one, name, sampled), asked), strict=True)
        )
    each = {
        kind: (counts[kind, _MORE] - counts[kind, _FEW]) / (_MORE - _FEW) / 1000 for kind in _KINDS
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


def _count(kind: str, calls: int, name: str, sampled: bool) -> int:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                *("valgrind", "--tool=cachegrind", "--cache-sim=no", "--branch-sim=no"),
                f"--cachegrind-out-file={folder}/out",
                *(sys.executable, str(Path(__file__)), kind, str(calls), name, str(int(sampled))),
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


def _run(kind: str, calls: int, name: str, sampled: bool) -> None:
    from compare import ALWAYS_OFF, ALWAYS_ON, Bench

    call = Bench(ALWAYS_ON if sampled else ALWAYS_OFF).kinds(name)[kind]()
    for _ in range(calls):
        call()


if __name__ == "__main__":
    _run(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4] == "1")
