"""Attribution: for whom and for what calls are made, as a context manager and a decorator.

    with otel_bedrock.attribution(tenant="acme", feature="search"):
        client.converse(…)

    @otel_bedrock.attribution(feature="summary")
    async def summarise(text): …

Every Bedrock call that starts inside has `bedrock.attribution.tenant` and so on on its span, also
where its stream is read elsewhere; on metrics only the keys that the setting
`attribution_metric_keys` names, with at most `attribution_limit` values each. Inside another
attribution, keys are added and replaced, and the outer ones are back afterwards.

It lives in OpenTelemetry's context. asyncio tasks, `asyncio.to_thread` and
`run_coroutine_threadsafe` take that along. Threads and executors do not (before Python 3.14's
free-threaded build): hand them `attribution.carry(work)`, or install
opentelemetry-instrumentation-threading. A generator function is decorated, as `with` around a
`yield` would go on in whoever iterates.

Over HTTP, the W3C baggage of a request counts where the setting `attribution_baggage_keys`
names the key, and your web framework's instrumentation, or `opentelemetry.propagate.extract`,
has put it into the context. What the code itself says goes before. Anybody can send
baggage: name only keys that your own edge sets or strips.

A value is a text, of which the first 256 characters count, a whole number or a UUID. None and the
empty text say nothing. What else is given is left out with one warning: nothing here raises.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Final, TypeVar, cast
from uuid import UUID

from opentelemetry import baggage, context
from opentelemetry.context import Context, get_current

from otel_bedrock import shield
from otel_bedrock.utf8 import sendable

Value = str | int | UUID | None
Work = TypeVar("Work", bound=Callable[..., Any])

VALUE_LIMIT: Final = 256

_KEY = context.create_key("otel_bedrock.attribution")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_NOBODY: Mapping[str, str] = MappingProxyType({})

# The allow-lists of the recorders in use, the newest last: what `current` goes by.
_allowed: list[tuple[str, ...]] = []
_said: set[str] = set()


class _Held:
    """What one `attribution` put into the context, and what was there before."""

    __slots__ = ("by", "outer", "values")

    def __init__(self, by: attribution, values: Mapping[str, str], outer: _Held | None) -> None:
        self.by = by
        self.values = values
        self.outer = outer


class attribution:  # noqa: N801 - it is used as contextlib's `suppress` is
    """Say for whom Bedrock calls are made: `with attribution(tenant=…):`, `@attribution(…)`.

    One object may be used any number of times, also by several threads or tasks at once.
    """

    __slots__ = ("_values",)

    def __init__(self, /, **values: Value) -> None:
        self._values: Mapping[str, str] = _NOBODY
        try:
            self._values = _checked(values)
        except Exception as error:
            shield.stop("attribution", error)

    def __enter__(self) -> None:
        try:
            outer = cast("_Held | None", context.get_value(_KEY))
            values = self._values if outer is None else {**outer.values, **self._values}
            context.attach(context.set_value(_KEY, _Held(self, values, outer)))
        except Exception as error:
            shield.stop("attribution.enter", error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            # By what the context holds and not by a token: in another context, as at the end of
            # an abandoned generator, there is nothing to take back, and nobody to complain to.
            held = cast("_Held | None", context.get_value(_KEY))
            if held is not None and held.by is self:
                context.attach(context.set_value(_KEY, held.outer))
        except Exception as failure:
            shield.stop("attribution.exit", failure)

    def __call__(self, function: Work) -> Work:
        """Decorate a function, a coroutine function, or a generator function of either kind."""
        make = next((make for asks, make in _KINDS if _is(asks, function)), _plain)
        return cast("Work", functools.wraps(function)(make(self, function)))

    @staticmethod
    def current() -> Mapping[str, str]:
        """Return what a call that started now would be attributed to; never changed later."""
        return current()

    @staticmethod
    def carry(work: Work) -> Work:
        """Return `work`, to be run by a thread as if it were called here and now.

        `pool.map(attribution.carry(ask), questions)`: all of OpenTelemetry's context goes along,
        so that spans are children of the present one.
        """
        here = context.get_current()

        @functools.wraps(work)
        def carried(*args: Any, **kwargs: Any) -> Any:
            token = context.attach(here)
            try:
                return work(*args, **kwargs)
            finally:
                context.detach(token)

        return cast("Work", carried)


def current() -> Mapping[str, str]:
    """Return what a call that started now would be attributed to; never changed later."""
    try:
        return MappingProxyType(dict(attributed(_allowed[-1] if _allowed else ()) or _NOBODY))
    except Exception as error:
        shield.stop("attribution.current", error)
        return _NOBODY


def attributed(
    baggage_keys: tuple[str, ...], here: Context | None = None
) -> Mapping[str, str] | None:
    """Return the attribution of a call that starts `here`, or in the current context.

    None where there is none. The mapping is shared; nobody changes it.
    """
    if here is None:
        here = get_current()
    held: Any = here.get(_KEY)
    if not baggage_keys:
        # What a call costs to which nobody attributed anything.
        return None if held is None else held.values or None
    values = _NOBODY if held is None else held.values
    return {**_from_baggage(baggage_keys, here), **values} or None


def allow(baggage_keys: tuple[str, ...]) -> None:
    """Let `current` go by these keys of baggage, until they are taken back by `forbid`."""
    _allowed.append(baggage_keys)


def forbid(baggage_keys: tuple[str, ...]) -> None:
    """Take back what was given to `allow`; the unknown is ignored."""
    if baggage_keys in _allowed:
        _allowed.remove(baggage_keys)


def checked(values: Iterable[tuple[str, object]]) -> dict[str, str]:
    """Return what of `values` may be told, as texts; says once for each key what may not."""
    found = {}
    for key, value in values:
        if value is None:
            continue
        if not _NAME.fullmatch(key):
            _say(key, "a key is a letter, then up to 63 letters, digits, '_', '.' or '-'")
        elif isinstance(value, bool) or not isinstance(value, (str, int, UUID)):
            _say(key, f"expected a str, got {type(value).__name__}")
        else:
            text = _text(value)
            if text:
                found[key] = text
    return found


def _checked(values: Mapping[str, object]) -> dict[str, str]:
    return checked(values.items())


def _text(value: str | int | UUID) -> str:
    if not isinstance(value, str):
        # More digits than Python turns into text are no id.
        return str(value) if isinstance(value, UUID) or abs(value) < 10**VALUE_LIMIT else ""
    # Of an enum's member, its value.
    return sendable(str.__str__(value)[:VALUE_LIMIT])


def _say(key: str, why: str) -> None:
    shown = key[:64]
    if shown not in _said and len(_said) < 1000:
        _said.add(shown)
        shield.log.warning(
            "attribution(%s=…): %s; it is left out, and this is said once", shown, why
        )


def _from_baggage(keys: tuple[str, ...], here: Context) -> Mapping[str, str]:
    sent = baggage.get_all(here)
    return checked((key, sent[key]) for key in keys if key in sent) if sent else _NOBODY


# --- How each kind of function is decorated ---------------------------------------------------


def _plain(who: attribution, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        with who:
            return function(*args, **kwargs)

    return call


def _coroutine(who: attribution, function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> Any:
        with who:
            return await function(*args, **kwargs)

    return call


def _generator(who: attribution, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with who:
            inner = function(*args, **kwargs)
        step, given = inner.send, None
        while True:
            with who:
                try:
                    item = step(given)
                except StopIteration as end:
                    return end.value
            try:
                step, given = inner.send, (yield item)
            except GeneratorExit:
                with who:
                    inner.close()
                raise
            except BaseException as error:  # thrown in by who iterates
                step, given = inner.throw, error

    return call


def _async_generator(who: attribution, function: Callable[..., Any]) -> Callable[..., Any]:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        with who:
            inner = function(*args, **kwargs)
        step, given = inner.asend, None
        while True:
            with who:
                try:
                    item = await step(given)
                except StopAsyncIteration:
                    return
            try:
                step, given = inner.asend, (yield item)
            except GeneratorExit:
                with who:
                    await inner.aclose()
                raise
            except BaseException as error:  # thrown in by who iterates
                step, given = inner.athrow, error

    return call


_KINDS = (
    (inspect.iscoroutinefunction, _coroutine),
    (inspect.isasyncgenfunction, _async_generator),
    (inspect.isgeneratorfunction, _generator),
)


def _is(asks: Callable[[Any], bool], function: Any) -> bool:
    """Ask of a function, or of an object that is called like one."""
    return asks(function) or asks(getattr(function, "__call__", None))  # noqa: B004
