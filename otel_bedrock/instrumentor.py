"""Instrumentor: instrument(), uninstrument() and BedrockInstrumentor, under one lock."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from typing_extensions import Unpack

from otel_bedrock import abandoned, patch, preflight, sdk, shield
from otel_bedrock.config import Config, Settings, read_config
from otel_bedrock.frozen import dataclass
from otel_bedrock.nesting import CONFLICTS
from otel_bedrock.recorder import Recorder
from otel_bedrock.setting_values import Invalid, seconds

log = logging.getLogger("otel_bedrock")

_FLUSH_TIMEOUT = 5.0

_NO_SDK = (
    "no OpenTelemetry SDK is configured: Bedrock calls are not reported. Set one up, or call"
    " otel_bedrock.instrument(otlp_endpoint='http://localhost:4318')"
)


_INHERITED = (
    "this process was forked after OpenTelemetry was set up in its parent: the SDK goes on from the"
    " parent's sums, which are then counted twice. Set the providers up in the child (gunicorn:"
    " post_fork), or let otel_bedrock.instrument(otlp_endpoint=…) do it, which needs nothing more"
)


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """What the last instrument() was given: the same again does nothing."""

    config: Config
    tracer_provider: trace.TracerProvider | None
    meter_provider: metrics.MeterProvider | None
    logger_provider: Any
    automatic: bool
    # Names of the settings that were arguments.
    said: Collection[str] = ()
    captures: bool = False

    def inside(self, block: Given) -> Given:
        """Return what `self` comes to in a `capture` block: its settings, and no more.

        What it does not say is as the block says.
        """
        kept = {name: getattr(block.config, name) for name in block.said if name not in self.said}
        return replace(block, config=replace(self.config, **kept))

    def same_as(self, other: Given) -> bool:
        return (
            self.config == other.config
            and self.tracer_provider is other.tracer_provider
            and self.meter_provider is other.meter_provider
            and self.logger_provider is other.logger_provider
        )


class _Active:
    """The process's one activation."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.given: Given | None = None
        self.recorder: Recorder | None = None
        self.unwrap: Callable[[], None] | None = None
        self.providers = sdk.Providers()
        self.live = False
        self.said = False
        # Nobody would see anything until a global provider is set.
        self.idle = False
        self.warned = False
        self.inherited = False

    def after_fork(self) -> None:
        """Go on in a forked child: with new providers where they are ours."""
        self.lock = threading.Lock()
        given = self.given
        if given is None or self.recorder is None:
            return
        if not self.providers:
            self.inherited = self.live
            return
        self.providers.renew()
        self.recorder.close()
        self.recorder = Recorder(given.config, *self.providers_of(given), given.logger_provider)

    def providers_of(self, given: Given) -> tuple[Any, Any]:
        """Return where spans and metrics go: as given, by those that we made, by None globally."""
        made = self.providers
        return (
            given.tracer_provider or made.tracer_provider,
            given.meter_provider or made.meter_provider,
        )

    def current(self) -> Recorder | None:
        """Return the Recorder for a call that starts now; None where nobody would see it."""
        if self.live and not self.inherited:
            return self.recorder
        if self.idle and not sdk.may_be_set():
            return None
        return self._look()

    def _look(self) -> Recorder | None:
        given, recorder = self.given, self.recorder
        if given is None or recorder is None:
            return None
        if self.inherited:
            self.inherited = False
            log.warning(_INHERITED)
        # Providers may be set after instrument(): the API's stand-ins pass on to them.
        tracer_provider, meter_provider = self.providers_of(given)
        if sdk.is_tracing(tracer_provider) or sdk.is_metering(meter_provider):
            self.live = True
            if not self.warned:
                self.warned = True
                _warn_of_conflicts()
            return recorder
        if not self.said:
            self.said = True
            if not sdk.unwanted():
                log.warning(_NO_SDK)
        # A budget holds whether or not anybody looks at what is spent.
        if given.config.budget is not None:
            return recorder
        self.idle = given.tracer_provider is None and given.meter_provider is None
        return None


def recorder() -> Recorder | None:
    """Return who records a call that starts now; None where nobody would see it."""
    return _active.current()


def _after_fork() -> None:
    try:
        _active.after_fork()
    except Exception as error:
        shield.stop("after_fork", error)


def _warn_of_conflicts() -> None:
    """Say which other instrumentations tell of the same calls, and how to switch them off.

    Asked at the first call, so that it does not matter who came first.
    """
    for module, switch in CONFLICTS.items():
        loaded = vars(sys.modules[module]).values() if module in sys.modules else ()
        active = [
            each
            for each in loaded
            if isinstance(each, type)
            and issubclass(each, BaseInstrumentor)
            and each.__module__.startswith(module)
            and each().is_instrumented_by_opentelemetry
        ]
        if active:
            log.warning(
                "%s is active too: it tells of the same Bedrock calls, so that a backend may add"
                " their tokens up twice. Switch one off:"
                " OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=%s, or do not call its instrument()",
                module,
                switch,
            )


_active = _Active()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def instrument(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    logger_provider: Any = None,
    otlp_endpoint: str | None = None,
    **settings: Unpack[Settings],
) -> None:
    """Report every Amazon Bedrock call of this process, from now on.

    Covers clients made before and after, by boto3, boto3.Session, botocore, aiobotocore and
    aioboto3. Called again it re-configures: the same settings do nothing, others replace the
    former with one warning; nothing is patched twice.

    Args:
        tracer_provider: where spans go; the global one unless given, also one set later.
        meter_provider: where metrics go; likewise.
        logger_provider: where content events go; likewise.
        otlp_endpoint: base URL of an OTLP endpoint (`http://localhost:4318`). Sets up the
            OpenTelemetry SDK as the global one, once, unless there is one; another endpoint takes
            the place of the former, for all that goes there. Without it no global state is touched.
        **settings: see the table of settings in README.

    Raises:
        TypeError: a name is no setting, or a provider is none.
        ValueError: a setting has a value that it cannot have. Nothing has changed then. Wrong
            values of environment variables warn, and the default is taken.
    """
    _expect("tracer_provider", tracer_provider, "get_tracer")
    _expect("meter_provider", meter_provider, "get_meter")
    _expect("logger_provider", logger_provider, "get_logger")
    given = Given(
        config=configure({"otlp_endpoint": otlp_endpoint, **settings}),
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        logger_provider=logger_provider,
        automatic=False,
        said=[name for name, value in settings.items() if value is not None],
    )
    _activate(given)
    BedrockInstrumentor()._is_instrumented_by_opentelemetry = True


def _expect(name: str, provider: Any, method: str) -> None:
    if provider is None:
        return
    if isinstance(provider, type) or not hasattr(provider, method):
        kind = "".join(word.capitalize() for word in name.split("_"))
        raise TypeError(f"{name}: expected a {kind}; got {provider!r}")


def configure(arguments: Mapping[str, Any]) -> Config:
    """Return the Config of `arguments`, and raise where what they name cannot be had."""
    config = read_config(arguments)
    if arguments.get("prices") is not None:
        from otel_bedrock.pricing import open_prices

        open_prices(config.prices)
    return config


def _recorder(given: Given) -> Recorder:
    preflight.set_up(given.config)
    return Recorder(given.config, *_active.providers_of(given), given.logger_provider)


def _activate(given: Given) -> None:
    with _active.lock:
        before = _active.given
        if before is not None:
            if before.captures and not given.automatic:
                given = given.inside(before)
            if given.same_as(before):
                if not given.automatic:
                    _active.given = given
                return
            if given.automatic:
                # What the program asked for by hand stays.
                return
            if not (before.automatic or before.captures):
                log.warning("instrument() was called before; its new settings replace the former")
        endpoint = given.config.otlp_endpoint
        own = given.tracer_provider is None and given.meter_provider is None
        if endpoint is not None and own:
            if _active.providers:
                _active.providers.move(endpoint)
            else:
                _active.providers = sdk.set_up(endpoint)
        recorder = _recorder(given)
        if _active.unwrap is None:
            _active.unwrap = patch.wrap(_active.current)
        if _active.recorder is not None:
            _active.recorder.close()
        _active.live = _active.idle = False
        _active.recorder = recorder
        _active.given = given


def exchange(given: Given | None) -> Given | None:
    """Put `given` in place of the present activation, and return that one; for `capture`.

    Says nothing, and leaves providers that were made alone.
    """
    if given is None or not given.captures:
        # A block may have switched the instrumentor on, or off.
        BedrockInstrumentor()._is_instrumented_by_opentelemetry = given is not None
    with _active.lock:
        before = _active.given
        if _active.recorder is not None:
            _active.recorder.close()
        _active.recorder = None
        _active.live = _active.idle = _active.said = False
        if given is not None:
            _active.recorder = _recorder(given)
            if _active.unwrap is None:
                _active.unwrap = patch.wrap(_active.current)
        elif _active.unwrap is not None:
            preflight.set_up(None)
            _active.unwrap()
            _active.unwrap = None
        _active.given = given
        return before


def current_recorder() -> Recorder | None:
    """Return what tells a call that starts now; None where nobody would see it."""
    return _active.current() if is_instrumentation_enabled() else None


def current_config() -> Config | None:
    """Return the settings in force; None where nothing is instrumented."""
    given = _active.given
    return None if given is None else given.config


def uninstrument() -> None:
    """Take every patch off, and shut down the providers that instrument() made.

    OpenTelemetry's global providers cannot be unset: one that instrument(otlp_endpoint=…) made
    stays the global one, shut down, and a later otlp_endpoint= makes others for Bedrock calls
    alone. Does nothing where nothing is instrumented, and leaves a `capture` block to its own end.
    """
    with _active.lock:
        if _active.unwrap is None:
            return
        if _active.given is not None and _active.given.captures:
            BedrockInstrumentor()._is_instrumented_by_opentelemetry = False
            return
        abandoned.look()
        preflight.set_up(None)
        _active.unwrap()
        _active.unwrap = None
        if _active.recorder is not None:
            _active.recorder.close()
        _active.recorder = _active.given = None
        _active.live = _active.idle = _active.said = False
        providers, _active.providers = _active.providers, sdk.Providers()
    BedrockInstrumentor()._is_instrumented_by_opentelemetry = False
    providers.shutdown()


def flush(timeout: float = _FLUSH_TIMEOUT) -> bool:
    """Tell what is waiting and export it, within `timeout` seconds.

    Where a stream is open, the garbage collector is run: one that was broken off waits for it.

    Returns True where everything left in time, or nothing is instrumented. Never raises: a
    `timeout` that is no number is said in the log, and the default is taken. No time is left
    where it is below 0.
    """
    try:
        timeout = 0.0 if isinstance(timeout, (int, float)) and timeout < 0 else seconds(timeout)
    except Invalid as error:
        log.warning("flush: timeout: %s; %g is used", error, _FLUSH_TIMEOUT)
        timeout = _FLUSH_TIMEOUT
    try:
        return _flush(timeout)
    except Exception as error:
        shield.stop("flush", error)
        return False


def _flush(timeout: float) -> bool:
    abandoned.look(collect=True)
    given = _active.given
    if given is None:
        return True
    made = _active.providers
    failures = made.failures
    recorder = _active.recorder
    details = None if recorder is None else recorder.details
    events = None if details is None else details.provider
    done = sdk.flush(timeout, *_active.providers_of(given), events)
    if not done:
        made.say_late(timeout)
    return done and made.failures == failures


class BedrockInstrumentor(BaseInstrumentor):  # type: ignore[misc]  # see its import
    """The same as OpenTelemetry's own instrumentors, for `opentelemetry-instrument`."""

    def instrumentation_dependencies(self) -> Collection[str]:
        return ("boto3 >= 1.37.24",)

    def _instrument(self, **kwargs: Any) -> None:
        automatic = not kwargs
        if not automatic:
            instrument(**kwargs)
            return
        _activate(Given(read_config({}), None, None, None, automatic=True))

    def _uninstrument(self, **kwargs: Any) -> None:
        uninstrument()
