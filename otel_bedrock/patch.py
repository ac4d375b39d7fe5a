"""Patch: the one method of botocore through which every API call goes, wrapped.

The wrapper passes straight through unless the service is Bedrock's, the operation has a row,
and instrumentation is not suppressed. Around the real call it only starts and finishes a
Recording; the answer that goes back is the very object that botocore made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import wrapt
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_bedrock import abandoned, answer, shield, streams, usage
from otel_bedrock.call import Outcome
from otel_bedrock.errors import read_error
from otel_bedrock.events import DIALECTS
from otel_bedrock.observers import BodyObserver, StreamObserver
from otel_bedrock.operations import SERVICES, TABLE, Operation
from otel_bedrock.providers import Provider
from otel_bedrock.recorder import Recorder, Recording
from otel_bedrock.request import read_call

Seam = tuple[str, str]

# What is wrapped: module, and attribute in it.
SEAMS: tuple[Seam, ...] = (("botocore.client", "BaseClient._make_api_call"),)

_PORTS = {"https": 443, "http": 80}


class Begun:
    """A call between its start and its answer."""

    __slots__ = ("provider", "recording", "row", "token")

    def __init__(self, row: Operation, provider: Provider, recording: Recording) -> None:
        self.row = row
        self.provider = provider
        self.recording = recording
        self.token: object | None = None


def wrap(recorder: Callable[[], Recorder | None]) -> Callable[[], None]:
    """Wrap the SEAMS; `recorder` gives the Recorder to use now, None to pass through.

    Returns the function that takes the wrappers off again.
    """

    def wrapper(
        wrapped: Callable[..., Any], client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            service = client._service_model.service_name
        except AttributeError:
            return wrapped(*args, **kwargs)
        if service not in SERVICES:
            return wrapped(*args, **kwargs)
        begun = begin(recorder, service, client, args, kwargs)
        if begun is None:
            return wrapped(*args, **kwargs)
        try:
            answered = wrapped(*args, **kwargs)
        except BaseException as error:
            leave(begun)
            failed(begun, error)
            raise
        leave(begun)
        returned(begun, answered)
        return answered

    undo = []
    for module, name in SEAMS:
        wrapt.wrap_function_wrapper(module, name, wrapper)
        undo.append((module, name))

    def unwrap() -> None:
        for module, name in undo:
            _unwrap(module, name)

    return unwrap


def _unwrap(module: str, name: str) -> None:
    parent, attribute, _ = wrapt.resolve_path(module, name)
    current = parent.__dict__.get(attribute)
    # Where somebody wrapped after us, taking ours off would take theirs off too: then ours
    # stays and passes through.
    if isinstance(current, wrapt.FunctionWrapper):
        setattr(parent, attribute, current.__wrapped__)


def begin(
    recorder: Callable[[], Recorder | None],
    service: str,
    client: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Begun | None:
    """Start the recording of a call and make its span current; None to pass through."""
    try:
        api = args[0] if args else kwargs.get("operation_name")
        row = TABLE.get((service, api)) if isinstance(api, str) else None
        if row is None or not is_instrumentation_enabled():
            return None
        current = recorder()
        if current is None:
            return None
        abandoned.drain()
        parameters = args[1] if len(args) > 1 else kwargs.get("api_params")
        meta = client.meta
        address, port = _address(meta.endpoint_url)
        call, provider = read_call(
            row,
            parameters if isinstance(parameters, Mapping) else {},
            address=address,
            port=port,
            region=meta.region_name,
            body_limit=current.config.body_limit,
            aliases=current.config.model_aliases,
        )
        recording = current.start(call)
        recording.spends = row.spends and provider.tokens
        begun = Begun(row, provider, recording)
        begun.token = recording.enter()
        return begun
    except Exception as error:
        shield.stop("begin", error)
        return None


def leave(begun: Begun) -> None:
    """Make the span not current any more: a stream never holds a context."""
    try:
        begun.recording.leave(begun.token)
    except Exception as error:
        shield.stop("leave", error)


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
    try:
        row, recording = begun.row, begun.recording
        found = answer.read_answer(row, answered, begun.provider)
        if row.stream is not None:
            _watch_stream(begun, answered, found)
        elif row.body is not None and _worth_reading(begun.provider, found):
            _watch_body(begun, answered, found)
        else:
            recording.finish(Outcome(**found))
    except Exception as failure:
        shield.stop("returned", failure)
        begun.recording.finish(Outcome())


def _worth_reading(provider: Provider, found: answer.Found) -> bool:
    """Whether the body may tell what the headers did not."""
    return provider.body or (provider.tokens and found.get("usage") is None)


def _watch_stream(begun: Begun, answered: Any, found: answer.Found) -> None:
    assert begun.row.stream is not None
    recording = begun.recording
    stream = answered.get(begun.row.stream)
    events = DIALECTS[begun.row.reads](begun.provider)
    if recording.recorder.config.time_per_output_chunk:
        events.gap = recording.gap
    observer = StreamObserver(recording, events, found)
    try:
        abandoned.watch(observer)
        streams.watch_events(stream, observer)
    except streams.Unwatchable as unknown:
        abandoned.forget(observer)
        _say_unwatchable(str(unknown))
        recording.finish(Outcome(**found))


def _watch_body(begun: Begun, answered: Any, found: answer.Found) -> None:
    assert begun.row.body is not None
    recording = begun.recording
    headers = answered["ResponseMetadata"]["HTTPHeaders"]
    limit = recording.recorder.config.body_limit
    text = headers.get("content-length", "")
    length = int(text) if text.isascii() and text.isdecimal() else None
    if length is not None and length > limit:
        recording.finish(Outcome(**found))
        return
    report = usage.read_headers(headers)
    provider = begun.provider
    held = usage.held(report, splits=provider.splits_cache_write, includes=provider.includes_cache)
    recording.returned(Outcome(**found), held)
    observer = BodyObserver(recording, provider, found, report, length, limit)
    try:
        abandoned.watch(observer)
        closed = streams.watch_body(answered[begun.row.body], observer)
        abandoned.watch(observer, closed)
    except streams.Unwatchable as unknown:
        abandoned.forget(observer)
        _say_unwatchable(str(unknown))
        recording.finish(Outcome(**found))


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
