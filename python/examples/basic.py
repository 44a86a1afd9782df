"""Push work; it runs at once where it may, else in its turn, and never too often."""

import asyncio
from datetime import timedelta

from async_rate_limiter import RateLimiter

begin = 0.0


async def work() -> None:
    print(f"did work after {asyncio.get_running_loop().time() - begin:4.2f} s")


async def main() -> None:
    global begin
    begin = asyncio.get_running_loop().time()
    limiter = RateLimiter(3, timedelta(milliseconds=200))
    for _ in range(8):
        ran = await limiter.push(work)
        print("ran at once" if ran else "queued")
    answer = await limiter.run(lambda: "an answer, in its turn")
    print(answer)
    await limiter.drained()


asyncio.run(main())
