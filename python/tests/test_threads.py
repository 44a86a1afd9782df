"""Threads and loops that share one limiter. Time is real here."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import signal
import threading
import time
import unittest
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Iterator

from async_rate_limiter import (
    Aborted,
    DeadlineExceeded,
    RateLimiter,
    WeightedRateLimiter,
    WouldDeadlock,
)

from .test_loops import loops

HOUR = 3_600_000_000_000
MILLISECOND = 1_000_000


def full() -> RateLimiter:
    """A limiter whose window is full for an hour."""
    subject = RateLimiter(1, HOUR)
    with subject:
        pass
    return subject


def until(condition: Callable[[], object]) -> None:
    """Waits for other threads."""
    while not condition():
        time.sleep(0.001)


@contextlib.contextmanager
def signalled_once_it_waits(
    subject: RateLimiter, handled: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Sends this thread a signal once it waits. Once that is handled, nothing is paused."""
    waits = threading.get_ident()

    def send() -> None:
        until(lambda: subject.stats().queued)
        signal.pthread_kill(waits, signal.SIGUSR1)
        handled()
        subject.resume()

    sender = threading.Thread(target=send)
    sender.start()
    yield
    sender.join()


class Threads(unittest.TestCase):
    def test_a_window_shared_by_threads_and_loops_never_overflows(self) -> None:
        rate, per = 20, 100 * MILLISECOND
        for concurrency in (1, 8):
            subject = RateLimiter(rate, per, concurrency=concurrency)
            spans: list[tuple[int, int]] = []
            running = 0
            most = 0

            def task(begun: int) -> None:
                nonlocal running
                running -= 1
                spans.append((begun, time.monotonic_ns()))

            def begin() -> int:
                nonlocal running, most
                running += 1
                most = max(most, running)
                return time.monotonic_ns()

            def block() -> None:
                for _ in range(10):
                    with subject:
                        begun = begin()
                        time.sleep(0.0005)
                        task(begun)

            async def work() -> None:
                begun = begin()
                await asyncio.sleep(0.0005)
                task(begun)

            async def main() -> None:
                for _ in range(5):
                    await subject.push(work)
                await asyncio.gather(*(subject.run(work) for _ in range(5)))
                await subject.drained()

            with ThreadPoolExecutor(8) as pool:
                jobs = [pool.submit(block) for _ in range(4)]
                jobs += [pool.submit(asyncio.run, main()) for _ in range(4)]
                for job in jobs:
                    job.result(120)
            self.assertEqual(len(spans), 80)
            self.assertLessEqual(most, concurrency)
            for begun, _ in spans:
                before = [1 for b, e in spans if b < begun and e >= begun - per]
                self.assertLess(len(before), rate, concurrency)
            self.assertEqual((subject.stats().running, subject.stats().queued), (0, 0))

    def test_threads_and_coroutines_wait_in_one_queue_first_in_first_out(self) -> None:
        subject = RateLimiter(100, HOUR)
        order: list[int] = []
        permit = subject.acquire_blocking()

        def has_queued(tasks: int) -> bool:
            return subject.stats().queued == tasks

        def block(number: int) -> None:
            with subject:
                order.append(number)

        async def wait(number: int) -> None:
            async with subject:
                order.append(number)

        with ThreadPoolExecutor(8) as pool:
            jobs: list[Future[Any]] = []
            for number in range(8):
                if number % 2:
                    jobs.append(pool.submit(asyncio.run, wait(number)))
                else:
                    jobs.append(pool.submit(block, number))
                until(functools.partial(has_queued, number + 1))
            permit.complete()
            for job in jobs:
                job.result(60)
        self.assertEqual(order, list(range(8)))

    def test_one_loop_of_many_may_be_closed_and_the_others_go_on(self) -> None:
        subject = RateLimiter(100, HOUR)
        said: list[str] = []
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda _, context: said.append(context["message"]))

        async def main() -> None:
            await subject.push(lambda: None)
            subject.pause_for(3600)
            await subject.push(lambda: asyncio.sleep(3600))
            await subject.push(lambda: None)
            subject.resume()
            while not subject.stats().running:
                await asyncio.sleep(0.001)

        loop.run_until_complete(main())
        with ThreadPoolExecutor(2) as pool:
            waits: list[Future[Any]] = [
                pool.submit(asyncio.run, asyncio.wait_for(subject.run(lambda: "loop"), 60)),
                pool.submit(lambda: subject.acquire_blocking(timeout=60).complete()),
            ]
            until(lambda: subject.stats().queued == 3)
            loop.close()
            self.assertEqual([wait.result(60) for wait in waits], ["loop", 0])
        self.assertTrue(any("1 queued task of" in message for message in said), said)

    def test_loops_that_are_never_closed_may_follow_each_other(self) -> None:
        subject = RateLimiter(2, 20 * MILLISECOND)
        for make in loops():
            kept = []
            for _ in range(5):
                loop = make()
                kept.append(loop)
                self.assertEqual(loop.run_until_complete(subject.run(lambda: 5)), 5)
            for loop in kept:
                loop.close()

    def test_a_loop_inside_a_loop_is_told_from_its_outer(self) -> None:
        subject = RateLimiter(2, 20 * MILLISECOND)

        async def outer() -> list[int]:
            answers = [await subject.run(lambda: 0)]
            running = asyncio.get_running_loop()
            asyncio._set_running_loop(None)
            try:
                inner = asyncio.new_event_loop()
                for number in range(1, 5):
                    waits = asyncio.wait_for(subject.run(int, number), 60)
                    answers.append(inner.run_until_complete(waits))
                inner.close()
            finally:
                asyncio._set_running_loop(running)
            return [*answers, await subject.run(lambda: 5)]

        self.assertEqual(asyncio.run(outer()), list(range(6)))

    def test_a_coroutine_is_woken_on_its_own_loop(self) -> None:
        subject = RateLimiter(100, HOUR)
        permit = subject.acquire_blocking()

        async def main() -> int:
            async with subject:
                return threading.get_ident()

        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(lambda: (asyncio.run(main(), debug=True), threading.get_ident()))
            until(lambda: subject.stats().queued == 1)
            permit.complete()
            self.assertEqual(*job.result(60))

    def test_a_coroutine_is_woken_at_once_on_a_loop_that_moved_to_another_thread(self) -> None:
        subject = RateLimiter(100, HOUR)
        permit = subject.acquire_blocking()
        for make in loops():
            loop = make()
            waits = loop.create_task(subject.acquire())
            loop.run_until_complete(asyncio.sleep(0))
            self.assertEqual(subject.stats().queued, 1)
            # Nothing else wakes the loop.
            with ThreadPoolExecutor(1) as pool:
                job = pool.submit(loop.run_until_complete, waits)
                until(loop.is_running)
                permit.complete()
                permit = job.result(60)
            loop.close()

    def test_a_thread_is_not_taken_for_one_that_has_ended(self) -> None:
        subject = RateLimiter(1000, HOUR)
        for _ in range(50):
            thread = threading.Thread(target=subject.__enter__)
            thread.start()
            thread.join()
            # Left by another thread than the one that entered.
            subject.__exit__(None, None, None)
        permit = subject.acquire_blocking()
        with ThreadPoolExecutor(20) as pool:
            jobs = [pool.submit(subject.acquire_blocking) for _ in range(20)]
            until(lambda: subject.stats().queued == 20)
            permit.complete()
            for job in concurrent.futures.as_completed(jobs, 60):
                job.result().complete()

    def test_a_pushed_task_runs_on_the_loop_that_pushed_it(self) -> None:
        subject = RateLimiter(100, HOUR)
        permit = subject.acquire_blocking()
        ran_in: list[int] = []

        async def main() -> int:
            await subject.push(lambda: ran_in.append(threading.get_ident()))
            while not ran_in:
                await asyncio.sleep(0.001)
            return threading.get_ident()

        with ThreadPoolExecutor(1) as pool:
            job = pool.submit(asyncio.run, main())
            until(lambda: subject.stats().queued == 1)
            permit.complete()
            self.assertEqual([job.result(60)], ran_in)

    def test_a_blocking_wait_ends_at_its_timeout(self) -> None:
        subject = full()
        with self.assertRaises(DeadlineExceeded) as raised:
            subject.acquire_blocking(timeout=1)
        opening: Any = raised.exception
        self.assertAlmostEqual(opening.next_opening, time.monotonic() + 3600, delta=60)
        self.assertIsInstance(raised.exception, TimeoutError)
        # While something runs, nobody knows.
        subject = RateLimiter(2, HOUR)
        with subject, ThreadPoolExecutor(1) as pool:
            job = pool.submit(subject.acquire_blocking, timeout=0.02)
            self.assertIsInstance(job.exception(60), DeadlineExceeded)
        self.assertEqual(subject.stats().queued, 0)

    def test_abort_and_new_limits_wake_blocked_threads(self) -> None:
        subject = WeightedRateLimiter(10, HOUR)
        held = subject.acquire_blocking(weight=10)
        with ThreadPoolExecutor(2) as pool:
            heavy = pool.submit(subject.acquire_blocking, weight=9)
            until(lambda: subject.stats().queued == 1)
            subject.set_limits(["5w/1h"])
            self.assertRegex(str(heavy.exception(60)), "weight 9 is over the limit 5w/1h")
            light = pool.submit(subject.acquire_blocking, weight=1)
            until(lambda: subject.stats().queued == 1)
            self.assertEqual(subject.abort(), [])
            self.assertIsInstance(light.exception(60), Aborted)
        held.complete()

    def test_a_signal_handler_that_raises_ends_a_blocking_wait(self) -> None:
        subject = full()

        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGUSR1, interrupt)
        try:
            with signalled_once_it_waits(subject), self.assertRaises(KeyboardInterrupt):
                subject.acquire_blocking()
        finally:
            signal.signal(signal.SIGUSR1, before)
        self.assertEqual(subject.stats().queued, 0)

    def test_a_signal_handler_that_would_wait_behind_its_own_thread_is_told(self) -> None:
        subject = RateLimiter(1, 100 * MILLISECOND)
        told: list[str] = []

        def handler(*_: object) -> None:
            try:
                with subject:
                    pass
            except WouldDeadlock:
                told.append("told")

        before = signal.signal(signal.SIGUSR1, handler)
        try:
            subject.pause_for(HOUR / 1e9)
            with signalled_once_it_waits(subject, lambda: until(lambda: told)), subject:
                pass
        finally:
            signal.signal(signal.SIGUSR1, before)
        self.assertEqual(told, ["told"])

    def test_a_thread_that_would_wait_for_itself_is_told(self) -> None:
        subject = RateLimiter(100, HOUR)
        with subject:
            with self.assertRaises(WouldDeadlock):
                subject.acquire_blocking()
            # Another thread holds nothing, so it waits.
            with ThreadPoolExecutor(1) as pool:
                job = pool.submit(subject.acquire_blocking, timeout=0.01)
                self.assertIsInstance(job.exception(60), DeadlineExceeded)

    def test_in_a_running_loop_it_waits_for_time_alone(self) -> None:
        async def main() -> None:
            subject = RateLimiter(1, 20 * MILLISECOND)
            for _ in range(3):
                with subject:
                    pass
            async with subject:
                with self.assertRaisesRegex(WouldDeadlock, "block the event loop"), subject:
                    pass
            # Others run, and the concurrency has room: it is the window that it waits for.
            subject = RateLimiter(2, 20 * MILLISECOND, concurrency=4)
            async with subject:
                for _ in range(3):
                    with subject:
                        pass

        asyncio.run(main())

    def test_sync_functions_are_decorated(self) -> None:
        subject = RateLimiter(2, 20 * MILLISECOND)

        @subject
        def ask(what: str, *, times: int = 1) -> str:
            """Asks."""
            return what * times

        self.assertEqual([ask("a", times=2) for _ in range(5)], ["aa"] * 5)
        self.assertEqual((ask.__doc__, ask.__name__), ("Asks.", "ask"))
        self.assertEqual((subject.stats().running, subject.stats().completed), (0, 5))

    def test_a_block_of_weight_blocks_its_thread(self) -> None:
        subject = WeightedRateLimiter(10, HOUR)
        with subject.weight(6) as permit:
            permit.actual = 2
        self.assertEqual(subject.stats().held[0].units, 2)
        with subject.weight(8):
            pass
        with self.assertRaises(DeadlineExceeded), subject.weight(1, timeout=0.01):
            pass
