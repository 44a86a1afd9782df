"""Cancelling, closing, aborting, draining, pausing: how things end or are put off."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import datetime
import functools
import gc
import unittest
import weakref
from typing import Any, Callable, Coroutine

from async_rate_limiter import Aborted, Closed

from .manual_time import MILLISECOND, SECOND, in_manual_time, limiter, loop, settle, weighted


class Cancelling(unittest.TestCase):
    @in_manual_time
    async def test_cancelled_in_the_queue_it_leaves_no_trace(self) -> None:
        subject = limiter(1, SECOND)
        ran: list[str] = []
        await subject.push(lambda: None)
        calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: subject.run(lambda: ran.append("cancelled")),
            subject.acquire,
            subject.__aenter__,
        ]
        for call in calls:
            waits = loop().create_task(call())
            await settle()
            self.assertEqual(subject.stats().queued, 1)
            waits.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await waits
            self.assertEqual(subject.stats().queued, 0)
        await asyncio.sleep(5)
        self.assertEqual(ran, [])
        self.assertEqual(subject.stats().completed, 1)

    @in_manual_time
    async def test_the_next_one_moves_up_at_once(self) -> None:
        subject = weighted(10, SECOND)
        await subject.push(lambda: None, 5)
        heavy = loop().create_task(subject.run(lambda: None, weight=6))
        await settle()
        light = loop().create_task(subject.run(lambda: "light", weight=5))
        await settle()
        self.assertEqual(subject.stats().queued, 2)
        heavy.cancel()
        self.assertEqual(await light, "light")
        self.assertEqual(loop().now_ns, 0)

    @in_manual_time
    async def test_cancelled_between_grant_and_start_the_grant_is_undone(self) -> None:
        subject = limiter(2, SECOND, concurrency=2)
        first = await subject.acquire()
        second = await subject.acquire()
        waits = loop().create_task(subject.acquire())
        await settle()
        second.complete()
        first.complete()
        await asyncio.sleep(1)
        loop().advance(10)
        while not subject.stats().running:
            await asyncio.sleep(0)
        # Granted; and cancelled before it has had its own turn of the loop.
        waits.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await waits
        stats = subject.stats()
        self.assertEqual((stats.running, stats.completed, stats.held[0].units), (0, 2, 0))

    @in_manual_time
    async def test_cancelled_in_the_very_turn_of_its_grant_it_is_not_woken_twice(self) -> None:
        subject = limiter(10, SECOND)
        permit = await subject.acquire()
        waits = loop().create_task(subject.acquire())
        await settle()
        permit.complete()
        # The look that grants it comes before it has learnt of this.
        waits.cancel()
        await settle()
        self.assertTrue(waits.cancelled())
        self.assertEqual(loop().failures, [])
        stats = subject.stats()
        self.assertEqual((stats.running, stats.held[0].units), (0, 1))

    @in_manual_time
    async def test_cancelled_in_the_very_turn_of_an_abort_it_stays_cancelled(self) -> None:
        subject = limiter(1, SECOND)
        await subject.push(lambda: None)
        waits = loop().create_task(subject.acquire())
        await settle()
        waits.cancel()
        self.assertEqual(subject.abort(), [])
        await settle()
        self.assertTrue(waits.cancelled())

    @in_manual_time
    async def test_cancelled_while_its_task_runs_it_completes_then(self) -> None:
        subject = limiter(1, SECOND)
        cleaned: list[bool] = []

        async def work() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                cleaned.append(True)

        for call in (subject.push, subject.run):
            task = loop().create_task(call(work))
            await asyncio.sleep(2)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
        self.assertEqual(cleaned, [True, True])
        stats = subject.stats()
        self.assertEqual((stats.running, stats.completed, stats.held[0].units), (0, 2, 1))

    @in_manual_time
    async def test_a_task_may_refuse_to_be_cancelled(self) -> None:
        subject = limiter(1, SECOND)

        async def stubborn() -> str:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                await asyncio.sleep(1)
            return "done all the same"

        task = loop().create_task(subject.run(stubborn))
        await asyncio.sleep(1)
        task.cancel()
        await settle()
        self.assertEqual(subject.stats().running, 1)
        self.assertEqual(await task, "done all the same")

    @in_manual_time
    async def test_abandon_grace_holds_what_may_still_be_on_the_wire(self) -> None:
        subject = limiter(1, SECOND, abandon_grace=datetime.timedelta(seconds=3))

        async def work() -> None:
            await asyncio.sleep(100)

        async def block() -> None:
            async with subject:
                await asyncio.sleep(100)

        async def permit() -> None:
            async with subject.weight(1):
                await asyncio.sleep(100)

        for call in (lambda: subject.push(work), lambda: subject.run(work), block, permit):
            begun = loop().now_ns
            task = loop().create_task(call())
            await asyncio.sleep(1)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            self.assertEqual(subject.stats().running, 1)
            await subject.run(lambda: None)
            self.assertGreater(loop().now_ns - begun, 5 * SECOND)
            await asyncio.sleep(2)

    @in_manual_time
    async def test_a_cancelled_queued_task_has_its_grace(self) -> None:
        subject = limiter(1, MILLISECOND, abandon_grace=3)
        started: list[asyncio.Task[Any]] = []

        async def work() -> None:
            started.extend(filter(None, [asyncio.current_task()]))
            await asyncio.sleep(100)

        await subject.push(lambda: None)
        await subject.push(work)
        await asyncio.sleep(1)
        started[0].cancel()
        gone = weakref.ref(started.pop())
        await subject.drained()
        self.assertEqual(loop().now_ns, 4 * SECOND)
        # And nobody keeps it any longer.
        gc.collect()
        self.assertIsNone(gone())

    @in_manual_time
    async def test_an_earlier_opening_replaces_a_later_timer(self) -> None:
        subject = weighted(10, 10 * SECOND)
        await subject.push(lambda: None, 4)
        await asyncio.sleep(5)
        await subject.push(lambda: None, 6)
        heavy = loop().create_task(subject.run(lambda: None, weight=10))
        await asyncio.sleep(1)
        light = loop().create_task(subject.run(lambda: loop().now_ns // SECOND, weight=4))
        await settle()
        heavy.cancel()
        self.assertEqual(await light, 10)

    @in_manual_time
    async def test_a_timer_keeps_nobodys_variables(self) -> None:
        class Value: ...

        variable: contextvars.ContextVar[Value] = contextvars.ContextVar("variable")
        subject = limiter(1, SECOND)

        async def waits() -> weakref.ref[Value]:
            value = Value()
            variable.set(value)
            await subject.push(lambda: None)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(subject.run(lambda: None), 0.1)
            return weakref.ref(value)

        gone = await loop().create_task(waits())
        await settle()
        gc.collect()
        self.assertIsNone(gone())

    @in_manual_time
    async def test_drained_waits_for_the_grace_as_well(self) -> None:
        subject = limiter(1, SECOND, abandon_grace=3)
        task = loop().create_task(subject.run(lambda: asyncio.sleep(100)))
        await settle()
        task.cancel()
        await subject.drained()
        self.assertEqual(loop().now_ns, 3 * SECOND)

    @in_manual_time
    async def test_a_push_that_waits_for_room_is_cancelled_without_a_trace(self) -> None:
        subject = limiter(1, SECOND, queue_capacity=1)
        ran: list[str] = []
        await subject.push(lambda: ran.append("at once"))
        await subject.push(lambda: ran.append("queued"))
        waits = loop().create_task(subject.push(lambda: ran.append("cancelled")))
        await settle()
        waits.cancel()
        await subject.drained()
        self.assertEqual(ran, ["at once", "queued"])

    @in_manual_time
    async def test_a_cancelled_queued_task_of_the_loop_lets_the_queue_go_on(self) -> None:
        subject = limiter(1, MILLISECOND)
        started: list[asyncio.Task[object]] = []
        ran: list[bool] = []

        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            started.append(task)
            await asyncio.sleep(100)

        await subject.push(lambda: None)
        await subject.push(work)
        await subject.push(lambda: ran.append(True))
        await asyncio.sleep(1)
        started[0].cancel()
        await subject.drained()
        self.assertEqual(ran, [True])
        self.assertEqual(loop().failures, [])

    @in_manual_time
    async def test_wait_for_and_timeouts_cancel_as_they_should(self) -> None:
        subject = limiter(1, SECOND)
        await subject.push(lambda: None)
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(subject.run(lambda: None), 0.5)
        self.assertEqual(subject.stats().queued, 0)
        self.assertEqual(await asyncio.wait_for(subject.run(lambda: 1), 5), 1)


class Closing(unittest.TestCase):
    @in_manual_time
    async def test_closed_it_takes_nothing_new_and_runs_what_it_accepted(self) -> None:
        subject = limiter(1, SECOND)
        ran: list[int] = []
        await subject.push(lambda: ran.append(1))
        await subject.push(lambda: ran.append(2))
        subject.close()
        self.assertTrue(subject.closed)
        for call in (lambda: subject.push(print), lambda: subject.run(print), subject.acquire):
            with self.assertRaisesRegex(Closed, "the limiter is closed"):
                await call()
        with self.assertRaises(Closed):
            subject.try_acquire()
        with self.assertRaises(Closed):
            async with subject:
                pass
        await subject.drained()
        self.assertEqual(ran, [1, 2])

    @in_manual_time
    async def test_aborted_it_drops_what_is_queued_and_lets_what_runs_end(self) -> None:
        subject = limiter(1, SECOND)
        ended: list[bool] = []

        async def work() -> None:
            await asyncio.sleep(1)
            ended.append(True)

        def never() -> None:
            raise AssertionError("it was aborted")

        runs = loop().create_task(subject.push(work))
        await settle()
        await subject.push(never)
        waits = loop().create_task(subject.run(never))
        await settle()
        self.assertEqual(subject.abort(), [never])
        with self.assertRaises(Aborted):
            await waits
        await subject.drained()
        self.assertTrue(await runs)
        self.assertEqual(ended, [True])
        with self.assertRaises(Closed):
            await subject.push(never)

    @in_manual_time
    async def test_a_push_that_waits_for_room_learns_of_an_abort(self) -> None:
        subject = limiter(1, SECOND, queue_capacity=1)
        for _ in range(2):
            await subject.push(lambda: None)
        waits = loop().create_task(subject.push(lambda: None))
        await settle()
        self.assertEqual(len(subject.abort()), 1)
        with self.assertRaises(Aborted):
            await waits

    @in_manual_time
    async def test_aclosing_runs_what_was_accepted_before_the_block_is_left(self) -> None:
        if not hasattr(contextlib, "aclosing"):
            self.skipTest("from Python 3.10")
        ran: list[int] = []
        async with contextlib.aclosing(limiter(1, SECOND)) as subject:
            for number in range(3):
                await subject.push(functools.partial(ran.append, number))
        self.assertEqual(ran, [0, 1, 2])
        self.assertTrue(subject.closed)

    @in_manual_time
    async def test_drained_is_at_once_where_nothing_is_left(self) -> None:
        subject = limiter(1, SECOND)
        await subject.drained()
        await subject.push(lambda: None)
        await subject.drained()
        self.assertEqual(loop().now_ns, 0)

    @in_manual_time
    async def test_whoever_stops_waiting_for_the_end_is_forgotten(self) -> None:
        subject = limiter(1, SECOND)
        await subject.push(lambda: None)
        await subject.push(lambda: None)
        for _ in range(3):
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(subject.drained(), 0.1)
        futures = [o for o in gc.get_referents(subject) if isinstance(o, asyncio.Future)]
        self.assertEqual(futures, [])


class Pausing(unittest.TestCase):
    @in_manual_time
    async def test_nothing_is_granted_before_the_end_of_a_pause(self) -> None:
        subject = limiter(10, SECOND)
        for seconds in (2.0, datetime.timedelta(seconds=2)):
            begun = loop().now_ns
            subject.pause_for(seconds)
            subject.pause_for(1)
            self.assertIsNone(subject.try_acquire())
            await subject.run(lambda: None)
            self.assertIn(loop().now_ns - begun - 2 * SECOND, range(3))

    @in_manual_time
    async def test_a_pause_ends_at_a_time_of_the_clock(self) -> None:
        subject = limiter(10, SECOND)
        await asyncio.sleep(1)
        subject.pause_until(loop().time() + 2)
        await subject.run(lambda: None)
        self.assertIn(loop().now_ns - 3 * SECOND, range(3))

    @in_manual_time
    async def test_a_pause_ends_at_a_date(self) -> None:
        subject = limiter(10, SECOND)
        when = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
        subject.pause_until(when)
        await subject.run(lambda: None)
        hour = 3600 * SECOND
        self.assertIn(loop().now_ns, range(hour - 600 * SECOND, hour + 1))

    @in_manual_time
    async def test_what_is_no_time_is_an_error(self) -> None:
        subject: Any = limiter(10, SECOND)
        with self.assertRaisesRegex(ValueError, "time zone"):
            subject.pause_until(datetime.datetime.now())
        for call in (subject.pause_until, subject.pause_for):
            with self.assertRaises(ValueError):
                call(float("nan"))
            with self.assertRaises(TypeError):
                call([])
        with self.assertRaisesRegex(ValueError, "no time"):
            subject.pause_for("soon")
        subject.pause_for(-1)
        self.assertTrue(await subject.push(lambda: None))
        subject.pause_for(float("inf"))
        self.assertIsNone(subject.try_acquire())
