"""`max_pause`: pauses that are too long to be waited for."""

from __future__ import annotations

import asyncio
import math
import threading
import time
import unittest
from datetime import timedelta
from typing import Any

from async_rate_limiter import (
    DeadlineExceeded,
    KeyedRateLimiter,
    PauseTooLong,
    RateLimiter,
    RateLimiterError,
)

from .manual_time import SECOND, in_manual_time, limiter, loop, settle


class MaxPause(unittest.TestCase):
    @in_manual_time
    async def test_whoever_asks_is_refused_while_too_much_is_left(self) -> None:
        subject = limiter(10, SECOND, max_pause=timedelta(seconds=60))
        subject.pause_for(100)
        calls: list[Any] = [
            lambda: subject.push(lambda: None),
            lambda: subject.run(lambda: None),
            lambda: subject.acquire(),
            lambda: subject.acquire(timeout=5),
            lambda: subject.weight(2).__aenter__(),
            lambda: subject.__aenter__(),
            lambda: subject(self.nothing)(),
        ]
        for call in calls:
            with self.assertRaises(PauseTooLong):
                await call()
        self.assertRaises(PauseTooLong, subject.acquire_blocking)
        with self.assertRaises(PauseTooLong) as raised:
            subject.__enter__()
        self.assertEqual(raised.exception.left, 100)
        self.assertIsNone(subject.try_acquire(), "that never waits")
        self.assertEqual((subject.stats().queued, subject.stats().running), (0, 0))
        self.assertIsInstance(raised.exception, RateLimiterError)
        self.assertEqual(raised.exception.header, "pause")
        self.assertIn("told to make a pause of 100 s, until 2", str(raised.exception))

    async def nothing(self) -> None:
        pass

    @in_manual_time
    async def test_whatever_is_no_longer_is_waited_for(self) -> None:
        subject = limiter(10, SECOND, max_pause=60)
        subject.pause_for(100)
        await asyncio.sleep(39.5)
        with self.assertRaises(PauseTooLong):
            await subject.acquire()
        await asyncio.sleep(0.5)
        self.assertEqual(await subject.run(lambda: loop().now_ns // SECOND), 100)
        subject.pause_for(1)
        with self.assertRaises(DeadlineExceeded):
            await subject.acquire(timeout=0.5)

    @in_manual_time
    async def test_whoever_waits_already_is_refused_and_pushed_tasks_stay(self) -> None:
        subject = limiter(10, SECOND, max_pause=60, queue_capacity=2)
        permit = await subject.acquire()
        ran: list[int] = []
        await subject.push(lambda: ran.append(1))
        waits: list[Any] = [asyncio.ensure_future(subject.acquire())]
        await settle()
        waits.append(asyncio.ensure_future(subject.push(lambda: ran.append(2))))
        await settle()
        self.assertEqual(subject.stats().queued, 3)
        subject.pause_for(60)
        await settle()
        self.assertFalse(any(wait.done() for wait in waits))
        subject.pause_for(61)
        for wait in waits:
            with self.assertRaises(PauseTooLong):
                await wait
        self.assertEqual(subject.stats().queued, 1)
        permit.complete()
        await subject.drained()
        self.assertEqual((ran, loop().now_ns // SECOND), ([1], 61))

    @in_manual_time
    async def test_a_pause_that_is_ended_refuses_nobody(self) -> None:
        subject = limiter(10, SECOND, max_pause="1m")
        subject.pause_for(math.inf)
        with self.assertRaises(PauseTooLong) as raised:
            await subject.run(lambda: None)
        self.assertEqual((raised.exception.left, raised.exception.until), (math.inf, None))
        subject.resume()
        self.assertEqual(await subject.run(lambda: 5), 5)

    @in_manual_time
    async def test_each_key_has_it(self) -> None:
        subject: KeyedRateLimiter[str] = KeyedRateLimiter(
            10, SECOND, clock=loop().clock, max_pause=60
        )
        subject["alice"].pause_for(61)
        with self.assertRaises(PauseTooLong):
            await subject.run("alice", int)
        self.assertEqual(await subject.run("bob", int), 0)

    def test_threads_that_wait_are_refused_at_once(self) -> None:
        subject = RateLimiter(10, per=1, max_pause=60)
        permit = subject.acquire_blocking()
        raised: list[BaseException] = []

        def wait() -> None:
            try:
                subject.acquire_blocking()
            except PauseTooLong as error:
                raised.append(error)

        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        while subject.stats().queued < 3:
            time.sleep(0.001)
        begin = time.monotonic()
        subject.pause_for(3600)
        for thread in threads:
            thread.join()
        self.assertLess(time.monotonic() - begin, 0.4, "not after a piece of its wait")
        self.assertEqual((len(raised), subject.stats().queued), (3, 0))
        permit.complete()

    def test_nonsense_is_refused(self) -> None:
        for value, error in ((-1, ValueError), ("soon", ValueError), ([], TypeError)):
            with self.assertRaisesRegex(error, "max_pause"):
                RateLimiter(1, per=1, max_pause=value)  # type: ignore[arg-type]
