"""A limiter in plain Python that limits nothing, to tell CPython's own faults from the package's.

It has the names of the package, and calls what that would call: `--stand-in` puts it there.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import Any


class RateLimiterError(RuntimeError): ...


class Stats:
    running = queued = completed = 0
    next_opening = None


class Held: ...


class Permit:
    excess = 0
    actual: Any = None

    def __init__(self, limiter: Any = None, weight: int = 1) -> None:
        self.limiter, self.weight, self.held = limiter, weight, limiter is not None

    def complete(self, actual: Any = None) -> int:
        if self.held:
            self.held = False
            self.limiter.clock()
        return 0

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.complete()

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.complete()

    def __del__(self) -> None:
        self.complete()


class RateLimiter:
    concurrency = 1

    def __init__(self, rate: Any = None, per_ns: Any = None, **names: Any) -> None:
        self.limits = list(names.get("limits", ()))
        self.clock = names.get("clock", time.monotonic_ns)
        self.on_error = names.get("on_error")

    async def run(self, task: Any, weight: Any = 1) -> Any:
        self.clock()
        answer = task()
        return await answer if inspect.isawaitable(answer) else answer

    async def push(self, task: Any, estimated_weight: Any = 1) -> Any:
        await self.run(task)
        return True

    async def acquire(self, weight: Any = 1) -> Any:
        await asyncio.sleep(0)
        return Permit(self, weight)

    def try_acquire(self, weight: Any = 1) -> Any:
        return Permit(self, weight)

    weight = try_acquire

    async def __aenter__(self) -> None:
        await asyncio.sleep(0)

    async def __aexit__(self, *_: object) -> None: ...

    async def drained(self) -> None:
        await asyncio.sleep(0)

    aclose = drained

    def __call__(self, function: Any = None, *, weight: Any = 1) -> Any:
        return function

    def close(self) -> None: ...

    def abort(self) -> Any:
        return []

    def stats(self) -> Any:
        return Stats()


class WeightedRateLimiter(RateLimiter): ...
