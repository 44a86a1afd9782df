"""One limiter for the clients of several threads and loops. Time is real here."""

from __future__ import annotations

import asyncio
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor

from async_rate_limiter import PauseTooLong, RateLimiter

from .clients import CLIENTS, Client, for_each_client
from .manual_time import SECOND
from .server import Server


class ThreadsAndLoops(unittest.TestCase):
    def test_all_clients_in_all_threads_keep_one_limit(self) -> None:
        per = 0.05
        server = Server(rate=10, per=per)
        self.addCleanup(server.close)
        limiter = RateLimiter(10, int(per * SECOND), concurrency=4)

        async def send(kind: type[Client]) -> list[int]:
            client = kind(limiter)
            replies = await asyncio.gather(*(client.get(server.url()) for _ in range(8)))
            await client.close()
            return [reply.status for reply in replies]

        kinds = 2 * CLIENTS
        with ThreadPoolExecutor(len(kinds) or 1) as threads:
            statuses = list(threads.map(lambda kind: asyncio.run(send(kind)), kinds))
        self.assertEqual(statuses, [[200] * 8] * len(kinds))
        self.assertLessEqual(server.most, 10)
        self.assertEqual((limiter.stats().running, limiter.stats().queued), (0, 0))

    @for_each_client
    async def test_a_request_of_another_loop_is_told_of_a_pause_that_is_too_long(
        self, kind: type[Client]
    ) -> None:
        if kind.blocks:
            return  # Threads wait on, as is documented.
        server = Server()
        self.addCleanup(server.close)
        limiter = RateLimiter(limits=["99/1s"], concurrency=1)
        client = kind(limiter)
        told: list[BaseException] = []

        # One client has one loop, so the other loop has a client of its own.
        async def wait_elsewhere() -> None:
            other = kind(limiter)
            try:
                await other.get(server.url())
            except PauseTooLong as error:
                told.append(error)
            await other.close()

        url = server.url({"wait": "", "status": 429, "retry-after": 99999})
        first = asyncio.ensure_future(client.get(url))
        while limiter.stats().running == 0:
            await asyncio.sleep(0.001)
        thread = threading.Thread(target=lambda: asyncio.run(wait_elsewhere(), debug=True))
        thread.start()
        while limiter.stats().queued == 0:
            await asyncio.sleep(0.001)
        server.leave.release()
        self.assertEqual((await first).status, 429)
        await asyncio.to_thread(thread.join, 10)
        await client.close()
        self.assertEqual(len(told), 1)
