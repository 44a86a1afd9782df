"""What a call costs, beside the library this one began from, aiolimiter and pyrate-limiter.

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
import importlib.util
import resource
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
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


def blocks_of_threads(limiter: Any) -> float:
    begin = time.perf_counter_ns()
    for _ in range(CALLS):
        with limiter:
            pass
    return (time.perf_counter_ns() - begin) / CALLS


def blocking_acquires(limiter: Any) -> float:
    calls = CALLS // 10
    begin = time.perf_counter_ns()
    for _ in range(calls):
        limiter.try_acquire("name")
    return (time.perf_counter_ns() - begin) / calls


def on_another_loop(make: Callable[[], asyncio.AbstractEventLoop]) -> float:
    """Pushes on a loop of this kind, in a thread of its own."""

    def run() -> float:
        loop = make()
        try:
            return loop.run_until_complete(pushes(RateLimiter(NEVER, 10**9), function))
        finally:
            loop.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


async def pushes_while_others_run(running: int) -> float:
    """Pushes of a function while so many pushed tasks run."""
    limiter = RateLimiter(NEVER, 10**9, concurrency=2 * running + 1)
    end = asyncio.Event()
    limiter.pause_for(0.001)
    for _ in range(running):
        await limiter.push(end.wait)
    while limiter.stats().queued or limiter.paused_for() > 0:
        await asyncio.sleep(0.001)
    took = await pushes(limiter, function)
    end.set()
    await limiter.drained()
    return took


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
        for state, rate, per_ns in [("filling", NEVER, 10**9), ("full", 1000, 1000)]:
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
    pyrate = importlib.import_module("pyrate_limiter")

    async def later(function: Callable[..., float], *arguments: Any) -> float:
        return function(*arguments)

    await compare(
        "with, in a thread, beside pyrate-limiter's blocking acquire",
        0.25,
        lambda: later(blocks_of_threads, RateLimiter(NEVER, 10**9)),
        lambda: later(
            blocking_acquires, pyrate.Limiter(pyrate.Rate(10**6, pyrate.Duration.SECOND))
        ),
    )
    if importlib.util.find_spec("uvloop") is not None:
        uvloop = importlib.import_module("uvloop")
        await compare(
            "push of a function on uvloop, beside the same on asyncio",
            1.3,
            lambda: later(on_another_loop, uvloop.new_event_loop),
            lambda: later(on_another_loop, asyncio.new_event_loop),
        )
    await compare(
        "push of a function while 50,000 run, beside while none runs",
        1.5,
        lambda: pushes_while_others_run(50_000),
        lambda: pushes_while_others_run(0),
    )
    await memory()
    for per_ns, windows in [(10**9, 3), (100_000_000, 20), (10_000_000, 100)]:
        await utilisation(per_ns, windows)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    asyncio.run(main(Path(sys.argv[1])))
