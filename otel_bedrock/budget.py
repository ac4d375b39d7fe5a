"""Budget: how many tokens may be spent, by model, by tenant or both, and who is refused.

    budget = TokenBudget(
        Limit(per_minute=400_000, by="model"),
        Limit(per_day=1_000_000, input_per_request=50_000, by=("model", "tenant")),
    )
    otel_bedrock.instrument(budget=budget)

A call that would go over raises BudgetExceeded before anything is sent. It reserves, as Bedrock
does with its quotas, its input and `max_tokens` (unset: the most that the model generates, by
`context_window`; of a model that is not known there, `assumed_max_tokens`). When it has ended,
what it spent stands there instead: uncached input + cache writes + output times burndown (1 where
not known). A call that fails releases all. A stream settles when its usage is known, one that is
abandoned when it is let go of; what its usage then does not tell counts as it was reserved.

The input is not known before the call. By default it is taken at its upper bound
(`budget_bound`: about four times what English text has), so that a limit is never passed, but may
refuse early. `count="when needed"` asks CountTokens where the bound would be refused,
`count="always"` before every call; where that fails, the bound holds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from otel_bedrock import shield
from otel_bedrock.budget_limit import (
    BudgetUnavailable,
    Excess,
    Limit,
    counters,
    expect,
    is_whole,
    tenant_text,
)
from otel_bedrock.budget_store import MemoryStore, Store, Taken, Window
from otel_bedrock.call import Call, Usage
from otel_bedrock.context_window import context_window, max_output
from otel_bedrock.quota import burndown

log = logging.getLogger("otel_bedrock")

NEVER: Final = "never"
WHEN_NEEDED: Final = "when needed"
ALWAYS: Final = "always"

# What each argument of TokenBudget has to be, and what an error says that it should have been.
_COUNTS = (NEVER, WHEN_NEEDED, ALWAYS)
_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "enforce": (lambda value: isinstance(value, bool), "True or False"),
    "fail_open": (lambda value: isinstance(value, bool), "True or False"),
    "count": (lambda value: value in _COUNTS, f"one of {', '.join(_COUNTS)}"),
    "context_window": (
        lambda value: isinstance(value, bool) or is_whole(value),
        "True, False or a whole number of tokens",
    ),
    "assumed_max_tokens": (is_whole, "a whole number of tokens, 0 or more"),
    "tenant": (
        lambda value: value is None or callable(value),
        "a function that takes a call and returns whose it is",
    ),
    "burndown": (
        lambda value: value is None or is_whole(value) or _are_factors(value),
        "a whole number, 0 or more, or a mapping from model id to one",
    ),
}


def _are_factors(value: object) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(model, str) and is_whole(factor) for model, factor in value.items()
    )


def _is_store(value: object) -> bool:
    members = ("blocks", "reserve", "settle")
    return not isinstance(value, type) and all(hasattr(value, each) for each in members)


class Reservation:
    """What one call holds of the budget, until it is settled: once, whoever tells the end."""

    __slots__ = (
        "_budget",
        "_open",
        "_slots",
        "_windows",
        "call",
        "excesses",
        "input",
        "output",
        "unchecked",
    )

    def __init__(
        self,
        budget: TokenBudget,
        call: Call,
        tokens: tuple[int, int],
        windows: Sequence[Window] = (),
        slots: Sequence[int] = (),
        excesses: Sequence[Excess] = (),
        unchecked: bool = False,
    ) -> None:
        self._budget = budget
        self._windows = windows
        self._slots = slots
        self.call = call
        self.input, self.output = tokens
        self.excesses = excesses
        self.unchecked = unchecked
        # Taking the one item is atomic: of two threads that end a call, one settles it.
        self._open = [True]

    @property
    def tokens(self) -> int:
        """How many tokens are reserved."""
        return self.input + self.output

    def release(self) -> None:
        """Give all of it back: nothing was spent."""
        self._settle(0)

    def settle(self, usage: Usage | None) -> None:
        """Put what was spent in its place; what `usage` does not tell counts as reserved."""
        usage = usage or Usage()
        spent = self.input
        if usage.input_tokens is not None:
            spent = usage.input_tokens - (usage.cache_read_tokens or 0)
        output = self.output
        if usage.output_tokens is not None:
            output = usage.output_tokens * self._budget.factor(self.call)
        self._settle(max(0, spent) + output)

    def _settle(self, spent: int) -> None:
        try:
            self._open.pop()
        except IndexError:
            return
        if self._slots and spent != self.tokens:
            self._budget.settle(self._windows, self._slots, self.tokens, spent)


class TokenBudget:
    """Limits that calls are held to, or, without `enforce`, only compared with.

    Args:
        *limits: a call is held to each that is for it.
        enforce: False reports calls that go over, on span and metric, and lets them go.
        context_window: True refuses what exceeds the model's context window, by the table of
            `context_window`; a number is taken for every model.
        count: when CountTokens is asked: `never`, `when needed` or `always`.
        tenant: who a call is for; unless given, the key `tenant` of its attribution.
        store: where tokens are counted; this process's memory unless given.
        burndown: factors that come before the table of `quota`; a number is taken for every
            model: 1 counts tokens as they are.
        assumed_max_tokens: what a call without `max_tokens` reserves where nobody knows what its
            model generates at most.
        fail_open: False refuses calls while a shared store does not answer, where the budget
            enforces its limits.

    Raises:
        TypeError: one of `limits` is no Limit.
        ValueError: another argument is not what it should be; the message says which and what.
    """

    def __init__(
        self,
        *limits: Limit,
        enforce: bool = True,
        context_window: bool | int = False,
        count: str = NEVER,
        tenant: Callable[[Call], str | None] | None = None,
        store: Store | None = None,
        burndown: Mapping[str, int] | int | None = None,
        assumed_max_tokens: int = 4_096,
        fail_open: bool = True,
    ) -> None:
        given = locals()
        for name, (fits, expected) in _CHECKS.items():
            expect(fits(given[name]), name, expected, repr(given[name]))
        for limit in limits:
            if not isinstance(limit, Limit):
                raise TypeError(f"expected Limit(…); got {limit!r}")
        if store is not None:
            # By its type: a URL given in its place may have a password in it.
            got = repr(store) if isinstance(store, type) else type(store).__name__
            expect(_is_store(store), "store", "a store, such as RedisStore(url)", got)
        self.limits = limits
        self.enforce = enforce
        self.count = count
        self.store = MemoryStore() if store is None else store
        self.fail_open = fail_open
        # Whether a reservation waits for somebody: for a store elsewhere, or for a count.
        self.waits = self.store.blocks or count != NEVER
        self._window = context_window
        self._tenant = tenant
        self._burndown = burndown
        self._adopted: Mapping[str, int] | None = None
        self._assumed = assumed_max_tokens
        self._said = False

    def adopt(self, burndown: Mapping[str, int] | None) -> None:
        """Take the factors of the setting `burndown`, unless the budget has its own."""
        self._adopted = burndown

    def factor(self, call: Call) -> int:
        """Return what an output token of the call costs."""
        if isinstance(self._burndown, int):
            return self._burndown
        own = self._adopted if self._burndown is None else self._burndown
        found = burndown(call.model, own)
        return 1 if found is None else found

    def reserve(self, call: Call, input_tokens: int, *, enforce: bool | None = None) -> Reservation:
        """Reserve what `call` may spend.

        Raises:
            BudgetExceeded: it goes over a limit, and the budget, or `enforce`, refuses that.
        """
        enforce = self.enforce if enforce is None else enforce
        tenant = self._tenant_of(call)
        output, known = self._output(call)
        tokens = input_tokens + output
        held = [
            (limit, scope)
            for limit in self.limits
            if (scope := limit.scope(call, tenant)) is not None
        ]
        excesses = list(self._too_large(call, held, input_tokens, output if known else 0))
        if excesses and enforce:
            raise excesses[0].error()
        counted = list(counters(held))
        windows = [counter.window for counter in counted]
        try:
            taken = self.store.reserve(windows, tokens, enforce) if windows else Taken()
        except Exception as error:
            if not self.store.blocks or shield.interrupts(error):
                raise
            self._failed(error)
            if self._fails_closed:
                raise BudgetUnavailable(tokens) from error
            return Reservation(self, call, (input_tokens, output), unchecked=True)
        self._said = False
        for refusal in taken.refusals:
            counter = counted[refusal.window]
            excesses.append(
                Excess(
                    counter.name,
                    counter.window.limit,
                    counter.scope,
                    tokens,
                    refusal.left,
                    refusal.frees_in,
                )
            )
        if taken.refusals and enforce:
            # The one that takes longest: before that, there is no use in asking again.
            raise max(excesses, key=_patience).error()
        return Reservation(self, call, (input_tokens, output), windows, taken.slots, excesses)

    def settle(
        self, windows: Sequence[Window], slots: Sequence[int], reserved: int, spent: int
    ) -> None:
        """Put what was spent in the place of a reservation; for `Reservation`."""
        try:
            self.store.settle(windows, slots, reserved, spent)
        except Exception as error:
            if not self.store.blocks:
                raise
            # The reservation stays, until its window has passed.
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if not self._said:
            self._said = True
            log.warning(
                "the store of the token budget failed (%s): calls %s until it answers again",
                type(error).__name__,
                "are refused" if self._fails_closed else "go out unchecked",
            )

    @property
    def _fails_closed(self) -> bool:
        # One that refuses nothing by its limits refuses nothing for want of them.
        return self.enforce and not self.fail_open

    def _tenant_of(self, call: Call) -> str | None:
        if self._tenant is None:
            return None if call.attribution is None else call.attribution.get("tenant")
        try:
            found = self._tenant(call)
        except Exception as error:
            log.warning(
                "a call counts for no tenant: %s in the tenant function", type(error).__name__
            )
            return None
        return None if found is None else tenant_text(found)

    def _output(self, call: Call) -> tuple[int, bool]:
        """Return the most that a call may generate, and whether it says so itself."""
        if not call.limitable:
            return 0, True
        asked = call.parameters.get("max_tokens")
        if isinstance(asked, int) and not isinstance(asked, bool) and asked >= 0:
            return asked, True
        most = max_output(call.model)
        return (self._assumed if most is None else most), False

    def _too_large(
        self,
        call: Call,
        held: Iterable[tuple[Limit, Mapping[str, str]]],
        input_tokens: int,
        output: int,
    ) -> Iterable[Excess]:
        """Yield the limits that the request goes over by itself."""
        for limit, scope in held:
            most = limit.input_per_request
            if most is not None and input_tokens > most:
                name = limit.name or "input tokens a request"
                yield Excess(name, most, scope, input_tokens, most, None)
        if self._window is False:
            return
        window = context_window(call.model) if self._window is True else self._window
        if window is not None and input_tokens + output > window:
            scope = {"model": call.model.name}
            yield Excess("tokens of context", window, scope, input_tokens + output, window, None)


def _patience(excess: Excess) -> float:
    return float("inf") if excess.frees_in is None else excess.frees_in
