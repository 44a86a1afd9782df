"""Pauses that are too long to be waited for. The limiter's clock is manual, the network is real."""

from __future__ import annotations

import asyncio
import gc
import math
import pickle
import unittest
from datetime import datetime, timedelta, timezone
from unittest import mock

from async_rate_limiter import (
    KeyedRateLimiter,
    PauseTooLong,
    RateLimiter,
    RateLimiterError,
    _pauses,
)

from .clients import Client, Clients, for_each_client, until
from .manual_time import SECOND
from .server import Server


class TooLong(Clients):
    @for_each_client
    async def test_a_pause_that_is_too_long_is_an_error_at_once_and_is_kept(
        self, kind: type[Client]
    ) -> None:
        limiter = self.limiter("5/10ms")
        self.server.seen.clear()
        async with self.client(kind, limiter) as client:
            reply = await client.get(self.server.url({"status": 429, "retry-after": 7201}))
            self.assertEqual(reply, (429, "answer"), "its caller has the answer")
            self.assertEqual(limiter.paused_for(), 7201)
            with self.assertRaises(PauseTooLong) as raised:
                await client.get(self.server.url())
            error = raised.exception
            self.assertIsInstance(error, RateLimiterError)
            self.assertEqual((error.asked, error.left, error.header), (7201, 7201, "retry-after"))
            self.assertIsNone(error.host)
            assert error.until is not None
            self.assertGreater(error.until, datetime.now(timezone.utc) + timedelta(seconds=7190))
            self.assertIn("asked by `retry-after` for a pause of 7201 s, until 2", str(error))
            self.clock.now_ns += 3600 * SECOND
            with self.assertRaises(PauseTooLong) as raised:
                await client.get(self.server.url())
            self.assertEqual(raised.exception.left, 3601)
            self.clock.now_ns += 1 * SECOND
            waiting = asyncio.ensure_future(client.get(self.server.url()))
            await asyncio.sleep(0.02)
            self.assertEqual(len(self.server.seen), 1, "an hour is waited for")
            self.clock.now_ns += 3600 * SECOND
            limiter.resume()
            self.assertEqual((await waiting).status, 200)

    @for_each_client
    async def test_a_refusal_that_says_nothing_may_be_too_long_as_well(
        self, kind: type[Client]
    ) -> None:
        limiter = self.limiter("100/1d")
        async with self.client(kind, limiter, max_pause=timedelta(hours=23)) as client:
            await client.get(self.server.url({"status": 429}))
            with self.assertRaises(PauseTooLong) as raised:
                await client.get(self.server.url())
        self.assertEqual((raised.exception.asked, raised.exception.header), (86400, "refusal"))
        self.assertIn("refused a request and did not say for how long", str(raised.exception))

    @for_each_client
    async def test_requests_that_wait_already_are_told(self, kind: type[Client]) -> None:
        # Threads are told by the limiter alone.
        more = {"max_pause": 3600} if kind.blocks else {}
        limiter = self.limiter("5/10ms", concurrency=1, **more)
        self.server.seen.clear()
        async with self.client(kind, limiter) as client:
            url = self.server.url({"wait": "", "status": 503, "retry-after": 99999})
            first = asyncio.ensure_future(client.get(url))
            await until(lambda: limiter.stats().running == 1)
            waiting = [asyncio.ensure_future(client.get(self.server.url())) for _ in range(3)]
            await until(lambda: limiter.stats().queued == 3)
            self.server.leave.release()
            self.assertEqual((await first).status, 503)
            results = await asyncio.gather(*waiting, return_exceptions=True)
            self.assertEqual([type(result) for result in results], [PauseTooLong] * 3)
            self.assertEqual({getattr(error, "header", None) for error in results}, {"retry-after"})
            self.assertEqual((limiter.stats().queued, len(self.server.seen)), (0, 1))

    @for_each_client
    async def test_a_request_that_is_told_may_be_cancelled_as_well(
        self, kind: type[Client]
    ) -> None:
        if kind.blocks or not hasattr(asyncio.Task, "uncancel"):
            return
        limiter = self.limiter("5/10ms", concurrency=1)
        async with self.client(kind, limiter) as client:
            permit = await limiter.acquire()
            waiting = asyncio.ensure_future(client.get(self.server.url()))
            await until(lambda: limiter.stats().queued == 1)
            for wait in list(_pauses._records[limiter].waits):
                wait._end()
            waiting.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await waiting
            self.assertEqual(limiter.stats().queued, 0)
            permit.complete()

    @for_each_client
    async def test_a_pause_can_be_ended(self, kind: type[Client]) -> None:
        limiter = self.limiter("99/10ms")
        async with self.client(kind, limiter) as client:
            for end in (client.resume, limiter.resume):
                url = self.server.url({"status": 429, "retry-after": "99999999999999999999"})
                await client.get(url)
                with self.assertRaises(PauseTooLong) as raised:
                    await client.get(self.server.url())
                self.assertEqual((raised.exception.asked, raised.exception.until), (math.inf, None))
                self.assertIn("a pause that never ends", str(raised.exception))
                end()
                self.assertEqual((await client.get(self.server.url())).status, 200)

    @for_each_client
    async def test_a_pause_of_the_programs_own_is_waited_for_however_long(
        self, kind: type[Client]
    ) -> None:
        limiter = self.limiter("5/10ms")
        async with self.client(kind, limiter, max_pause=5) as client:
            await client.get(self.server.url({"status": 429, "retry-after": 2}))
            limiter.pause_for(48 * 3600)
            waiting = asyncio.ensure_future(client.get(self.server.url()))
            await asyncio.sleep(0.02)
            self.assertFalse(waiting.done())
            limiter.resume()
            self.assertEqual((await waiting).status, 200)

    @for_each_client
    async def test_a_shorter_pause_does_not_hide_one_that_is_too_long(
        self, kind: type[Client]
    ) -> None:
        limiter = self.limiter("5/10ms")
        async with self.client(kind, limiter, max_pause=1) as client:
            url = self.server.url({"wait": "", "status": 429, "retry-after": 2})
            on_its_way = asyncio.ensure_future(client.get(url))
            await until(lambda: limiter.stats().running == 1)
            await client.get(self.server.url({"status": 429, "retry-after": 9}))
            self.server.leave.release()
            await on_its_way
            with self.assertRaises(PauseTooLong) as raised:
                await client.get(self.server.url())
            self.assertEqual(raised.exception.asked, 9)

    @for_each_client
    async def test_hosts_are_refused_and_resumed_one_by_one(self, kind: type[Client]) -> None:
        other = Server()
        self.addCleanup(other.close)
        with mock.patch("async_rate_limiter._keyed.RateLimiter", RateLimiter):
            hosts: KeyedRateLimiter[str] = KeyedRateLimiter(limits=["99/10ms"], clock=self.clock)
            async with self.client(kind, hosts) as client:

                async def is_refused(server: Server) -> bool:
                    try:
                        await client.get(server.url())
                    except PauseTooLong as error:
                        return error.host == server.host
                    return False

                for server in (self.server, other):
                    await client.get(server.url({"status": 429, "retry-after": 99999}))
                self.assertTrue(await is_refused(self.server) and await is_refused(other))
                hosts[self.server.host].resume()
                self.assertFalse(await is_refused(self.server))
                self.assertTrue(await is_refused(other))
                client.resume()
                self.assertFalse(await is_refused(self.server) or await is_refused(other))


class Records(Clients):
    def test_a_limiter_that_is_dropped_is_forgotten(self) -> None:
        gc.collect()
        before = len(_pauses._records)
        limiter = RateLimiter(limits=["9/1h"])
        _pauses.Pauses(1).pause(limiter, 60, "retry-after")
        self.assertEqual(len(_pauses._records), before + 1)
        del limiter
        gc.collect()
        self.assertEqual(len(_pauses._records), before)

    @for_each_client
    async def test_clients_that_share_a_limiter_share_its_pauses(self, kind: type[Client]) -> None:
        limiter = self.limiter("99/10ms")
        async with self.client(kind, limiter) as one, self.client(kind, limiter) as other:
            patient = kind(limiter, max_pause=math.inf)
            await one.get(self.server.url({"status": 429, "retry-after": 99999}))
            with self.assertRaises(PauseTooLong):
                await other.get(self.server.url())
            waiting = asyncio.ensure_future(patient.get(self.server.url()))
            await asyncio.sleep(0.02)
            self.assertFalse(waiting.done())
            other.resume()
            self.assertEqual((await waiting).status, 200)
            self.assertEqual((await one.get(self.server.url())).status, 200)
            await patient.close()

    @for_each_client
    async def test_a_request_that_waits_for_any_pause_keeps_its_place(
        self, kind: type[Client]
    ) -> None:
        if kind.blocks:
            return  # No thread is told.
        limiter = self.limiter("99/10ms", concurrency=1)
        self.server.seen.clear()
        async with self.client(kind, limiter, max_pause=math.inf) as client:
            running = await limiter.acquire()
            first = asyncio.ensure_future(client.get(self.server.url()))
            await until(lambda: limiter.stats().queued == 1)
            second = asyncio.ensure_future(limiter.acquire())
            await until(lambda: limiter.stats().queued == 2)
            _pauses.Pauses(1).pause(limiter, 99999, "retry-after")
            await asyncio.sleep(0.02)
            running.complete()
            limiter.resume()
            (await second).complete()
            self.assertEqual(len(self.server.seen), 1, "the first was sent before")
            await first


class Errors(unittest.TestCase):
    def test_the_error_can_be_pickled(self) -> None:
        error = PauseTooLong(7201.0, 60.0, "retry-after", "api.example.com:443")
        again = pickle.loads(pickle.dumps(error))
        self.assertEqual((again.asked, again.left, again.host), (7201, 60, error.host))
        self.assertIn("api.example.com:443 asked by", str(again))
