"""What a user tells a limiter: timeouts, other limits, names, its history, the server's counts."""

from __future__ import annotations

import asyncio
import unittest
from datetime import timedelta
from typing import Any, Callable, Coroutine

from async_rate_limiter import (
    DeadlineExceeded,
    QueueFull,
    RateLimiter,
    WeightedRateLimiter,
)

from .manual_time import SECOND, in_manual_time, limiter, loop, settle, weighted


class Timeouts(unittest.TestCase):
    @in_manual_time
    async def test_what_is_known_to_come_too_late_is_refused_at_once(self) -> None:
        subject = limiter(1, SECOND)
        await subject.push(lambda: None)
        calls: list[Callable[[Any], Coroutine[Any, Any, Any]]] = [
            lambda timeout: subject.run(print, timeout=timeout),
            lambda timeout: subject.acquire(timeout=timeout),
            lambda timeout: subject.weight(1, timeout=timeout).__aenter__(),
        ]
        for call in calls:
            for timeout in (0.5, "500ms", timedelta(milliseconds=500), 0):
                with self.assertRaises(DeadlineExceeded) as raised:
                    await call(timeout)
                error: Any = raised.exception
                self.assertAlmostEqual(error.next_opening, 1.0)
        self.assertEqual((loop().now_ns, subject.stats().queued), (0, 0))
        self.assertEqual(await subject.run(lambda: 5, timeout=1.5), 5)

    @in_manual_time
    async def test_what_nobody_knows_ends_when_the_timeout_is_over(self) -> None:
        subject = limiter(2, SECOND)
        permit = await subject.acquire()
        begun = loop().now_ns
        with self.assertRaises(DeadlineExceeded) as raised:
            await subject.run(print, timeout=0.25)
        error: Any = raised.exception
        self.assertIsNone(error.next_opening)
        self.assertAlmostEqual(loop().now_ns - begun, SECOND // 4, delta=8)
        self.assertEqual(subject.stats().queued, 0)
        waits = loop().create_task(subject.run(lambda: loop().now_ns, timeout=0.25))
        await asyncio.sleep(0.1)
        permit.complete()
        self.assertLess(await waits, begun + SECOND // 2)

    @in_manual_time
    async def test_a_grant_at_the_very_deadline_is_made(self) -> None:
        subject = limiter(1, SECOND)
        await subject.push(lambda: None)
        timeout = (SECOND + 1) / SECOND
        self.assertEqual(await subject.run(lambda: 5, timeout=timeout), 5)

    @in_manual_time
    async def test_a_push_waits_for_room_no_longer(self) -> None:
        subject = limiter(1, SECOND, queue_capacity=1)
        ran: list[int] = []
        subject.pause_for(3)
        self.assertFalse(await subject.push(lambda: ran.append(1)))
        with self.assertRaises(DeadlineExceeded):
            await subject.push(lambda: ran.append(2), timeout=1)
        self.assertAlmostEqual(loop().now_ns, SECOND, delta=8)
        self.assertFalse(await subject.push(lambda: ran.append(3), timeout=9))
        await subject.drained()
        self.assertEqual(ran, [1, 3])

    @in_manual_time
    async def test_drained_waits_no_longer(self) -> None:
        subject = limiter(1, SECOND)
        permit = await subject.acquire()
        with self.assertRaises(DeadlineExceeded):
            await subject.drained(timeout=1)
        permit.complete()
        await subject.drained(timeout=1)

    @in_manual_time
    async def test_a_timeout_that_is_none_is_an_error_at_once(self) -> None:
        subject: Any = limiter(1, SECOND)
        for timeout in (-1, -0.5, float("nan"), "soon", "-5", "nan"):
            with self.assertRaisesRegex(ValueError, "timeout"):
                subject.run(print, timeout=timeout)
        with self.assertRaisesRegex(TypeError, "timeout has to be"):
            subject.acquire(timeout=True)

    @in_manual_time
    async def test_refuse_when_full_bounds_everyone(self) -> None:
        subject = limiter(1, SECOND, queue_capacity=1, refuse_when_full=True)
        await subject.push(lambda: None)
        await subject.push(lambda: None)
        calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: subject.push(print),
            lambda: subject.run(print),
            subject.acquire,
        ]
        for call in calls:
            with self.assertRaises(QueueFull):
                await call()


class Control(unittest.TestCase):
    @in_manual_time
    async def test_new_limits_hold_from_now_on_for_all_that_is_held(self) -> None:
        subject = limiter(1, SECOND)
        await subject.push(lambda: None)
        waits = loop().create_task(subject.run(lambda: loop().now_ns))
        await settle()
        subject.set_limits(["2/1s"])
        self.assertEqual(await waits, 0)
        self.assertEqual((subject.limits, subject.rate), (["2/1s"], 2))
        self.assertIsNone(subject.try_acquire())
        for wrong in ([], ["many"]):
            with self.assertRaises(ValueError):
                subject.set_limits(wrong)
        self.assertEqual(subject.limits, ["2/1s"])

    @in_manual_time
    async def test_new_limits_refuse_what_is_now_too_heavy_by_name(self) -> None:
        told: list[BaseException] = []
        subject = weighted(10, SECOND, on_error=told.append)
        await subject.push(lambda: None, 10)
        heavy = loop().create_task(subject.run(print, weight=8))
        await settle()
        await subject.push(print, 7)
        light = loop().create_task(subject.run(lambda: 5, weight=2))
        await settle()
        subject.set_limits(["5w/1s"])
        with self.assertRaisesRegex(ValueError, "weight 8 is over the limit 5w/1s"):
            await heavy
        self.assertEqual(await light, 5)
        # Nobody waits for a queued task: what becomes of it is told as its own error would be.
        self.assertRegex(str(told), "weight 7 is over the limit 5w/1s")
        self.assertEqual(len(loop().failures), 1)

    @in_manual_time
    async def test_concurrency_changes_while_tasks_wait(self) -> None:
        subject = limiter(10, SECOND)
        permit = await subject.acquire()
        waits = loop().create_task(subject.acquire())
        await settle()
        subject.set_concurrency(2)
        (await waits).complete()
        permit.complete()
        self.assertEqual(subject.concurrency, 2)
        with self.assertRaisesRegex(ValueError, "concurrency 0"):
            subject.set_concurrency(0)

    @in_manual_time
    async def test_a_pause_can_be_ended(self) -> None:
        subject = limiter(10, SECOND)
        subject.pause_for(float("inf"))
        waits = loop().create_task(subject.run(lambda: loop().now_ns))
        await settle()
        self.assertGreater(subject.paused_for(), 1e9)
        subject.resume()
        self.assertEqual((await waits, subject.paused_for()), (0, 0.0))
        subject.pause_for("1.5")
        self.assertEqual(subject.paused_for(), 1.5)
        subject.pause_for("1m")
        self.assertEqual(subject.paused_for(), 60)

    @in_manual_time
    async def test_the_servers_count_only_tightens(self) -> None:
        subject = limiter(10, SECOND, limits=["100/1m"])
        await subject.push(lambda: None)
        self.assertEqual(subject.reconcile("100/1m", 99), 98)
        self.assertEqual(subject.reconcile("100/1m", 5), 0)
        self.assertEqual([held.units for held in subject.stats().held], [1, 99])
        self.assertEqual(subject.backoff(), 1.0)
        await subject.push(lambda: None)
        self.assertEqual(subject.backoff(), 60.0)
        with self.assertRaisesRegex(ValueError, "no limit 7/1s; it has 10/1s, 100/1m"):
            subject.reconcile("7/1s", 1)

    @in_manual_time
    async def test_history_goes_over_a_restart(self) -> None:
        before = weighted(10, 10 * SECOND, abandon_grace=2)
        await before.run(lambda: None, weight=4)
        await asyncio.sleep(1)
        permit = await before.acquire(weight=5)
        history = before.history()
        ages = [(round(age / SECOND), weight) for age, _, weight in history]
        self.assertEqual(ages, [(1, 4), (-2, 5)])
        after = weighted(10, 10 * SECOND, abandon_grace=2, history=history)
        self.assertEqual((after.stats().held[0].units, after.stats().running), (9, 1))
        self.assertIsNone(after.try_acquire(weight=1))
        await asyncio.sleep(2.001)
        self.assertEqual(after.stats().running, 0)
        with self.assertRaisesRegex(TypeError, "history has to be tuples"):
            weighted(10, SECOND, history=[5])
        permit.complete()

    @in_manual_time
    async def test_run_passes_arguments_on(self) -> None:
        subject = weighted(10, SECOND)

        async def call(*args: int, **keywords: int) -> tuple[tuple[int, ...], dict[str, int]]:
            return args, keywords

        self.assertEqual(await subject.run(call, 1, 2, a=3), ((1, 2), {"a": 3}))
        self.assertEqual(await subject.run(call, 5, weight=2, b=1), ((5,), {"b": 1}))
        self.assertEqual(subject.stats().held[0].units, 3)
        await subject.run(asyncio.sleep, 0)

    def test_names_are_for_people(self) -> None:
        subject = RateLimiter(10, per=1, name="api")
        self.assertEqual((subject.name, RateLimiter(1, per=1).name), ("api", None))
        self.assertEqual(repr(subject), "<RateLimiter 'api' 10/1s: 0 running, 0 queued>")
        self.assertIn("RateLimiter 'api'", repr(subject.weight(1)))

    def test_what_is_idle_is_like_new(self) -> None:
        subject = RateLimiter(10, per=3600)
        self.assertTrue(subject.is_like_new())
        with subject:
            self.assertFalse(subject.is_like_new())
        self.assertFalse(subject.is_like_new())

    def test_subclasses_call_super_as_those_of_the_original_do(self) -> None:
        class Api(RateLimiter):
            def __init__(self, host: str, rate: int, per_ns: int) -> None:
                super().__init__(rate, per_ns, concurrency=2)
                self.host = host

        class Tokens(WeightedRateLimiter):
            def __init__(self, *, budget: int) -> None:
                super().__init__(budget, per=60)

        subject = Api("example", 10, SECOND)
        self.assertEqual((subject.host, subject.rate, subject.per_ns), ("example", 10, SECOND))
        tokens = Tokens(budget=5)
        self.assertEqual((tokens.limits, tokens.allowed_weight), (["5w/1m"], 5))
        with tokens.weight(3):
            pass
        self.assertEqual([tokens.bandwidth_available(weight) for weight in (2, 3)], [True, False])
        self.assertTrue(asyncio.run(subject.push(lambda: None)))
        with self.assertRaisesRegex(RuntimeError, "made already"):
            subject.__init__("again", 1, SECOND)  # type: ignore[misc]
