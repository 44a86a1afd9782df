"""One limiter for each thing to protect; a limiter may have several limits, too."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

from async_rate_limiter import RateLimiter

# The API bans whoever exceeds either; the database only minds how many write at once.
api = RateLimiter(limits=["5/100ms", "12/1s"])
database = RateLimiter(100, per=timedelta(seconds=1), concurrency=2)


@api
async def fetch(number: int) -> str:
    await asyncio.sleep(0.001)
    return f"page {number}"


@database
async def store(page: str) -> None:
    await asyncio.sleep(0.005)
    print("stored", page)


async def both(number: int) -> None:
    await store(await fetch(number))


async def main() -> None:
    # Whatever was accepted is done before the block is left, and the program with it.
    async with AsyncExitStack() as stack:
        for limiter in (api, database):
            stack.push_async_callback(limiter.aclose)
        await asyncio.gather(*(both(number) for number in range(12)))
    print(api.stats())
    print(database.stats())


asyncio.run(main())
