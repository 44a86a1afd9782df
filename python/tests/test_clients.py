"""What every HTTP client does with its limiter. The limiter's clock is manual, the network is
real.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import unittest
from datetime import timedelta
from typing import Any
from unittest import mock

from async_rate_limiter import KeyedRateLimiter, RateLimiter

from .clients import Client, Clients, for_each_client, until
from .manual_time import MILLISECOND, SECOND
from .server import Server

PER = 10 * MILLISECOND


class Permits(Clients):
    @for_each_client
    async def test_each_request_takes_a_permit_until_the_head_of_its_response(
        self, kind: type[Client]
    ) -> None:
        limiter = self.limiter("5/10ms")
        async with self.client(kind, limiter) as client:
            sent = asyncio.ensure_future(client.get(self.server.url({"wait": ""})))
            await until(lambda: limiter.stats().running == 1)
            self.server.leave.release()
            self.assertEqual(await sent, (200, "answer"))
            self.assertEqual((limiter.stats().running, limiter.stats().completed), (0, 1))
            opened = await client.open(self.server.url({"then": ""}))
            self.assertEqual((limiter.stats().running, limiter.stats().completed), (0, 2))
            self.server.pieces.put(b"one")
            self.server.pieces.put(None)
            self.assertEqual(await client.read(opened), "one")

    @for_each_client
    async def test_a_request_waits_for_its_permit(self, kind: type[Client]) -> None:
        limiter = self.limiter("5/10ms", concurrency=1)
        async with self.client(kind, limiter) as client:
            first = asyncio.ensure_future(client.get(self.server.url({"wait": ""})))
            await until(lambda: len(self.server.seen) > 0)
            second = asyncio.ensure_future(client.get(self.server.url(path="/second")))
            await asyncio.sleep(0.02)
            self.assertEqual(len(self.server.seen), 1)
            self.server.leave.release()
            await asyncio.gather(first, second)
            self.assertEqual(self.server.seen.pop(), "GET /second")
            self.server.seen.clear()

    @for_each_client
    async def test_redirects_take_permits_of_their_own(self, kind: type[Client]) -> None:
        limiter = self.limiter("9/10ms", concurrency=1)
        self.server.seen.clear()
        async with self.client(kind, limiter, complete_on="body") as client:
            url = self.server.url({"status": 302, "location": "/next?body=there"})
            self.assertEqual(await client.get(url), (200, "there"))
            self.assertEqual(self.server.seen, ["GET /", "GET /next"])
            self.assertEqual((limiter.stats().running, limiter.stats().completed), (0, 2))

    @for_each_client
    async def test_the_request_is_sent_as_it_is(self, kind: type[Client]) -> None:
        limiter = self.limiter("9w/10ms")
        self.server.seen.clear()
        async with self.client(kind, limiter, weight=lambda request: 4) as client:
            await client.get(self.server.url(path="/to"), "POST", content="a body")
            self.assertEqual(self.server.seen, ["POST /to a body"])
            self.assertEqual(limiter.stats().held[0].units, 4)
            await client.get(self.server.url(), "HEAD")
            self.assertEqual(limiter.stats().held[0].units, 8)
        async with self.client(kind, limiter, weight=10) as client:
            with self.assertRaisesRegex(ValueError, "weight 10"):
                await client.get(self.server.url())
        self.assertEqual((limiter.stats().held[0].units, limiter.stats().running), (8, 0))

    @for_each_client
    async def test_a_request_that_fails_has_completed(self, kind: type[Client]) -> None:
        limiter = self.limiter("9/10ms", abandon_grace=timedelta(milliseconds=10))
        other = Server()
        other.close()
        async with self.client(kind, limiter) as client:
            with self.assertRaises(kind.no_server):
                await client.get(other.url())
            self.assertEqual((limiter.stats().running, limiter.stats().completed), (0, 1))

    @for_each_client
    async def test_a_request_that_times_out_has_its_grace(self, kind: type[Client]) -> None:
        limiter = self.limiter("9/10ms", abandon_grace=timedelta(milliseconds=10))
        async with self.client(kind, limiter) as client:
            with self.assertRaises(kind.timeout):
                await client.get(self.server.url({"hang": ""}), timeout=0.05)
            self.assertEqual((limiter.stats().running, limiter.stats().completed), (1, 0))
            self.clock.now_ns += PER + 1
            self.assertEqual((limiter.stats().running, limiter.stats().completed), (0, 1))

    @for_each_client
    async def test_a_request_that_is_cancelled_has_its_grace(self, kind: type[Client]) -> None:
        if kind.blocks:
            return  # A thread cannot be cancelled.
        limiter = self.limiter("9/10ms", abandon_grace=timedelta(milliseconds=10), concurrency=1)
        async with self.client(kind, limiter) as client:
            sent = asyncio.ensure_future(client.get(self.server.url({"hang": ""})))
            await until(lambda: limiter.stats().running == 1)
            waiting = asyncio.ensure_future(client.get(self.server.url()))
            await until(lambda: limiter.stats().queued == 1)
            for each in (waiting, sent):
                each.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await each
            self.assertEqual((limiter.stats().running, limiter.stats().queued), (1, 0))
            self.clock.now_ns += PER + 1
            self.assertEqual((limiter.stats().running, limiter.stats().completed), (0, 1))


class Bodies(Clients):
    @for_each_client
    async def test_the_permit_may_be_held_to_the_end_of_the_body(self, kind: type[Client]) -> None:
        limiter = self.limiter("9/10ms")
        async with self.client(kind, limiter, complete_on="body") as client:
            opened = await client.open(self.server.url({"then": ""}))
            self.server.pieces.put(b"one")
            await asyncio.sleep(0.01)
            self.assertEqual((limiter.stats().running, limiter.stats().completed), (1, 0))
            self.server.pieces.put(b" two")
            self.server.pieces.put(None)
            self.assertEqual(await client.read(opened), "one two")
            self.assertEqual((limiter.stats().running, limiter.stats().completed), (0, 1))

    @for_each_client
    async def test_an_empty_body_has_ended_with_its_head(self, kind: type[Client]) -> None:
        limiter = self.limiter("9/10ms")
        async with self.client(kind, limiter, complete_on="body") as client:
            for query in ({"body": ""}, {"status": 204, "body": ""}):
                opened = await client.open(self.server.url(query))
                self.assertEqual(limiter.stats().running, 0)
                self.assertEqual(await client.read(opened), "")
            self.assertEqual((await client.get(self.server.url(), "HEAD")).text, "")
            self.assertEqual((limiter.stats().running, limiter.stats().completed), (0, 3))

    @for_each_client
    async def test_a_body_that_is_dropped_before_its_end_has_its_grace(
        self, kind: type[Client]
    ) -> None:
        # Of its own: a handler may leave pieces of a body that was dropped.
        server = Server()
        self.addCleanup(server.close)
        limiter = self.limiter("9/10ms", abandon_grace=timedelta(milliseconds=10))
        async with self.client(kind, limiter, complete_on="body") as client:
            opened = await client.open(server.url({"then": ""}))
            server.pieces.put(b"one")
            await client.drop(opened)
            del opened
            server.pieces.put(None)
            self.assertEqual((limiter.stats().running, limiter.stats().completed), (1, 0))
            self.clock.now_ns += PER + 1
            self.assertEqual((limiter.stats().running, limiter.stats().completed), (0, 1))

    @for_each_client
    async def test_a_body_that_fails_ends_the_permit(self, kind: type[Client]) -> None:
        # Of its own: a handler may leave pieces of a body that was dropped.
        server = Server()
        self.addCleanup(server.close)
        limiter = self.limiter("9/10ms")
        async with self.client(kind, limiter, complete_on="body") as client:
            opened = await client.open(server.url({"then": ""}))
            server.pieces.put(b"one")
            server.pieces.put(b"fail")
            with self.assertRaises(Exception):  # noqa: B017
                await client.read(opened)
            self.assertEqual((limiter.stats().running, limiter.stats().completed), (0, 1))

    @for_each_client
    async def test_the_response_may_tell_the_actual_weight(self, kind: type[Client]) -> None:
        limiter = self.limiter("100w/10ms")

        def actual(response: Any) -> int | None:
            used = response.headers.get("x-used")
            return None if used is None else int(used)

        options = {"weight": 40, "actual": actual}
        async with self.client(kind, limiter, **options) as client:
            self.assertEqual(await client.get(self.server.url({"x-used": "7"})), (200, "answer"))
            self.assertEqual(limiter.stats().held[0].units, 7)
            self.assertEqual((await client.get(self.server.url())).text, "answer")
            self.assertEqual(limiter.stats().held[0].units, 47)
            self.clock.now_ns += 2 * PER
            sent = asyncio.ensure_future(client.get(self.server.url({"then": "", "x-used": "7"})))
            self.server.pieces.put(b"one")
            await until(lambda: limiter.stats().running == 1)
            await asyncio.sleep(0.02)
            self.assertEqual(limiter.stats().held[0].units, 40, "its body is still to come")
            self.server.pieces.put(None)
            self.assertEqual(await sent, (200, "one"))
            self.assertEqual(limiter.stats().held[0].units, 7)

    @for_each_client
    async def test_a_function_that_fails_ends_the_permit(self, kind: type[Client]) -> None:
        def fails(_: Any) -> None:
            raise ZeroDivisionError

        options: list[dict[str, Any]] = [{"actual": fails}, {"hook": fails}]
        for number, option in enumerate(options):
            limiter = self.limiter("9/10ms", abandon_grace=timedelta(milliseconds=10))
            async with self.client(kind, limiter, complete_on="body", **option) as client:
                with self.assertRaises(ZeroDivisionError):
                    await client.get(self.server.url({"status": 429, "retry-after": 9}))
                self.assertEqual((limiter.stats().running, limiter.stats().completed), (0, 1))
                self.assertEqual(limiter.paused_for(), 9.0, number)


class ChoiceOfLimiter(Clients):
    @for_each_client
    async def test_each_host_may_have_its_limiter(self, kind: type[Client]) -> None:
        other = Server()
        self.addCleanup(other.close)
        with mock.patch("async_rate_limiter._keyed.RateLimiter", RateLimiter):
            hosts: KeyedRateLimiter[str] = KeyedRateLimiter(
                limits=["1/1h"], overrides={other.host: ["2/1h"]}, clock=self.clock
            )
            async with self.client(kind, hosts) as client:
                await client.get(self.server.url())
                await client.get(other.url())
                await client.get(other.url())
                self.assertEqual(hosts[self.server.host].stats().held[0].units, 1)
                self.assertEqual(hosts[other.host].stats().held[0].units, 2)
                self.assertEqual(len(hosts), 2)

    @for_each_client
    async def test_a_function_may_choose_the_limiter(self, kind: type[Client]) -> None:
        odd, even = self.limiter("9/10ms"), self.limiter("9/10ms")

        def choose(request: Any) -> RateLimiter:
            return odd if "odd" in str(request.url) else even

        async with self.client(kind, choose) as client:
            for path in ("/odd", "/even", "/odd"):
                await client.get(self.server.url(path=path))
        self.assertEqual((odd.stats().held[0].units, even.stats().held[0].units), (2, 1))

    @for_each_client
    async def test_nonsense_is_refused_when_the_client_is_made(self, kind: type[Client]) -> None:
        limiter = self.limiter("60/1m")
        wrong: list[tuple[str, Any, dict[str, Any]]] = [
            ("has to be a limiter", None, {}),
            ('"response" or "body"', limiter, {"complete_on": "head"}),
            ("`no name` is no name of a header", limiter, {"corrected_by": [("no name", "60/1m")]}),
            (
                "no limiter here has the limit 2/1s; there is 60/1m",
                limiter,
                {"corrected_by": [("x-left", "2/1s")]},
            ),
            ('"used" or "remaining"', limiter, {"corrected_by": [("x-left", "60/1m", "left")]}),
            ("60", limiter, {"corrected_by": [("x-left", "60")]}),
        ]
        for text, subject, options in wrong:
            with self.assertRaisesRegex((ValueError, TypeError), text):
                kind(subject, **options)


class Package(unittest.TestCase):
    def test_the_package_imports_no_client_by_itself(self) -> None:
        code = (
            "import sys, async_rate_limiter\n"
            "print(*{'aiohttp', 'httpx', 'requests'}.intersection(sys.modules))"
        )
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        self.assertEqual((ran.stdout, ran.stderr), ("\n", ""))


class Strictness(unittest.TestCase):
    """Time is real here."""

    @for_each_client
    async def test_a_server_that_bans_never_bans(self, kind: type[Client]) -> None:
        per = 0.05
        server = Server(rate=10, per=per)
        self.addCleanup(server.close)
        limiter = RateLimiter(10, int(per * SECOND), concurrency=4)
        client = kind(limiter)
        begin = time.monotonic()
        replies = await asyncio.gather(*(client.get(server.url()) for _ in range(45)))
        await client.close()
        self.assertEqual({reply.status for reply in replies}, {200})
        self.assertGreater(time.monotonic() - begin, 4 * per)
        self.assertLessEqual(server.most, 10)
