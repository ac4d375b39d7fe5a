"""Budget limits: how much may be spent, of whom, and what is raised where it is too much."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from otel_bedrock.budget_store import Window
from otel_bedrock.call import Call
from otel_bedrock.shield import ForTheCaller

_DIMENSIONS = ("model", "tenant")
# Name of the limit, seconds of its window and of one slot of it.
_PERIODS = (("per_minute", "tokens a minute", 60, 1), ("per_day", "tokens a day", 86_400, 60))


class BudgetExceeded(ForTheCaller):
    """A call that was not sent: which `limit`, of whom, how much was asked, how much is left.

    `limit` is its name, `scope` whose it is (`{"tenant": "acme"}`), `asked` and `left` are
    tokens. `frees_in` is how many seconds from now that much will be left; None where it never
    will, as for a request that is too large by itself.
    """

    def __init__(
        self,
        limit: str,
        size: int,
        scope: Mapping[str, str],
        asked: int,
        left: int,
        frees_in: float | None,
    ) -> None:
        super().__init__(limit, size, scope, asked, left, frees_in)
        self.limit = limit
        self.size = size
        self.scope = dict(scope)
        self.asked = asked
        self.left = left
        self.frees_in = frees_in

    def __str__(self) -> str:
        of = " and ".join(f"{key} {value}" for key, value in self.scope.items())
        when = "" if self.frees_in is None else f", which are free in {self.frees_in:.0f} s"
        if self.frees_in is None and self.asked > self.size:
            when = ", which it never allows"
        return (
            f"budget of {self.size:,} {self.limit}{f' of {of}' if of else ''}:"
            f" {self.left:,} left, and the call asks for {self.asked:,}{when}"
        )


class BudgetUnavailable(BudgetExceeded):
    """The shared store did not answer, and the budget was told to refuse then."""

    def __init__(self, asked: int) -> None:
        super().__init__("store", 0, {}, asked, 0, None)

    def __reduce__(self) -> tuple[Any, ...]:
        # By its own argument: `args` are those of the class above it.
        return type(self), (self.asked,), self.__dict__

    def __str__(self) -> str:
        return "budget: the shared store does not answer, and fail_open is off"


def expect(fits: bool, name: str, expected: str, got: str) -> None:
    """Raise ValueError, in the words of settings, unless an argument `fits`."""
    if not fits:
        raise ValueError(f"{name}: expected {expected}; got {got}")


def is_whole(value: object) -> bool:
    """Tell whether a value is a number of tokens: whole, and 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def tenant_text(value: object) -> str:
    """Return a tenant as attribution tells it: of an enum's member that is a text, its value."""
    return str.__str__(value) if isinstance(value, str) else str(value)


@dataclass(frozen=True, slots=True)
class Limit:
    """How much, and of whom: each model, each tenant, each pair of them, or all together.

    `input_per_request` is compared with the input alone, the others with what is reserved and
    spent. `by` names what is counted apart; `model` (an id as called, or a bare one) and `tenant`
    say for whom the limit holds at all. A tenant is what `attribution` takes: a text, a whole
    number or a UUID. Calls without a tenant count together, as one of them.

    Raises:
        ValueError: a limit without a size, or an argument that no call could ever be held to.
    """

    input_per_request: int | None = None
    per_minute: int | None = None
    per_day: int | None = None
    by: str | Sequence[str] = ()
    model: str | None = None
    tenant: str | int | UUID | None = None
    name: str = ""

    def __post_init__(self) -> None:
        several = isinstance(self.by, Iterable) and not isinstance(self.by, str)
        by = tuple(self.by) if several else (self.by,)
        for each in by:
            expect(each in _DIMENSIONS, "by", " or ".join(_DIMENSIONS), repr(each))
        object.__setattr__(self, "by", tuple(each for each in _DIMENSIONS if each in by))
        sizes = ("input_per_request", *(period[0] for period in _PERIODS))
        for field in sizes:
            size = getattr(self, field)
            if size is not None and (not isinstance(size, int) or isinstance(size, bool)):
                raise ValueError(f"{field}: expected a whole number of tokens; got {size!r}")
            if size is not None and size < 0:
                raise ValueError(f"{field}: expected 0 or more tokens; got {size!r}")
        if all(getattr(self, field) is None for field in sizes):
            raise ValueError(f"a limit without a size limits nothing: give {' or '.join(sizes)}")
        model, tenant = self.model, self.tenant
        known = model is None or (isinstance(model, str) and model != "")
        expect(known, "model", "a model id", repr(model))
        expect(isinstance(self.name, str), "name", "a text", repr(self.name))
        if tenant is not None:
            known = isinstance(tenant, (str, int, UUID)) and not isinstance(tenant, bool)
            expect(
                known and tenant != "", "tenant", "a text, a whole number or a UUID", repr(tenant)
            )
            object.__setattr__(self, "tenant", tenant_text(tenant))

    def scope(self, call: Call, tenant: str | None) -> dict[str, str] | None:
        """Return whom a call counts for; None where the limit is not for it."""
        model = call.model
        ids = (model.name, model.base_id, model.profile_id)
        if self.model is not None and self.model not in ids:
            return None
        if self.tenant is not None and self.tenant != tenant:
            return None
        values = {"model": model.base_id or model.name, "tenant": tenant or ""}
        return {key: values[key] for key in self.by}


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit that a call goes over, whether it is refused or only reported."""

    limit: str
    size: int
    scope: Mapping[str, str]
    asked: int
    left: int
    frees_in: float | None

    def error(self) -> BudgetExceeded:
        """Return it as what is raised."""
        return BudgetExceeded(
            self.limit, self.size, self.scope, self.asked, self.left, self.frees_in
        )


@dataclass(frozen=True, slots=True)
class Counter:
    """One window that a call is counted in, its name and whose it is."""

    window: Window
    name: str
    scope: Mapping[str, str]


def counters(held: Iterable[tuple[Limit, Mapping[str, str]]]) -> Iterable[Counter]:
    """Return the windows of limits, each once and with whom it is for.

    Limits that differ in nothing but their size share a count, and the smallest is the one that
    is reached.
    """
    found: dict[str, Counter] = {}
    for limit, scope in held:
        for field, name, seconds, slot in _PERIODS:
            size = getattr(limit, field)
            if size is None:
                continue
            key = json.dumps([limit.name, limit.model, limit.tenant, field, *scope.items()])
            known = found.get(key)
            if known is None or size < known.window.limit:
                found[key] = Counter(Window(key, size, seconds, slot), limit.name or name, scope)
    return found.values()
