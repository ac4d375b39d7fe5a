"""Reconcile: what the logs say against what the live metrics say, and who made the difference.

The verdict is by model, over the whole time: metrics are exported up to a minute after a call, so
that a call may be in another hour there than in the log. Hours say where to look.

Metrics do not know who called. Where records say that they were reported live
(`instrument(correlate_logs=True)`), the others are the difference. Else an identity is named where
the sums of its calls, or of its and a few others', are exactly the difference; where none are,
those who called that model are listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from otel_bedrock.invocation_logs.report import LIVE, Line

COMPARED = ("requests", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens")
# More than these are not put together in all ways; then the few largest are.
_MOST_CALLERS = 12
_TOGETHER = 3
UNKNOWN = "unknown"

Counts = dict[str, int]


@dataclass(slots=True)
class Comparison:
    """Logs against live metrics, for a model, or one hour of it.

    `callers` made the difference; `certain` says that their calls are exactly it.
    """

    model: str
    hour: str | None = None
    logs: Counts = field(default_factory=dict)
    live: Counts = field(default_factory=dict)
    callers: tuple[str, ...] = ()
    certain: bool = False

    def difference(self, name: str) -> int:
        """How much more the logs say."""
        return self.logs.get(name, 0) - self.live.get(name, 0)

    def differs(self, tolerance: float = 0.0) -> bool:
        """Say whether any count differs by more than a share of what the logs say."""
        return any(
            abs(self.difference(name)) > tolerance * max(self.logs.get(name, 0), 0)
            for name in COMPARED
        )


def counts_of(line: Line) -> Counts:
    """Return what of a report's line can be compared: successful calls and their tokens."""
    counts = {"requests": line.requests - line.errors}
    for name in COMPARED[1:]:
        counts[name] = getattr(line, name) or 0
    return counts


def compare(
    lines: Iterable[Line],
    live: Mapping[tuple[str, str | None], Counts],
    *,
    tolerance: float = 0.0,
) -> list[Comparison]:
    """Compare lines by (model, hour, identity, reporter) with live counts by (model, hour).

    The hour of live counts that came after the last one is None. Returns the models, each
    followed by the hours that differ, if the model does; those that differ first.
    """
    models: dict[str, Comparison] = {}
    hours: dict[tuple[str, str | None], Comparison] = {}
    callers: dict[str, dict[str, Counts]] = {}
    called: dict[tuple[str, str | None], dict[str, Counts]] = {}
    for line in lines:
        model, hour, identity = line.key[0] or UNKNOWN, line.key[1], line.key[2] or UNKNOWN
        counts = counts_of(line)
        if not any(counts.values()):
            continue  # errors alone
        _sum(models.setdefault(model, Comparison(model)).logs, counts)
        _sum(hours.setdefault((model, hour), Comparison(model, hour)).logs, counts)
        if line.key[3:4] != (LIVE,):
            _sum(callers.setdefault(model, {}).setdefault(identity, {}), counts)
            _sum(called.setdefault((model, hour), {}).setdefault(identity, {}), counts)
    for (model, hour), counts in live.items():
        if any(counts.values()):
            model = model or UNKNOWN
            _sum(models.setdefault(model, Comparison(model)).live, counts)
            if hour is not None:
                _sum(hours.setdefault((model, hour), Comparison(model, hour)).live, counts)
    found: list[Comparison] = []
    for model, whole in sorted(models.items(), key=lambda item: _rank(item[1], tolerance)):
        found.append(whole)
        if not whole.differs(tolerance):
            continue
        whole.callers, whole.certain = explain(whole, callers.get(model, {}))
        ours = [one for (name, _), one in hours.items() if name == model and one.differs()]
        for one in sorted(ours, key=lambda one: one.hour or ""):
            there = called.get((model, one.hour), {})
            one.callers, one.certain = explain(one, there)
            if not one.certain and whole.certain:
                # Calls near the hour's end blur it; who did it is known from the whole.
                one.callers = tuple(name for name in whole.callers if name in there)
            found.append(one)
    return found


def explain(comparison: Comparison, callers: Mapping[str, Counts]) -> tuple[tuple[str, ...], bool]:
    """Return whose calls are the difference, and whether that is certain."""
    wanted = {name: comparison.difference(name) for name in COMPARED}
    if min(wanted.values()) < 0 or not wanted["requests"]:
        # The metrics say more, or only other counts: of that no caller in the log is the cause.
        return (), False
    fits = {
        name: counts
        for name, counts in callers.items()
        if all(counts.get(key, 0) <= wanted[key] for key in COMPARED)
    }
    most = len(fits) if len(fits) <= _MOST_CALLERS else _TOGETHER
    names = sorted(fits, key=lambda name: -fits[name].get("input_tokens", 0))[:200]
    for size in range(1, most + 1):
        exact = [
            group
            for group in combinations(names, size)
            if all(sum(fits[name].get(key, 0) for name in group) == wanted[key] for key in COMPARED)
        ]
        if exact:
            return exact[0], len(exact) == 1
        if size == 2 and len(names) > 60:
            break
    return tuple(sorted(callers)), False


def _sum(into: Counts, counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        into[name] = into.get(name, 0) + count


def _rank(one: Comparison, tolerance: float) -> tuple[bool, int, str]:
    size = sum(abs(one.difference(name)) for name in COMPARED)
    return not one.differs(tolerance), -size, one.model
