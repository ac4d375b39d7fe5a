"""Bracket: what is done around one API call, before it and after it.

The same whether the call is made or awaited. The answer that goes back is the very object
that botocore made; what it still has to say, as a stream or a body, is watched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache, partial
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from opentelemetry.context import get_current
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_bedrock import abandoned, answer, shield, streams, usage
from otel_bedrock.attribution import attributed
from otel_bedrock.call import Outcome
from otel_bedrock.errors import read_error
from otel_bedrock.events import DIALECTS
from otel_bedrock.frozen import dataclass
from otel_bedrock.model_id import ModelId
from otel_bedrock.observers import (
    BodyObserver,
    CallObserver,
    ContentObserver,
    StreamObserver,
)
from otel_bedrock.operations import TABLE, Operation
from otel_bedrock.providers import Provider
from otel_bedrock.recorder import Recorder
from otel_bedrock.recording import Recording
from otel_bedrock.request import read_call, read_json, read_parameters
from otel_bedrock.shield import ForTheCaller

if TYPE_CHECKING:
    from otel_bedrock.budget import Reservation

Look = Callable[[], Recorder | None]
Watch = Callable[[Any, Any], Callable[[], bool] | None]

_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True, eq=False)
class Watches:
    """How the streams and the bodies of one kind of client are observed."""

    events: Watch
    body: Watch


class Begun:
    """A call between its start and its answer; around it, its span is current."""

    __slots__ = ("answered", "let_go", "over", "provider", "recording", "row", "token", "watches")

    def __init__(
        self, watches: Watches, row: Operation, provider: Provider, recording: Recording
    ) -> None:
        self.watches = watches
        self.row = row
        self.provider = provider
        self.recording = recording
        self.token: object | None = None
        self.answered: Any = None
        self.let_go = False
        self.over = False

    def __enter__(self) -> None:
        try:
            self.token = self.recording.enter()
        except Exception as error:
            shield.stop("begin.enter", error)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.let_go:
            # Maybe by the garbage collector, and hardly in the context that it began in. What
            # goes wrong here could not be told without a lock.
            with suppress(Exception):
                if self.recording.is_current():
                    leave(self)
            with suppress(Exception):
                abandoned.put(CallObserver(self.recording))
            self.over = True
            return
        try:
            leave(self)
        except Exception as failure:
            shield.stop("leave", failure)
        finally:
            try:
                if error is None:
                    returned(self, self.answered)
                else:
                    failed(self, error)
            except Exception as failure:
                self.recording.give_up()
                shield.stop("finish", failure)
        self.over = True

    def interrupted(self) -> None:
        """End what an interrupt left standing that came between lines of ours.

        Called from outside: such a one also comes where `__exit__` has not begun yet.
        """
        try:
            self.recording.interrupted(answered=self.answered is not None)
        except Exception as failure:
            shield.stop("interrupted", failure)


def begin(
    watches: Watches,
    recorder: Look,
    service: str,
    client: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    ahead: Ahead | None = None,
    count: Callable[[], int | None] | None = None,
) -> Begun | None:
    """Start the recording of a call; None to pass through.

    `count` is asked where a budget lets the call go, and before its time begins.

    Raises:
        BudgetExceeded: the call is not to be sent.
    """
    recording = who = None
    reservation = None if ahead is None else ahead.reservation
    try:
        current = recorder()
        if current is None:
            return None
        api = args[0] if args else kwargs.get("operation_name")
        row = TABLE.get((service, api)) if isinstance(api, str) else None
        here = get_current()
        # In an empty context nothing is suppressed.
        if row is None or (here and not is_instrumentation_enabled()):
            return None
        abandoned.drain()
        parameters = args[1] if len(args) > 1 else kwargs.get("api_params")
        if type(parameters) is not dict and not isinstance(parameters, Mapping):
            parameters = {}
        config = current.config
        try:
            who = attributed(config.attribution_baggage_keys, here)
        except Exception as error:
            shield.stop("begin.attribution", error)
        meta = client.meta
        address, port = _address(meta.endpoint_url)
        call, provider = read_call(
            row,
            parameters,
            address=address,
            port=port,
            region=meta.region_name,
            body_limit=config.body_limit,
            aliases=config.model_aliases,
            look_up=_look_up(client) if config.resolve_models else None,
            wanted=current.asks,
            attribution=who,
        )
        if current.asks_quotas and row.spends:
            try:
                from otel_bedrock import service_quotas

                service_quotas.see(current.quotas, client)
            except Exception as error:
                shield.stop("begin.quotas", error)
        if ahead is None and current.budget is not None and row.spends and provider.tokens:
            try:
                from otel_bedrock.admission import admit

                reservation = admit(current.budget, current, call, client, parameters)
            except ForTheCaller:
                raise
            except Exception as error:
                shield.stop("begin.budget", error)
        counted = None if count is None else count()
        recording = current.start(call, here)
        recording.counted = counted
        begun = Begun(watches, row, provider, recording)
        if reservation is not None:
            try:
                recording.holds(reservation)
            except Exception as error:
                shield.stop("begin.holds", error)
        recording.spends = row.spends and provider.tokens
        try:
            # Not before the span is there: it says whether anybody will see them.
            if not current.asks and recording.span.is_recording():
                body = None
                if row.reads == "invoke":
                    body = read_json(parameters.get("body"), config.body_limit)
                read_parameters(call, row, parameters, body, provider)
        except Exception as error:
            shield.stop("begin.parameters", error)
        try:
            if current.gate is not None:
                recording.read_content(current.gate, row.reads, parameters)
        except Exception as error:
            shield.stop("begin.content", error)
        return begun
    except ForTheCaller:
        raise
    except Exception as error:
        if recording is not None:
            recording.give_up()
        if reservation is not None and shield.interrupts(error):
            reservation.release()
        shield.stop("begin", error)
        return None
    except BaseException:
        # An interrupt: the call is not sent.
        if recording is not None:
            recording.give_up()
        if reservation is not None:
            reservation.release()
        raise


def _look_up(client: Any) -> Callable[[ModelId], ModelId]:
    from otel_bedrock import lookup

    return partial(lookup.find, client)


@dataclass(frozen=True, slots=True, eq=False)
class Ahead:
    """What was reserved before `begin`, for an asyncio client that then has to wait."""

    reservation: Reservation | None


async def reserve_ahead(
    recorder: Look,
    service: str,
    client: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    counts: bool = False,
) -> Ahead | None:
    """Reserve off the event loop what `begin` would reserve on it; None where it need not.

    It need also where the call `counts` its input first: what is refused is not counted.

    Raises:
        BudgetExceeded: the call is not to be sent.
    """
    try:
        api = args[0] if args else kwargs.get("operation_name")
        row = TABLE.get((service, api)) if isinstance(api, str) else None
        if row is None or not row.spends or not is_instrumentation_enabled():
            return None
        current = recorder()
        if current is None or current.budget is None:
            return None
        budget, config = current.budget, current.config
        if not (budget.waits or counts):
            return None
        parameters = args[1] if len(args) > 1 else kwargs.get("api_params")
        parameters = parameters if isinstance(parameters, Mapping) else {}
        call, provider = read_call(
            row,
            parameters,
            region=client.meta.region_name,
            body_limit=config.body_limit,
            aliases=config.model_aliases,
            look_up=_look_up(client) if config.resolve_models else None,
            attribution=attributed(config.attribution_baggage_keys),
        )
        if not provider.tokens:
            return None
        from otel_bedrock.admission import admit_async

        return Ahead(await admit_async(budget, current, call, client, parameters))
    except ForTheCaller:
        raise
    except Exception as error:
        shield.stop("budget.ahead", error)
        return None


def leave(begun: Begun) -> None:
    """Make the span not current any more: a stream never holds a context."""
    if begun.token is not None:
        begun.recording.leave(begun.token)


def failed(begun: Begun, error: BaseException) -> None:
    """Finish the recording of a call that raised."""
    try:
        outcome = Outcome(**read_error(error))
    except Exception as failure:
        shield.stop("failed", failure)
        outcome = Outcome(error_type=type(error).__name__)
    begun.recording.finish(outcome)


def returned(begun: Begun, answered: Any) -> None:
    """Finish the recording of a call that returned, or watch what it still has to say."""
    row, recording = begun.row, begun.recording
    found: answer.Found = {}
    try:
        found = answer.read_answer(row, answered, begun.provider)
        announced = found.pop(answer.ANNOUNCED, _NOTHING)
        if row.stream is not None:
            _watch_stream(begun, answered, found)
        elif row.body is not None and _worth_reading(begun.provider, found):
            _watch_body(begun, answered.get(row.body), found, *announced)
        else:
            if recording.content is not None and row.body is None:
                recording.content.see_answer(answered)
            recording.finish(Outcome(**found))
    except Exception as failure:
        # Said first: where errors are raised, nothing would be told after it.
        recording.finish(Outcome(**found))
        shield.stop("returned", failure)


# A stubbed answer may have no headers.
_NOTHING: tuple[usage.Report | None, int | None] = (None, None)


def _worth_reading(provider: Provider, found: answer.Found) -> bool:
    """Whether the body may tell what the headers did not."""
    return provider.body or (provider.tokens and found.get("usage") is None)


def _watch_stream(begun: Begun, answered: Any, found: answer.Found) -> None:
    assert begun.row.stream is not None
    recording = begun.recording
    stream = streams.innermost(answered.get(begun.row.stream))
    events = DIALECTS[begun.row.reads](begun.provider)
    if recording.recorder.config.time_per_output_chunk:
        events.gap = recording.gap
    watching = StreamObserver if recording.content is None else ContentObserver
    _watch(begun, begun.watches.events, stream, watching(recording, events, found), found)


def _watch_body(
    begun: Begun,
    body: Any,
    found: answer.Found,
    report: usage.Report | None,
    length: int | None,
) -> None:
    recording, provider = begun.recording, begun.provider
    limit = recording.recorder.config.body_limit
    if length is not None and length > limit:
        recording.finish(Outcome(**found))
        return
    held = usage.held(report, splits=provider.splits_cache_write, includes=provider.includes_cache)
    recording.returned(Outcome(**found), held)
    observer = BodyObserver(recording, provider, found, report, length, limit)
    _watch(begun, begun.watches.body, body, observer, found)


def _watch(
    begun: Begun,
    watch: Watch,
    thing: Any,
    observer: StreamObserver | BodyObserver,
    found: answer.Found,
) -> None:
    try:
        closed = watch(thing, observer)
    except streams.Unwatchable as unknown:
        _say_unwatchable(str(unknown))
        begun.recording.finish(Outcome(**found))
        return
    if not observer.over:
        abandoned.watch(observer, closed)


_said_unwatchable: set[str] = set()


def _say_unwatchable(kind: str) -> None:
    if kind not in _said_unwatchable:
        _said_unwatchable.add(kind)
        shield.log.warning(
            "a %s cannot be observed: its spans lack what only the stream or body tells", kind
        )


@lru_cache(maxsize=256)
def _address(endpoint: str) -> tuple[str | None, int | None]:
    parts = urlsplit(endpoint)
    return parts.hostname, parts.port or _PORTS.get(parts.scheme)
