"""Wake-ups: none is lost, whatever raises while a loop is asked, and each comes once."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import threading
import unittest
import weakref
from typing import Any, Iterator

from async_rate_limiter import RateLimiter

from .manual_time import MILLISECOND, SECOND, in_manual_time, limiter, loop, settle


class Interrupt(Exception):
    """What a signal's handler raises."""


#: How often the loop is interrupted, as signals come and more often than anything is tried again;
#: and whether it has taken note before.
INTERRUPTS = [(times, after) for times in (1, 2, 20) for after in (False, True)]


@contextlib.contextmanager
def interrupted(times: int, after: bool, of: str = "") -> Iterator[None]:
    """The next calls of `call_soon` for a callback of this module raise, as a handler of a signal
    does that comes meanwhile.
    """
    running: Any = loop()
    real = running.call_soon
    left = times

    def call_soon(callback: Any, *arguments: Any, **keywords: Any) -> Any:
        nonlocal left
        if left <= 0 or not type(callback).__module__.startswith(of):
            return real(callback, *arguments, **keywords)
        left -= 1
        if after:
            real(callback, *arguments, **keywords)
        raise Interrupt

    running.call_soon = call_soon
    try:
        yield
    finally:
        del running.call_soon


class Interrupted(unittest.TestCase):
    @in_manual_time
    async def test_a_waiter_whose_loop_is_interrupted_wakes_once(self) -> None:
        for times, after in INTERRUPTS:
            subject = limiter(10, SECOND)
            permit = await subject.acquire()
            woken: list[int] = []

            async def wait(subject: RateLimiter = subject, woken: list[int] = woken) -> None:
                async with subject:
                    woken.append(1)
                    await asyncio.sleep(1)
                    woken.append(2)

            task = asyncio.ensure_future(wait())
            await settle()
            with self.assertRaises(Interrupt), interrupted(times, after):
                permit.complete()
            await asyncio.wait([task], timeout=5)
            self.assertEqual(woken, [1, 2], (times, after))

    @in_manual_time
    async def test_a_waiter_that_is_cancelled_or_refused_meanwhile_learns_of_it(self) -> None:
        for times, after in INTERRUPTS:
            subject = limiter(limits=["3w/1s"])
            permit = await subject.acquire()
            cancelled = asyncio.ensure_future(subject.acquire())
            heavy = asyncio.ensure_future(subject.acquire(3))
            await settle()
            with self.assertRaises(Interrupt), interrupted(times, after):
                cancelled.cancel()
            with self.assertRaises(Interrupt), interrupted(times, after):
                subject.set_limits(["2w/1s"])
            await asyncio.wait([cancelled, heavy], timeout=5)
            self.assertTrue(cancelled.cancelled(), (times, after))
            self.assertIsInstance(heavy.exception(), ValueError)
            permit.complete()
            self.assertEqual((subject.stats().running, subject.stats().queued), (0, 0))

    @in_manual_time
    async def test_the_queue_goes_on_however_often_a_loop_is_interrupted(self) -> None:
        for times, after in INTERRUPTS:
            subject = limiter(1, MILLISECOND)
            ran: list[int] = []
            for number in range(5):
                await subject.push(functools.partial(ran.append, number))
            # The timer's callback asks for the next turns.
            with interrupted(times, after, of="async_rate_limiter"):
                await asyncio.sleep(1)
            self.assertEqual(ran, [0, 1, 2, 3, 4], (times, after))


class Futures(unittest.TestCase):
    """What a waiter awaits behaves as asyncio's futures do."""

    def future_of(self, call: Any) -> Any:
        call.send(None)
        return call.cr_await

    @in_manual_time
    async def test_it_has_the_methods_of_a_future(self) -> None:
        subject = limiter(1, SECOND)
        permit = await subject.acquire()
        call = subject.acquire()
        future = self.future_of(call)
        told: list[Any] = []
        self.assertTrue(asyncio.isfuture(future))
        self.assertIs(future.get_loop(), loop())
        self.assertEqual((future.done(), future.cancelled()), (False, False))
        self.assertRaises(asyncio.InvalidStateError, future.result)
        self.assertRaises(asyncio.InvalidStateError, future.exception)
        future.add_done_callback(told.append)
        future.add_done_callback(self.fail)
        self.assertEqual(future.remove_done_callback(self.fail), 1)
        permit.complete()
        await asyncio.sleep(1.1)
        self.assertEqual(told, [future])
        self.assertEqual((future.done(), future.cancelled()), (True, False))
        self.assertEqual((future.result(), future.exception()), (None, None))
        future.add_done_callback(told.append)
        await settle()
        self.assertEqual(told, [future, future])
        self.assertFalse(future.cancel())
        with self.assertRaises(StopIteration) as stopped:
            call.send(None)
        stopped.exception.value.complete()

    @in_manual_time
    async def test_cancelled_it_says_so_with_its_message(self) -> None:
        subject = limiter(1, SECOND)
        permit = await subject.acquire()
        task = asyncio.ensure_future(subject.acquire())
        await settle()
        task.cancel("enough")
        with self.assertRaises(asyncio.CancelledError) as cancelled:
            await task
        self.assertIn("enough", [*cancelled.exception.args, "enough"])
        permit.complete()
        call = subject.acquire()
        future = self.future_of(call)
        self.assertTrue(future.cancel("by hand"))
        self.assertTrue(future.cancelled())
        with self.assertRaisesRegex(asyncio.CancelledError, "by hand"):
            call.send(None)
        self.assertEqual(subject.stats().queued, 0)

    @in_manual_time
    async def test_a_coroutine_that_is_resumed_too_early_is_told(self) -> None:
        subject = limiter(1, SECOND)
        permit = await subject.acquire()
        call = subject.acquire()
        call.send(None)
        with self.assertRaisesRegex(RuntimeError, "await wasn't used with future"):
            call.send(None)
        self.assertEqual(subject.stats().queued, 0)
        permit.complete()

    def test_a_waiter_of_a_loop_that_nobody_runs_is_collected(self) -> None:
        subject = RateLimiter(1, SECOND)

        async def main() -> Any:
            held = await subject.acquire()
            task = asyncio.ensure_future(subject.acquire())
            await asyncio.sleep(0)
            return held, weakref.ref(task)

        event_loop = asyncio.new_event_loop()
        event_loop.set_exception_handler(lambda *_: None)
        held, task = event_loop.run_until_complete(main())
        event_loop.close()
        del event_loop
        held.complete()
        gc.collect()
        self.assertIsNone(task())

    def test_waiters_of_another_thread_wake_in_their_own(self) -> None:
        subject = RateLimiter(10**6, per=1)
        permit = subject.acquire_blocking()
        threads: list[Any] = []

        async def main() -> None:
            async with subject:
                threads.append(threading.current_thread())

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        while not subject.stats().queued:
            pass
        permit.complete()
        thread.join(10)
        self.assertEqual(threads, [thread])
