"""A rate limiter for asyncio that never breaks its limit.

No interval of length ``per`` ever contains more than ``rate`` tasks, at whatever moment between
its start and its end the server counts each: a strict sliding window, counted from completion, one
task at a time by default, first in, first out.

    limiter = RateLimiter(10, timedelta(seconds=1))
    done = await limiter.push(work)      # True: it ran at once; False: it was queued
    answer = await limiter.run(work)     # waits its turn
    async with limiter: ...              # the block is the task

A `KeyedRateLimiter` has a limiter for each key; `map_inputs` calls a function for each of many
inputs. The modules `httpx`, `aiohttp` and `requests` of this package keep the clients of these
names within a limit; each needs the library it is named after.
"""

from ._keyed import KeyedRateLimiter
from ._map import gather_inputs, map_inputs
from ._native import (
    Aborted,
    Closed,
    DeadlineExceeded,
    Event,
    Held,
    Permit,
    QueueFull,
    RateLimiter,
    RateLimiterError,
    Stats,
    WeightedRateLimiter,
    WouldDeadlock,
    __version__,
)
from ._pauses import PauseTooLong

__all__ = [
    "Aborted",
    "Closed",
    "DeadlineExceeded",
    "Event",
    "Held",
    "KeyedRateLimiter",
    "PauseTooLong",
    "Permit",
    "QueueFull",
    "RateLimiter",
    "RateLimiterError",
    "Stats",
    "WeightedRateLimiter",
    "WouldDeadlock",
    "__version__",
    "gather_inputs",
    "map_inputs",
]
