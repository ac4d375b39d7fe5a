"""Patch: the one method of botocore through which every API call goes, wrapped.

The wrapper passes straight through unless the service is Bedrock's, the operation has a row,
and instrumentation is not suppressed. Around the real call it only starts and finishes a
Recording; the answer that goes back is the very object that botocore made. aiobotocore's own
method is a second row: what is begun, read and told is the same, only the call is awaited.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, cast

import wrapt

from otel_bedrock import abandoned, aio_streams, bodies, preflight, shield, streams
from otel_bedrock.bracket import Look, Watches, begin, reserve_ahead
from otel_bedrock.frozen import dataclass
from otel_bedrock.operations import SERVICES

Call = tuple[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]]


def _call(seam: Seam, recorder: Look, service: str, call: Call) -> Any:
    wrapped, client, args, kwargs = call
    before = preflight.current
    count = None if before is None else partial(before.count, recorder, service, call)
    begun = begin(seam.watches, recorder, service, client, args, kwargs, None, count)
    if begun is None:
        return wrapped(*args, **kwargs)
    try:
        correlate = begun.recording.recorder.correlate
        if correlate is not None:
            args, kwargs = correlate(begun.recording.span, client, args, kwargs)
        with begun:
            begun.answered = answered = wrapped(*args, **kwargs)
    except BaseException:
        if not begun.over:
            begun.interrupted()
        raise
    return answered


def _await(seam: Seam, recorder: Look, service: str, call: Call) -> Any:
    try:
        abandoned.start()
    except Exception as error:
        shield.stop("abandoned.start", error)
    waiting: Any = _awaited(seam, recorder, service, call)
    # What Python calls a coroutine that nobody awaits.
    with suppress(AttributeError, TypeError):
        waiting.__name__, waiting.__qualname__ = call[0].__name__, call[0].__qualname__
    return waiting


async def _awaited(seam: Seam, recorder: Look, service: str, call: Call) -> Any:
    wrapped, client, args, kwargs = call
    before, counted = preflight.current, None
    ahead = await reserve_ahead(recorder, service, client, args, kwargs, counts=before is not None)
    if before is not None:
        try:
            counted = await before.count_async(recorder, service, call)
        except GeneratorExit:
            # Maybe of the garbage collector, in whose hands no lock may be taken.
            raise
        except BaseException:
            if ahead is not None and ahead.reservation is not None:
                ahead.reservation.release()
            raise
    begun = begin(seam.watches, recorder, service, client, args, kwargs, ahead)
    if begun is None:
        return await wrapped(*args, **kwargs)
    try:
        begun.recording.counted = counted
        correlate = begun.recording.recorder.correlate
        if correlate is not None:
            args, kwargs = correlate(begun.recording.span, client, args, kwargs)
        handled = sys.exc_info()[1]
        with begun:
            try:
                begun.answered = answered = await wrapped(*args, **kwargs)
            except BaseException as error:
                begun.let_go = _is_let_go(error, handled)
                raise
    except BaseException:
        if not begun.over:
            begun.interrupted()
        raise
    return answered


def _is_let_go(error: BaseException | None, handled: BaseException | None) -> bool:
    """Say whether a coroutine was closed while it waited; its clean-up may raise anew.

    What was being `handled` when it began to wait, and what came before that, is not its own: a
    call may be made while a generator of the caller's is closed.
    """
    for _ in range(100):
        if error is None or error is handled:
            return False
        if isinstance(error, GeneratorExit):
            return True
        error = error.__context__
    return False


@dataclass(frozen=True, slots=True, eq=False)
class Seam:
    """One row: the module, the attribute in it that is wrapped, and how.

    `around` calls what is wrapped; `watches` says how its streams and bodies are observed. A
    module that is not `required` is wrapped when somebody else has imported it.
    """

    module: str
    name: str
    around: Callable[[Seam, Look, str, Call], Any]
    watches: Watches
    required: bool = False


SEAMS = (
    Seam(
        "botocore.client",
        "BaseClient._make_api_call",
        _call,
        Watches(streams.watch_events, bodies.watch_body),
        required=True,
    ),
    Seam(
        "aiobotocore.client",
        "AioBaseClient._make_api_call",
        _await,
        Watches(aio_streams.watch_events, aio_streams.watch_body),
    ),
)


# As Any, for its stubs do not know what every wrapper of wrapt's has: __wrapped__.
_WRAPPER: Any = wrapt.FunctionWrapper


class _Wrappers:
    """Our wrappers on the seams, until they are taken off."""

    def __init__(self, recorder: Look) -> None:
        self._recorder: Look | None = recorder
        # Taking a row out is atomic: a module that two threads see imported is wrapped once.
        self._off = {seam.module: seam for seam in SEAMS}
        self._on: list[tuple[Seam, Any]] = []

    def put_on(self, module: ModuleType) -> None:
        seam = self._off.pop(module.__name__, None)
        if seam is None or self._recorder is None:
            return
        try:
            ours = wrapt.wrap_function_wrapper(module, seam.name, self._wrapper(seam))
        except AttributeError:
            # A version that nobody has seen: the program goes on without its telemetry.
            shield.log.warning(
                "%s has no %s: calls made by it are not reported. Please say which version it is",
                seam.module,
                seam.name,
            )
            return
        self._on.append((seam, ours))

    def take_off(self) -> None:
        # One that cannot be taken off passes through from now on.
        self._recorder = None
        for seam, ours in self._on:
            real = ours.__wrapped__
            resolved: Any = wrapt.resolve_path(sys.modules[seam.module], seam.name)
            parent, attribute, outer = cast("tuple[Any, str, Any]", resolved)
            # OpenTelemetry's own `unwrap` of a wrapper on top leaves ours bound to nothing.
            if outer is ours or getattr(outer, "_self_parent", None) is ours:
                setattr(parent, attribute, real)
            # Somebody wrapped after us: theirs stays, and ours comes out from under it.
            while isinstance(outer, _WRAPPER):
                if outer.__wrapped__ is ours:
                    outer.__wrapped__ = real
                outer = outer.__wrapped__

    def _wrapper(self, seam: Seam) -> Callable[..., Any]:
        def wrapper(
            wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> Any:
            recorder = self._recorder
            try:
                service = client.meta.service_model.service_name
            except Exception:
                # No client as we know it: what is wrong with it, the call itself will say,
                # and not as an error that came up during another one.
                service = None
            if service not in SERVICES or recorder is None:
                return wrapped(*args, **kwargs)
            return seam.around(seam, recorder, service, (wrapped, client, args, kwargs))

        return wrapper


_present: _Wrappers | None = None
# Hooks of wrapt's cannot be taken back: one for each module, for good.
_hooked: set[str] = set()


def wrap(recorder: Look) -> Callable[[], None]:
    """Wrap the SEAMS; `recorder` gives the Recorder to use now, None to pass through.

    Returns the function that takes the wrappers off again.
    """
    global _present
    wrappers = _present = _Wrappers(recorder)
    for seam in SEAMS:
        if seam.required:
            import_module(seam.module)
        if seam.module in sys.modules:
            wrappers.put_on(sys.modules[seam.module])
        elif seam.module not in _hooked:
            _hooked.add(seam.module)
            wrapt.register_post_import_hook(_imported, seam.module)
    return wrappers.take_off


def _imported(module: ModuleType) -> None:
    try:
        if _present is not None:
            _present.put_on(module)
    except Exception as error:
        shield.stop("patch", error)
