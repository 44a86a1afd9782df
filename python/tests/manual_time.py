"""An event loop whose time stands still until nothing is left to do: then it jumps."""

from __future__ import annotations

import asyncio
import functools
import math
import selectors
from typing import Any, Awaitable, Callable, TypeVar

from async_rate_limiter import RateLimiter, WeightedRateLimiter

SECOND = 1_000_000_000
MILLISECOND = 1_000_000

T = TypeVar("T")


class ManualLoop(asyncio.SelectorEventLoop):
    """A loop on a clock of its own, in nanoseconds."""

    def __init__(self, lateness: Callable[[], int] = lambda: 0) -> None:
        self.now_ns = 0
        self.lateness = lateness
        self.failures: list[dict[str, Any]] = []
        super().__init__(_Selector(self))
        self._clock_resolution = 1e-9
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self.now_ns / 1e9

    def clock(self) -> int:
        return self.now_ns

    def advance(self, ns: int) -> None:
        """Time passes while the loop is busy, as in a task that never awaits."""
        self.now_ns += ns


class _Selector(selectors.SelectSelector):
    """Instead of waiting, it lets the loop's time pass."""

    def __init__(self, loop: ManualLoop) -> None:
        super().__init__()
        self.loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everything waits for something that will never happen")
        if timeout > 0:
            self.loop.now_ns += math.ceil(timeout * 1e9) + self.loop.lateness()
        return super().select(0)


def loop() -> ManualLoop:
    """The loop that runs now."""
    running = asyncio.get_running_loop()
    assert isinstance(running, ManualLoop)
    return running


def limiter(*args: Any, **keywords: Any) -> RateLimiter:
    """A limiter in the time of the loop that runs now."""
    return RateLimiter(*args, clock=loop().clock, **keywords)


def weighted(*args: Any, **keywords: Any) -> WeightedRateLimiter:
    """The same, by weight."""
    return WeightedRateLimiter(*args, clock=loop().clock, **keywords)


def run(main: Callable[[], Awaitable[T]], lateness: Callable[[], int] = lambda: 0) -> T:
    """Runs to the end in manual time, and closes the loop."""
    manual = ManualLoop(lateness)
    try:
        return manual.run_until_complete(_as_coroutine(main()))
    finally:
        manual.close()


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    return await awaitable


def in_manual_time(test: Callable[[Any], Awaitable[None]]) -> Callable[[Any], None]:
    """A test method that is a coroutine function, run in manual time."""

    @functools.wraps(test)
    def method(self: Any) -> None:
        run(lambda: test(self))

    return method


async def settle(turns: int = 5) -> None:
    """Lets the loop turn, at the same time."""
    for _ in range(turns):
        await asyncio.sleep(0)
