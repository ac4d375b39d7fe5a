"""Preflight: an opt-in count of a call's input before the call, so that both can be compared.

It is a CountTokens call of its own, with a span of its own beside the call's, whose time and
duration begin after it. Where it fails the call goes on as it would have, without the count.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_bedrock import shield
from otel_bedrock.model_id import parse
from otel_bedrock.operations import TABLE

if TYPE_CHECKING:
    from otel_bedrock.config import Config

# The operations whose input CountTokens counts.
_COUNTED = frozenset(("converse", "invoke"))
# After a failure (throttled, denied, no connection) the next calls are spared for so long.
_PAUSE = 60.0


class Preflight:
    """Counts the calls that `count_before` chooses: a predicate of the request, or a share."""

    def __init__(self, config: Config) -> None:
        from otel_bedrock.countable import Memory

        self._config = config
        self._paused = Memory(_PAUSE)
        # Not the module's own generator, whose numbers a program may have seeded.
        self._random = random.Random()  # noqa: S311 - a sample, not a secret
        self._said: set[str] = set()

    def count(self, look: Callable[[], Any], service: str, call: tuple[Any, ...]) -> int | None:
        """Return the input tokens of a call that is about to be made; None where unknown."""
        try:
            request = self._request(look, service, call)
            if request is None:
                return None
            from otel_bedrock.counting import count_tokens

            try:
                return count_tokens(call[1], resolve_models=False, **request).input_tokens
            except Exception as error:
                self._failed(call[1], request, error)
        except Exception as error:
            shield.stop("preflight", error)
        return None

    async def count_async(
        self, look: Callable[[], Any], service: str, call: tuple[Any, ...]
    ) -> int | None:
        """Count as `count` does, for a client of aiobotocore."""
        try:
            request = self._request(look, service, call)
            if request is None:
                return None
            from otel_bedrock.counting import count_tokens_async

            try:
                counted = await count_tokens_async(call[1], resolve_models=False, **request)
                return counted.input_tokens
            except Exception as error:
                self._failed(call[1], request, error)
        except Exception as error:
            shield.stop("preflight", error)
        return None

    def _request(
        self, look: Callable[[], Any], service: str, call: tuple[Any, ...]
    ) -> dict[str, Any] | None:
        """Return the request to count, None where this call is not counted."""
        _, client, args, kwargs = call
        api = args[0] if args else kwargs.get("operation_name")
        row = TABLE.get((service, api)) if isinstance(api, str) else None
        if row is None or row.reads not in _COUNTED:
            return None
        if not is_instrumentation_enabled() or look() is None:
            return None
        given = args[1] if len(args) > 1 else kwargs.get("api_params")
        if not isinstance(given, Mapping) or not self._wants(given):
            return None
        # Reading a file, even with care, is more than a count may do to somebody's call.
        if hasattr(given.get("body"), "read"):
            return None
        request = dict(given)
        model = request.get("modelId")
        if not isinstance(model, str):
            return None
        if self._config.resolve_models:
            from otel_bedrock import lookup

            # What is known by now; a call never waits for a look-up.
            model = request["modelId"] = lookup.find(client, parse(model)).base_id or model
        return None if self._paused.find(_place(client), model) else request

    def _wants(self, request: Mapping[str, Any]) -> bool:
        before = self._config.count_before
        if not callable(before):
            return before is not None and self._random.random() < before
        try:
            return bool(before(request))
        except Exception as error:
            self._say(f"count_before raised {type(error).__name__}", "its calls are not counted")
            return False

    def _failed(self, client: Any, request: Mapping[str, Any], error: Exception) -> None:
        """Spare the next calls, and say why; a bug of ours is raised, and a time limit."""
        from botocore.exceptions import BotoCoreError, ClientError

        from otel_bedrock.counting import TokenCountUnsupported

        if shield.interrupts(error):
            raise error
        name = parse(request["modelId"]).name
        if isinstance(error, TokenCountUnsupported):
            self._say(f"{name} is not counted before its calls", f"{error.reason} {error.advice}")
            return
        self._paused.put(_place(client), request["modelId"], type(error).__name__)
        if not isinstance(error, (BotoCoreError, ClientError, ValueError, TypeError)):
            raise error
        self._say(
            f"counting {name} before a call failed ({type(error).__name__})",
            f"the call was made; its model is counted again after {_PAUSE:.0f} seconds",
        )

    def _say(self, what: str, more: str) -> None:
        if what not in self._said and len(self._said) < self._paused.MOST:
            self._said.add(what)
            shield.log.info("%s: %s. This is said once.", what, more.rstrip("."))


def _place(client: Any) -> str:
    return str(client.meta.endpoint_url)


# None where no call is counted before it is made: what the patch looks at.
current: Preflight | None = None


def set_up(config: Config | None) -> None:
    """Count from now on as `config` says; not at all where it is None or says nothing."""
    global current
    counts = config is not None and config.count_before is not None
    current = Preflight(config) if config is not None and counts else None
