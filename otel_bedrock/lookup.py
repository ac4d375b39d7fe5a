"""Look-up: what an opaque model id stands for, asked of Bedrock's control plane.

Only where the setting `resolve_models` is on. A call never waits: the first one with an id
hands it to a daemon thread and stays opaque, later ones are told from the cache. The thread
asks with the calling client's own credentials, in its region, untraced, once for each id;
what failed is not asked again for FAILED_FOR seconds.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any

from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_bedrock import shield
from otel_bedrock.control_plane import NotYet, make_client, make_session
from otel_bedrock.model_id import ModelId, parse
from otel_bedrock.paths import dig


@dataclass(frozen=True, slots=True)
class Question:
    """One row: the operation of service `bedrock` that knows, the parameter that takes the ARN,
    and where its answer has the ARN of the base model, or of something nearer to it.

    The IAM action that allows it is `bedrock:<operation>`.
    """

    operation: str
    parameter: str
    path: str


# Kind of ARN -> whom to ask. Kinds that are not here have no base model that an answer names:
# imported-model, prompt, prompt-router (it has several), sagemaker-endpoint.
TABLE: Mapping[str, Question] = MappingProxyType(
    {
        "application-inference-profile": Question(
            "GetInferenceProfile", "inferenceProfileIdentifier", "models.*.modelArn"
        ),
        "provisioned-model": Question(
            "GetProvisionedModelThroughput", "provisionedModelId", "foundationModelArn"
        ),
        "custom-model": Question("GetCustomModel", "modelIdentifier", "baseModelArn"),
        # Its model is a custom model, whose ARN names the base or has to be asked in turn.
        "custom-model-deployment": Question(
            "GetCustomModelDeployment", "customModelDeploymentIdentifier", "modelArn"
        ),
    }
)

FAILED_FOR = 600.0
# Credentials of an asyncio client are there once its first call has been signed.
_SOON = 1.0
# Ids beyond these stay opaque: callers may make up any number of them.
_MOST_IDS = 4096
_MOST_STEPS = 3
# Making a session costs a fifth of a second of the thread's time and 12 MB: it is kept while
# ids keep coming, and let go of then.
_LINGER = 10.0

_DENIED = frozenset(("AccessDeniedException", "AccessDenied"))

_clock = time.monotonic


class Untold(Exception):
    """Nobody can say what the id stands for; the message says why."""


class _Entry:
    """One id: the model that it stands for, or when to ask again."""

    __slots__ = ("again", "model", "turns")

    def __init__(self) -> None:
        self.model: ModelId | None = None
        self.again = 0.0
        # Taking the one item is atomic: of many threads, one asks.
        self.turns = [True]

    def put_off(self, seconds: float) -> None:
        self.again = _clock() + seconds
        self.turns.append(True)


_Item = tuple[_Entry, ModelId, Any]


class _State:
    """What is known, and the thread that asks; see abandoned.py for why both are made late."""

    def __init__(self) -> None:
        self.entries: dict[str, _Entry] = {}
        self.said: set[tuple[str, str]] = set()
        self.queue: queue.SimpleQueue[_Item] | None = None
        self.once = threading.Lock()

    def ask(self, item: _Item) -> bool:
        """Hand `item` to the thread; False where another call is just starting it."""
        if self.queue is None and self.once.acquire(blocking=False):
            waiting: queue.SimpleQueue[_Item] = queue.SimpleQueue()
            threading.Thread(
                target=_run, args=(self, waiting), name="otel-bedrock-lookup", daemon=True
            ).start()
            self.queue = waiting
        if self.queue is None:
            return False
        self.queue.put(item)
        return True


_state = _State()


def find(client: Any, model: ModelId) -> ModelId:
    """Return `model` with base id and provider where they are known by now.

    Where they are not, they are asked for with the credentials of `client`, so that a later
    call knows them.
    """
    if model.base_id is not None or model.kind not in TABLE or model.arn is None:
        return model
    try:
        state = _state
        entry = state.entries.get(model.arn)
        if entry is None:
            if len(state.entries) >= _MOST_IDS:
                return model
            entry = state.entries.setdefault(model.arn, _Entry())
        if entry.model is not None:
            return entry.model
        if entry.turns and _clock() >= entry.again:
            try:
                entry.turns.pop()
            except IndexError:
                return model
            if not state.ask((entry, model, client)):
                entry.put_off(0.0)
    except Exception as error:
        shield.stop("lookup.find", error)
    return model


def wait(client: Any, model: ModelId) -> ModelId:
    """Return `model` as `find` does, but ask here and now where nobody knows yet.

    For who waits on purpose. What failed is not asked again for FAILED_FOR seconds either.
    """
    if model.base_id is not None or model.kind not in TABLE or model.arn is None:
        return model
    state = _state
    entry = state.entries.get(model.arn)
    if entry is None:
        entry = _Entry()
        if len(state.entries) < _MOST_IDS:
            entry = state.entries.setdefault(model.arn, entry)
    if entry.model is None and _clock() >= entry.again:
        with suppress_instrumentation():
            try:
                entry.turns.pop()
            except IndexError:
                # The thread is at it: its answer would come too late for this caller.
                entry = _Entry()
                entry.turns.pop()
            _answer(state, make_session, entry, model, client)
    return entry.model or model


def _run(state: _State, waiting: queue.SimpleQueue[_Item]) -> None:
    while state is _state:
        item: _Item | None = waiting.get()
        session = cache(make_session)
        # Neither the requests nor a refresh of credentials are the application's.
        with suppress_instrumentation():
            while item is not None:
                _answer(state, session, *item)
                item = None
                try:
                    item = waiting.get(timeout=_LINGER)
                except queue.Empty:
                    break


def _answer(
    state: _State, session: Callable[[], Any], entry: _Entry, model: ModelId, client: Any
) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    pause = FAILED_FOR
    try:
        base = _base_of(session, model, client)
        entry.model = replace(model, base_id=base.base_id, provider=base.provider)
    except NotYet:
        pause = _SOON
    except Exception as error:
        # Of who waits here; the thread of its own gets no signals.
        if shield.interrupts(error):
            pause = 0.0
            raise
        if isinstance(error, (BotoCoreError, ClientError, Untold)):
            _say(state, model, error)
        else:
            shield.stop("lookup", error)
    finally:
        if entry.model is None:
            entry.put_off(pause)


def _say(state: _State, model: ModelId, error: Exception) -> None:
    """Log a failure, once for each operation and reason."""
    operation = getattr(error, "operation_name", None) or TABLE[model.kind or ""].operation
    code = dig(getattr(error, "response", None), "Error.Code")
    reason = str(code or (error if isinstance(error, Untold) else type(error).__name__))
    if (operation, reason) in state.said:
        return
    state.said.add((operation, reason))
    # Not the error's own text: it names the account and the role.
    shield.log.info(
        "%s stays opaque: %s failed (%s). %s It is asked again after %d minutes; this is said"
        " once.",
        model.name,
        operation,
        reason,
        f"Allow the IAM action bedrock:{operation}, or name its model in model_aliases."
        if reason in _DENIED
        else "Its model can be named in model_aliases.",
        FAILED_FOR / 60,
    )


def _base_of(session: Callable[[], Any], model: ModelId, client: Any) -> ModelId:
    """Ask from one ARN to the next until one names its base model."""
    control = make_client(session(), client)
    try:
        for _ in range(_MOST_STEPS):
            model = _next(control, model)
            if model.base_id is not None:
                return model
    finally:
        control.close()
    raise Untold("its answer names no base model")


def _next(control: Any, model: ModelId) -> ModelId:
    from botocore import xform_name

    question = TABLE.get(model.kind or "")
    if question is None:
        raise Untold("its answer names no base model")
    ask = getattr(control, xform_name(question.operation), None)
    if ask is None:
        raise Untold("the installed botocore does not have it")
    told = dig(ask(**{question.parameter: model.arn}), question.path)
    found = [parse(arn) for arn in (told if isinstance(told, list) else [told]) if arn]
    # A profile lists its model once for each Region; where they differ, no one is the base.
    if len({(one.base_id, one.kind) for one in found}) != 1:
        raise Untold("its answer names no base model, or several")
    return found[0]


def _after_fork() -> None:
    # The child has no thread; what the parent asked for will never be answered here.
    global _state
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
