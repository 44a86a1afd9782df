"""Requests and tokens a minute, against a server that bans for good at the first unit too many.

How many tokens a call takes is known when it is answered. So each call reserves an estimate, and
the transport settles it by the `usage` of the answer: what was not used is free at once. Needs
httpx and aiohttp (for the server). The minute is 200 ms here, and everything happens on this
machine.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque

import httpx
from aiohttp import web
from async_rate_limiter import RateLimiter
from async_rate_limiter.httpx import AsyncRateLimitTransport

MINUTE = 0.2
REQUESTS = 20
TOKENS = 9000
MAX_TOKENS = 400
QUESTIONS = [f"question {number}: {'why? ' * (number % 40)}" for number in range(80)]


class Server:
    """A model. It counts requests as they come and tokens as it answers, and has no mercy."""

    def __init__(self) -> None:
        self.requests: deque[tuple[float, int]] = deque()
        self.tokens: deque[tuple[float, int]] = deque()
        self.banned = False

    def count(self, log: deque[tuple[float, int]], units: int, limit: int) -> None:
        now = time.monotonic()
        log.append((now, units))
        while log[0][0] < now - MINUTE:
            log.popleft()
        self.banned |= sum(units for _, units in log) > limit

    async def answer(self, request: web.Request) -> web.Response:
        question = await request.json()
        self.count(self.requests, 1, REQUESTS)
        await asyncio.sleep(random.uniform(0, 0.01))
        words = len(question["prompt"].split())
        tokens = words + random.randint(0, min(300, question["max_tokens"]))
        self.count(self.tokens, tokens, TOKENS)
        if self.banned:
            return web.json_response({"error": "too many"}, status=429)
        return web.json_response({"text": "because", "usage": {"total_tokens": tokens}})


def estimate(request: httpx.Request) -> int:
    """The most tokens that a call may take: those of the question, at most one a byte, and of the
    answer.
    """
    return len(request.content) + MAX_TOKENS


def used(response: httpx.Response) -> int | None:
    """The tokens that the call has taken. A refusal does not tell: then all that was reserved
    counts.
    """
    usage: int | None = response.json().get("usage", {}).get("total_tokens")
    return usage


async def main() -> None:
    server = Server()
    app = web.Application()
    app.router.add_post("/", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]

    limits = [f"{REQUESTS}/200ms", f"{TOKENS}w/200ms"]
    limiter = RateLimiter(limits=limits, concurrency=10)
    transport = AsyncRateLimitTransport(limiter, weight=estimate, actual=used)
    refused = tokens = reserved = 0
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}:{port}") as client:

        async def ask(question: str) -> httpx.Response:
            return await client.post("/", json={"prompt": question, "max_tokens": MAX_TOKENS})

        begin = time.monotonic()
        answers = await asyncio.gather(*map(ask, QUESTIONS))
        took = time.monotonic() - begin
    for response in answers:
        refused += response.status_code == 429
        reserved += estimate(response.request)
        tokens += used(response) or 0
    await runner.cleanup()
    print(
        f"{len(answers)} calls in {took:.2f} s, {refused} refused; "
        f"{tokens} tokens used of {reserved} reserved"
    )
    assert refused == 0


asyncio.run(main())
