"""Admission: a call and the budget, before the request leaves.

The one place whose exception is the user's: BudgetExceeded. All else that fails here lets the call
go. What may wait, for CountTokens or a shared store, is a step: a client that waits takes it where
it is, an asyncio client off the event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from opentelemetry.context import Context

from otel_bedrock import shield, signals
from otel_bedrock.budget import ALWAYS, WHEN_NEEDED, Reservation, TokenBudget
from otel_bedrock.budget_bound import input_bound
from otel_bedrock.budget_limit import BudgetExceeded, BudgetUnavailable
from otel_bedrock.call import Call, Outcome
from otel_bedrock.recorder import Recorder
from otel_bedrock.threads import Threads

_threads = Threads("otel-bedrock-reserve", 16)
# Nobody has seen yet whether there is such a model.
_UNSENT = Outcome(error_type="unsent")


@dataclass(frozen=True, slots=True)
class Count:
    """A step: ask CountTokens."""


Step = Count | Callable[[], Reservation]
Steps = Generator[Step, Any, Reservation]


def admit(
    budget: TokenBudget, recorder: Recorder, call: Call, client: Any, parameters: Mapping[str, Any]
) -> Reservation | None:
    """Reserve what a call may spend; None where that failed and the call goes all the same.

    Raises:
        BudgetExceeded: the call is not to be sent.
    """
    try:
        steps = _steps(budget, call, parameters)
        step = next(steps)
        while True:
            try:
                done = _counted(client, parameters) if isinstance(step, Count) else step()
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(done)
    except StopIteration as end:
        return _told(recorder, call, end.value)
    except BudgetExceeded as refused:
        _refused(recorder, call, refused)
        raise
    except Exception as error:
        shield.stop("budget", error)
        return None


async def admit_async(
    budget: TokenBudget, recorder: Recorder, call: Call, client: Any, parameters: Mapping[str, Any]
) -> Reservation | None:
    """The same for a call of an asyncio client."""
    try:
        steps = _steps(budget, call, parameters)
        step = next(steps)
        while True:
            try:
                if isinstance(step, Count):
                    done: Any = await _counted_async(client, parameters)
                elif budget.store.blocks:
                    done = await _off_loop(step)
                else:
                    done = step()
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(done)
    except StopIteration as end:
        return _told(recorder, call, end.value)
    except BudgetExceeded as refused:
        _refused(recorder, call, refused)
        raise
    except Exception as error:
        shield.stop("budget", error)
        return None


async def _off_loop(reserve: Callable[[], Reservation]) -> Reservation:
    """Reserve on a thread; what it gets for a task that is cancelled meanwhile is given back."""
    import asyncio

    reserving = _threads.submit(reserve)
    try:
        return await asyncio.wrap_future(reserving)
    except asyncio.CancelledError:
        reserving.add_done_callback(_give_back)
        raise


def _give_back(reserving: Future[Reservation]) -> None:
    try:
        if not reserving.cancelled() and reserving.exception() is None:
            reserving.result().release()
    except Exception as error:
        shield.stop("budget.cancelled", error)


def _steps(budget: TokenBudget, call: Call, parameters: Mapping[str, Any]) -> Steps:
    counted = None
    if budget.count == ALWAYS:
        counted = yield from _count()
    bound = input_bound(parameters) if counted is None else counted
    # A body in a file cannot be seen; what it may generate is reserved all the same.
    tokens = 0 if bound is None else bound
    if budget.count == WHEN_NEEDED:
        try:
            held: Reservation = yield partial(budget.reserve, call, tokens, enforce=True)
            return held
        except BudgetUnavailable:
            raise
        except BudgetExceeded:
            counted = yield from _count()
            tokens = tokens if counted is None else counted
    reservation: Reservation = yield partial(budget.reserve, call, tokens)
    return reservation


def _count() -> Generator[Step, Any, int | None]:
    try:
        counted = yield Count()
        return int(counted.input_tokens)
    except Exception as error:
        if shield.interrupts(error):
            raise
        # Not every model can be counted; the bound holds.
        return None


def _counted(client: Any, parameters: Mapping[str, Any]) -> Any:
    from otel_bedrock.counting import count_tokens

    return count_tokens(client, **parameters)


async def _counted_async(client: Any, parameters: Mapping[str, Any]) -> Any:
    from otel_bedrock.counting import count_tokens_async

    return await count_tokens_async(client, **parameters)


def _told(recorder: Recorder, call: Call, reservation: Reservation) -> Reservation:
    """Count what went over a limit and is let go, and what nobody checked."""
    if reservation.unchecked:
        _measure(recorder, call, "budget_unchecked", {})
    for excess in reservation.excesses:
        _measure(recorder, call, "budget_exceeded", _named(excess.limit, enforced=False))
    return reservation


def _refused(recorder: Recorder, call: Call, refused: BudgetExceeded) -> None:
    try:
        _measure(recorder, call, "budget_exceeded", _named(refused.limit, enforced=True))
    except Exception as error:
        shield.stop("budget.refused", error)


def _named(limit: str, *, enforced: bool) -> dict[str, Any]:
    return {signals.BUDGET_LIMIT: limit, signals.BUDGET_ENFORCED: enforced}


def _measure(recorder: Recorder, call: Call, key: str, more: Mapping[str, Any]) -> None:
    base, _ = recorder.bases(call, _UNSENT)
    recorder.measure(((key, 1, {**base, **more}),), Context())
