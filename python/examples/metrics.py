"""Metrics of limiters by `stats()`, in the text format that Prometheus reads, without a library.

Serve the text at `/metrics`, or set the gauges of a library from the same numbers.
"""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta

from async_rate_limiter import KeyedRateLimiter, RateLimiter, Stats


def metrics(stats: Mapping[str, Stats]) -> Iterable[str]:
    """Lines of text for each limiter, by its name."""
    yield "# TYPE limiter_running gauge"
    for name, each in stats.items():
        yield f'limiter_running{{limiter="{name}"}} {each.running}'
    yield "# TYPE limiter_queued gauge"
    for name, each in stats.items():
        yield f'limiter_queued{{limiter="{name}"}} {each.queued}'
    yield "# TYPE limiter_completed_total counter"
    for name, each in stats.items():
        yield f'limiter_completed_total{{limiter="{name}"}} {each.completed}'
    yield "# TYPE limiter_used_ratio gauge"
    for name, each in stats.items():
        for held in each.held:
            labels = f'limiter="{name}",limit="{held.limit}"'
            yield f"limiter_used_ratio{{{labels}}} {held.units / held.rate:.3f}"


async def main() -> None:
    api = RateLimiter(limits=["20/1s", "900w/1s"], concurrency=2)
    users: KeyedRateLimiter[str] = KeyedRateLimiter(5, timedelta(seconds=1))
    for weight in (100, 350):
        async with api.weight(weight):
            pass
    for user in ("alice", "bob", "alice"):
        async with users[user]:
            pass
    await api.push(lambda: None)
    print(*metrics({"api": api.stats(), **users.stats()}), sep="\n")


asyncio.run(main())
