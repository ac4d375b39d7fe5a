"""Budget in Redis: the counts of `budget_store`, shared by all processes that use one server.

    TokenBudget(Limit(per_minute=400_000), store=RedisStore("redis://cache.internal:6379/0"))

Needs the extra `redis`, and Redis 5 or newer. Each reservation and each settlement is one atomic
script over all windows, by the server's clock, so that processes never overshoot together and
their clocks do not matter. All keys begin with `{prefix}` and end up on one node of a cluster.

A server that does not answer within `timeout` seconds is left alone for PAUSE seconds; what the
budget does meanwhile is its `fail_open`. What it took before its answer came too late stays taken
until the window has passed, and stands for the call that went out unchecked.

Settlements of asyncio clients are sent by a thread, in order; `flush` waits for them.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from inspect import iscoroutinefunction
from typing import Any

from opentelemetry.instrumentation.utils import suppress_instrumentation

from otel_bedrock import shield
from otel_bedrock.budget_limit import expect
from otel_bedrock.budget_store import Refusal, Taken, Window, renew_in_child

PAUSE = 5.0

# Shared by both scripts. A window is a hash, slot -> tokens and `total`, and a list of its slots
# in their order. KEYS: hash and list of each window. ARGV: now, two numbers, then seconds, slot
# and one number of each window. Without a `now` it is the server's.
_COMMON = """
local now = tonumber(ARGV[1])
if not now then
  local t = redis.call('TIME')
  now = tonumber(t[1]) + tonumber(t[2]) / 1000000
end
-- Plus zero, for Lua writes minus zero as -0, which is no integer to Redis.
local function text(number) return string.format('%.0f', number + 0) end
local function leaves(slot, w) return (tonumber(slot) + 1) * w.slot + w.seconds end
local function window(i)
  return {hash = KEYS[2 * i - 1], list = KEYS[2 * i], seconds = tonumber(ARGV[3 * i + 1]),
          slot = tonumber(ARGV[3 * i + 2]), number = tonumber(ARGV[3 * i + 3])}
end
local function prune(w)
  while true do
    local first = redis.call('LINDEX', w.list, 0)
    if not first or leaves(first, w) > now then break end
    local gone = redis.call('HGET', w.hash, first) or '0'
    redis.call('HDEL', w.hash, first)
    redis.call('HINCRBY', w.hash, 'total', text(-tonumber(gone)))
    redis.call('LPOP', w.list)
  end
  return tonumber(redis.call('HGET', w.hash, 'total') or '0')
end
local function add(w, tokens)
  local slot = math.floor(now / w.slot)
  local last = redis.call('LINDEX', w.list, -1)
  if last and tonumber(last) > slot then slot = tonumber(last) end
  slot = text(slot)
  if slot ~= last then redis.call('RPUSH', w.list, slot) end
  redis.call('HINCRBY', w.hash, slot, text(tokens))
  redis.call('HINCRBY', w.hash, 'total', text(tokens))
  redis.call('EXPIRE', w.hash, w.seconds + 2 * w.slot)
  redis.call('EXPIRE', w.list, w.seconds + 2 * w.slot)
  return slot
end
"""

# ARGV: now, tokens, enforce; of each window seconds, slot, limit.
# Answer: the refusals (window, left, frees in microseconds or -1), then the slots.
_RESERVE = (
    _COMMON
    + """
local tokens, enforce = tonumber(ARGV[2]), ARGV[3] == '1'
local refusals, slots = {}, {}
for i = 1, #KEYS / 2 do
  local w = window(i)
  local total = prune(w)
  if total + tokens > w.number then
    local frees = -1
    if tokens <= w.number then
      local excess = total + tokens - w.number
      for _, slot in ipairs(redis.call('LRANGE', w.list, 0, -1)) do
        excess = excess - tonumber(redis.call('HGET', w.hash, slot) or '0')
        if excess <= 0 then
          frees = (leaves(slot, w) - now) * 1000000
          break
        end
      end
    end
    table.insert(refusals, {text(i - 1), text(math.max(0, w.number - total)), text(frees)})
  end
end
if #refusals > 0 and enforce then return {refusals, slots} end
for i = 1, #KEYS / 2 do table.insert(slots, add(window(i), tokens)) end
return {refusals, slots}
"""
)

# ARGV: now, reserved, spent; of each window seconds, slot, the slot of the reservation.
_SETTLE = (
    _COMMON
    + """
local more = tonumber(ARGV[3]) - tonumber(ARGV[2])
for i = 1, #KEYS / 2 do
  local w = window(i)
  prune(w)
  local slot = text(w.number)
  if more > 0 then
    add(w, more)
  elseif redis.call('HEXISTS', w.hash, slot) == 1 then
    redis.call('HINCRBY', w.hash, slot, text(more))
    redis.call('HINCRBY', w.hash, 'total', text(more))
  end
end
return 'OK'
"""
)


class StoreUnavailable(Exception):
    """Redis did not answer a moment ago, and is not asked again yet."""


class RedisStore:
    """The shared store.

    Args:
        redis: the URL of a server, or a client of redis-py (not an asyncio one).
        prefix: what all keys begin with; budgets with the same prefix share their counts.
        timeout: seconds that a call waits for the server at most, where `redis` is a URL.
        clock: time in seconds since the epoch, in place of the server's; for tests.

    Raises:
        ValueError: an argument is not what it should be, or redis-py is not installed.
    """

    blocks = True

    def __init__(
        self,
        redis: Any,
        *,
        prefix: str = "otel-bedrock:budget",
        timeout: float = 0.25,
        clock: Callable[[], float] | None = None,
    ) -> None:
        expect(isinstance(prefix, str), "prefix", "a text", repr(prefix))
        seconds = isinstance(timeout, (int, float)) and 0 < timeout < float("inf")
        expect(seconds, "timeout", "a number of seconds above 0", repr(timeout))
        usable = isinstance(redis, str) or _is_client(redis)
        what = "the URL of a server or a client of redis-py, not an asyncio one"
        expect(usable, "redis", what, repr(redis if isinstance(redis, type) else type(redis)))
        self._redis = _client(redis, timeout) if isinstance(redis, str) else redis
        self._prefix = "{" + prefix + "}"
        self._clock = clock
        self._reserve = self._redis.register_script(_RESERVE)
        self._settle = self._redis.register_script(_SETTLE)
        self._again = 0.0
        self.after_fork()
        renew_in_child(self)

    def after_fork(self) -> None:
        """Go on in a forked child, which has no thread; redis-py connects anew by itself."""
        self._sender: ThreadPoolExecutor | None = None
        self._sent: Future[None] | None = None
        self._lock = threading.Lock()

    def reserve(self, windows: Sequence[Window], tokens: int, enforce: bool) -> Taken:
        numbers = [(window.seconds, window.slot, window.limit) for window in windows]
        refusals, slots = self._run(self._reserve, windows, (tokens, int(enforce)), numbers)
        return Taken(
            tuple(int(slot) for slot in slots),
            tuple(
                Refusal(int(index), int(left), None if int(frees) < 0 else int(frees) / 1e6)
                for index, left, frees in refusals
            ),
        )

    def settle(
        self, windows: Sequence[Window], slots: Sequence[int], reserved: int, spent: int
    ) -> None:
        if asyncio._get_running_loop() is None:
            self._settle_now(windows, slots, reserved, spent)
            return
        with self._lock:
            if self._sender is None:
                self._sender = ThreadPoolExecutor(1, "otel-bedrock-budget")
            self._sent = self._sender.submit(self._settle_now, windows, slots, reserved, spent)

    def flush(self, timeout: float = 5.0) -> None:
        """Wait until the settlements of asyncio clients are sent."""
        sent = self._sent
        if sent is not None:
            sent.exception(timeout)

    def close(self) -> None:
        """Send what is left, and close the connections."""
        if self._sender is not None:
            self._sender.shutdown()
        self._redis.close()

    def _settle_now(
        self, windows: Sequence[Window], slots: Sequence[int], reserved: int, spent: int
    ) -> None:
        numbers = [
            (window.seconds, window.slot, slot) for window, slot in zip(windows, slots, strict=True)
        ]
        self._run(self._settle, windows, (reserved, spent), numbers)

    def _run(
        self,
        script: Any,
        windows: Sequence[Window],
        numbers: Sequence[int],
        of_windows: Sequence[tuple[int, ...]],
    ) -> Any:
        if time.monotonic() < self._again:
            raise StoreUnavailable
        keys = [
            f"{self._prefix}:{window.key}:{part}"
            for window in windows
            for part in ("tokens", "slots")
        ]
        now = "" if self._clock is None else repr(float(self._clock()))
        arguments = [now, *numbers, *(number for each in of_windows for number in each)]
        try:
            # Of our own making, and nobody's call.
            with suppress_instrumentation():
                return script(keys=keys, args=arguments)
        except Exception as error:
            if not shield.interrupts(error):
                self._again = time.monotonic() + PAUSE
            raise


def _is_client(value: Any) -> bool:
    """Tell whether a value is a client of redis-py that answers and does not await."""
    usable = not isinstance(value, type) and hasattr(value, "register_script")
    return usable and not iscoroutinefunction(value.execute_command)


def _client(url: str, timeout: float) -> Any:
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise ValueError(
            "store: redis is not installed: pip install 'otel-bedrock[redis]'"
        ) from None
    return redis.Redis.from_url(
        url,
        socket_timeout=timeout,
        socket_connect_timeout=timeout,
        retry=Retry(NoBackoff(), 0),
    )
