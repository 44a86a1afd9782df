"""Tokens a minute: reserve what a call may take, and say what it took."""

import asyncio
from functools import partial

from async_rate_limiter import RateLimiter, WeightedRateLimiter

# At most 1,000 bytes in any 100 ms.
bytes_sent = WeightedRateLimiter(allowed_weight=1000, per_ns=100_000_000)

# 20 requests and 9,000 tokens in any 100 ms, both.
model = RateLimiter(limits=["20/100ms", "9000w/100ms"])


async def ask(question: str) -> int:
    reserved = 4000
    async with model.weight(reserved) as permit:
        await asyncio.sleep(0.002)
        # What is left of the reservation is free at once. Had it been more, later calls would wait.
        permit.actual = 100 * len(question)
        return permit.actual


async def main() -> None:
    for size in (200, 400, 700, 300):
        ran = await bytes_sent.push(partial(print, "sent", size, "bytes"), size)
        print(size, "ran at once" if ran else "queued")
    questions = ["why?", "how long?", "and then?", "says who?"]
    print("tokens used:", await asyncio.gather(*map(ask, questions)))
    await bytes_sent.drained()


asyncio.run(main())
