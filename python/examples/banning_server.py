"""An aiohttp client against a server that bans for good at the first call too many.

The server keeps a log of when it saw each call, at a moment of its own choosing while it works on
it, as real ones do. Needs aiohttp. Everything happens on this machine.
"""

import asyncio
import random
import time
from collections import deque
from datetime import timedelta

from aiohttp import ClientSession, web
from async_rate_limiter import RateLimiter

RATE = 20
PER = timedelta(milliseconds=100)
CALLS = 120


class Server:
    """A sliding log of what it has seen, and no mercy."""

    def __init__(self) -> None:
        self.seen: deque[float] = deque()
        self.banned = False
        self.fullest = 0

    async def answer(self, _: web.Request) -> web.Response:
        await asyncio.sleep(random.uniform(0, 0.004))
        now = time.monotonic()
        self.seen.append(now)
        while self.seen[0] < now - PER.total_seconds():
            self.seen.popleft()
        self.fullest = max(self.fullest, len(self.seen))
        self.banned |= len(self.seen) > RATE
        await asyncio.sleep(random.uniform(0, 0.002))
        return web.Response(status=429 if self.banned else 200)


async def main() -> None:
    server = Server()
    app = web.Application()
    app.router.add_get("/", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]

    limiter = RateLimiter(RATE, PER, concurrency=8)
    statuses: list[int] = []
    async with ClientSession() as session:

        async def call() -> int:
            async with limiter, session.get(f"http://{host}:{port}/") as response:
                await response.read()
                return response.status

        begin = time.monotonic()
        statuses = await asyncio.gather(*(call() for _ in range(CALLS)))
        took = time.monotonic() - begin
    await runner.cleanup()
    refused = sum(status == 429 for status in statuses)
    print(
        f"{CALLS} calls in {took:.2f} s, {refused} refused; "
        f"the server never saw more than {server.fullest} in {PER.total_seconds()} s (limit {RATE})"
    )
    assert refused == 0


asyncio.run(main())
