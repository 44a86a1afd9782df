"""Inputs without end, read as the limiter lets them: `map_inputs` keeps a bounded number in
flight.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import count

from async_rate_limiter import RateLimiter, gather_inputs, map_inputs

limiter = RateLimiter(20, timedelta(milliseconds=50), concurrency=4)


async def fetch(page: int) -> list[str]:
    await asyncio.sleep(0.002)
    return [f"item {item} of page {page}" for item in range(3)] if page < 50 else []


async def main() -> None:
    # How many pages there are is known when an empty one comes.
    items: list[str] = []
    async for page in map_inputs(limiter, fetch, count()):
        if not page:
            break
        items += page
    print(len(items), "items, the last:", items[-1])

    def progress(done: int, total: int | None) -> None:
        if done == total:
            print(done, "of", total)

    first = await gather_inputs(limiter, fetch, range(10), on_progress=progress)
    print(sum(map(len, first)), "items of the first ten pages")
    await limiter.drained()


asyncio.run(main())
