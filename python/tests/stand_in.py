"""`Limiter`: a RateLimiter with the methods that the clients need, where the native one has none
yet.

Every stand-in is here. With a native limiter that has `resume`, `Limiter` is that limiter itself.
"""

from __future__ import annotations

import asyncio
import functools
import math
import threading
import time
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from async_rate_limiter import Permit, RateLimiter

IS_NATIVE = hasattr(RateLimiter, "resume")


class _Limiter(RateLimiter):
    """Polls where the native limiter wakes waiters. A pause is kept here, so that it can be
    ended.
    """

    def __new__(cls, *args: Any, **keywords: Any) -> _Limiter:
        made = super().__new__(cls, *args, **keywords)
        made.clock = keywords.get("clock", time.monotonic_ns)
        made.paused_until = 0.0
        made.elsewhere = Counter()
        made.lock = threading.Lock()
        return made

    clock: Any
    paused_until: float
    elsewhere: Counter[str]
    lock: threading.Lock

    def run(self, function: Any, /, *args: Any, weight: int = 1, **kwargs: Any) -> Any:
        return RateLimiter.run(self, functools.partial(function, *args, **kwargs), weight=weight)

    async def acquire(self, *, weight: int = 1, timeout: Any = None) -> Permit:
        while True:
            while self.paused_for() > 0:
                await asyncio.sleep(0.001)
            permit = await super().acquire(weight=weight)
            if self.paused_for() <= 0:
                return permit
            permit.complete()

    def try_acquire(self, *, weight: int = 1) -> Permit | None:
        with self.lock:
            return None if self.paused_for() > 0 else super().try_acquire(weight=weight)

    def acquire_blocking(self, *, weight: int = 1, timeout: Any = None) -> Permit:
        while (permit := self.try_acquire(weight=weight)) is None:
            time.sleep(0.001)
        return permit

    def pause_for(self, pause: float | timedelta) -> None:
        seconds = pause.total_seconds() if isinstance(pause, timedelta) else pause
        ns = math.inf if seconds == math.inf else math.ceil(seconds * 1e9)
        self.paused_until = max(self.paused_until, self.clock() + ns)

    def resume(self) -> None:
        self.paused_until = 0.0

    def paused_for(self) -> float:
        left: float = (self.paused_until - self.clock()) / 1e9
        return max(0.0, left)

    def backoff(self) -> float:
        held = super().stats().held
        used_up = [each.per_ns for each in held if each.units >= each.rate]
        return min(used_up or [each.per_ns for each in held]) / 1e9

    def reconcile(self, limit: str, used: int) -> int:
        held = next(each for each in super().stats().held if each.limit == limit)
        completed = 0 if super().stats().running else held.units
        added = max(0, min(used, held.rate) - completed - self.elsewhere[limit])
        self.elsewhere[limit] += added
        return added

    def is_like_new(self) -> bool:
        stats = super().stats()
        holds = any(each.units for each in stats.held) or any(self.elsewhere.values())
        is_idle = not (stats.running or stats.queued or holds)
        return is_idle and self.paused_for() <= 0 and not self.closed


if TYPE_CHECKING:
    Limiter = _Limiter
else:
    Limiter = RateLimiter if IS_NATIVE else _Limiter


def units(limiter: RateLimiter, position: int = 0) -> int:
    """The units held of a limit, by this and by other clients."""
    held = limiter.stats().held[position]
    elsewhere: int = getattr(limiter, "elsewhere", {}).get(held.limit, 0)
    return held.units + elsewhere
