"""What a call costs, beside the library this one began from and beside aiolimiter.

    pip install ./python
    pip install --target target/peers -r python/bench/requirements.txt
    python python/bench/cost.py target/peers

The peers live in a folder of their own, because the original's package has our package's name.

All sides run in this one process, in turn, round after round; a figure is the median of its rounds,
a ratio the median of the ratios within each round. Compare ratios: nanoseconds are this machine's.
"""

from __future__ import annotations

import asyncio
import importlib
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Awaitable, Callable

from async_rate_limiter import RateLimiter, WeightedRateLimiter

ROUNDS = 31
CALLS = 20_000
WAITING = 1_000_000
NEVER = 10**9  # a rate per second that never limits


def original(peers: Path) -> tuple[Any, Any]:
    """The original's classes. Its modules import one another by bare names: only with its own
    folder on the path can they be imported."""
    sys.path.insert(0, str(peers / "async_rate_limiter"))
    limiters = (
        importlib.import_module("RateLimiter").RateLimiter,
        importlib.import_module("WeightedRateLimiter").WeightedRateLimiter,
    )
    sys.path.pop(0)
    return limiters


def function() -> None:
    """A task of no length."""


async def coroutine() -> None:
    """A task of no length, to be awaited."""


async def pushes(limiter: Any, task: Callable[[], Any]) -> float:
    push = limiter.push
    begin = time.perf_counter_ns()
    for _ in range(CALLS):
        await push(task)
    return (time.perf_counter_ns() - begin) / CALLS


async def weighted_pushes(limiter: Any, task: Callable[[], Any]) -> float:
    push = limiter.push
    begin = time.perf_counter_ns()
    for _ in range(CALLS):
        await push(task, 3)
    return (time.perf_counter_ns() - begin) / CALLS


async def blocks(limiter: Any) -> float:
    begin = time.perf_counter_ns()
    for _ in range(CALLS):
        async with limiter:
            pass
    return (time.perf_counter_ns() - begin) / CALLS


async def blocks_in_order(limiter: Any, lock: asyncio.Lock) -> float:
    begin = time.perf_counter_ns()
    for _ in range(CALLS):
        async with lock, limiter:
            pass
    return (time.perf_counter_ns() - begin) / CALLS


Side = Callable[[], Awaitable[float]]


async def compare(name: str, aim: float, ours: Side, theirs: Side) -> None:
    figures = [(await ours(), await theirs()) for _ in range(ROUNDS)]
    ratios = sorted(mine / other for mine, other in figures)
    mine, other = (statistics.median(side) for side in zip(*figures))
    ratio, low, high = statistics.median(ratios), ratios[ROUNDS // 10], ratios[-1 - ROUNDS // 10]
    print(
        f"{name:<60} {mine:6.0f} ns {other:6.0f} ns   {ratio:4.2f} "
        f"({low:4.2f} to {high:4.2f}), aim {aim:4.2f}"
    )


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def memory() -> None:
    limiter = RateLimiter(1, per_ns=3_600_000_000_000)
    await limiter.push(function)
    before = resident()
    for _ in range(WAITING):
        await limiter.push(function)
    grown = (resident() - before) / WAITING
    assert limiter.stats().queued == WAITING
    print(f"{f'memory of each of {WAITING:,} queued pushes':<60} {grown:6.0f} bytes, aim 200")
    limiter.abort()


async def utilisation(per_ns: int, windows: int) -> None:
    """What is left of a full window every period: the loop's timers come late."""
    rate = 20
    limiter = RateLimiter(rate, per_ns)
    begin = time.perf_counter_ns()
    for _ in range(rate * (windows + 1)):
        await limiter.push(function)
    await limiter.drained()
    took = time.perf_counter_ns() - begin
    name = f"utilisation of {rate} tasks in {per_ns / 1e6:,.0f} ms, over {windows} windows"
    print(f"{name:<60} {windows * per_ns / took:9.3f}")


async def main(peers: Path) -> None:
    Original, WeightedOriginal = original(peers)
    sys.path.append(str(peers))
    aiolimiter = importlib.import_module("aiolimiter")
    print(f"{'':<60} {'ours':>9} {'theirs':>9}   ratio (10 % to 90 %)")
    for kind, task, aim in [("function", function, 0.25), ("coroutine", coroutine, 0.5)]:
        # While the original's window fills, and once it is full of what has expired.
        for state, rate, per_ns in [("filling", NEVER, 10**9), ("full", 1000, 1)]:
            await compare(
                f"push of a {kind}, window {state}, beside the original",
                aim,
                lambda: pushes(RateLimiter(rate, per_ns), task),
                lambda: pushes(Original(rate, per_ns), task),
            )
    await compare(
        "push of a function by weight, beside the original",
        0.25,
        lambda: weighted_pushes(WeightedRateLimiter(NEVER, 10**9), function),
        lambda: weighted_pushes(WeightedOriginal(NEVER, 10**9), function),
    )
    await compare(
        "async with, beside aiolimiter and asyncio.Lock",
        0.25,
        lambda: blocks(RateLimiter(NEVER, 10**9)),
        lambda: blocks_in_order(aiolimiter.AsyncLimiter(NEVER, 1), asyncio.Lock()),
    )
    await memory()
    for per_ns, windows in [(10**9, 3), (100_000_000, 20), (10_000_000, 100)]:
        await utilisation(per_ns, windows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    asyncio.run(main(Path(sys.argv[1])))
