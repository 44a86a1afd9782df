"""Hooks: what a limiter tells of, when, and that a hook can do no harm."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import sys
import threading
import time
import unittest
import weakref
from typing import Any

from async_rate_limiter import (
    Aborted,
    DeadlineExceeded,
    Event,
    KeyedRateLimiter,
    RateLimiter,
    WouldDeadlock,
)

from .manual_time import SECOND, in_manual_time, limiter, loop, settle

Told = list[Event]


def kinds(told: Told) -> list[str]:
    return [event.kind for event in told]


class Events(unittest.TestCase):
    @in_manual_time
    async def test_each_task_is_granted_and_completed(self) -> None:
        told: Told = []
        subject = limiter(10, SECOND, on_event=told.append)

        async def work() -> None:
            await asyncio.sleep(2)

        await subject.run(work)
        await subject.push(lambda: None)
        async with subject:
            await asyncio.sleep(3)
        with await subject.acquire(2) as permit:
            permit.actual = 5
        unused = subject.try_acquire()
        assert unused is not None
        unused.release_unused()
        with subject.acquire_blocking(), contextlib.suppress(LookupError):
            raise LookupError("no concern of the limiter's")
        with subject:
            pass
        ends = ["completed"] * 4 + ["unused"] + ["completed"] * 2
        self.assertEqual(kinds(told), [kind for end in ends for kind in ("granted", end)])
        self.assertEqual([event.waited for event in told[::2]], [0.0] * 7)
        self.assertEqual([event.took for event in told[1::2]], [2.0, 0, 3.0, 0, 0, 0, 0])
        self.assertEqual([event.excess for event in told[1::2]], [0, 0, 0, 3, 0, 0, 0])
        self.assertEqual([event.weight for event in told[::2]], [1, 1, 1, 2, 1, 1, 1])
        for granted, ended in zip(told[::2], told[1::2]):
            self.assertEqual((granted.id, granted.weight), (ended.id, ended.weight))
            self.assertEqual((granted.running, ended.running), (1, 0))
            self.assertIs(granted.limiter, subject)
            self.assertEqual((granted.took, ended.waited, ended.pause), (None, None, None))
        self.assertEqual(len({event.id for event in told}), 7)
        self.assertEqual(
            repr(told[7]), f"Event(kind='completed', id={told[7].id}, weight=2, took=0, excess=3, "
            "running=0, queued=0)",
        )  # fmt: skip

    @in_manual_time
    async def test_each_waiter_is_queued_and_then_granted_or_left(self) -> None:
        told: Told = []
        subject = limiter(1, SECOND, on_event=told.append)
        await subject.push(lambda: None)
        del told[:]
        waits = asyncio.ensure_future(subject.run(lambda: None))
        cancelled = asyncio.ensure_future(subject.acquire())
        late = asyncio.ensure_future(subject.acquire(timeout=1.5))
        await settle()
        self.assertEqual(
            [(event.kind, event.queued) for event in told], [("queued", 1), ("queued", 2)]
        )
        with self.assertRaises(DeadlineExceeded):
            await late
        await asyncio.sleep(0.5)
        cancelled.cancel()
        await waits
        await subject.push(lambda: None)
        await subject.drained()
        self.assertEqual(
            kinds(told[2:]), ["left", "granted", "completed", "queued", "granted", "completed"]
        )
        self.assertEqual([round(event.waited or 0, 6) for event in told[2:4]], [0.5, 1.0])
        self.assertEqual(
            [event.id for event in told[:4]], [told[0].id, told[1].id, told[1].id, told[0].id]
        )

    @in_manual_time
    async def test_a_task_that_is_cancelled_is_abandoned(self) -> None:
        told: Told = []
        subject = limiter(2, SECOND, on_event=told.append)
        running = asyncio.ensure_future(subject.run(asyncio.sleep, 10))
        await asyncio.sleep(3)
        running.cancel()
        await settle()
        self.assertEqual(
            [(event.kind, event.took) for event in told], [("granted", None), ("abandoned", 3.0)]
        )

    @in_manual_time
    async def test_what_the_collector_ends_is_told_by_the_next_call(self) -> None:
        told: Told = []
        subject = limiter(2, SECOND, on_event=told.append)
        permit = subject.try_acquire()
        del permit
        self.assertEqual(kinds(told), ["granted"])
        subject.try_acquire()
        self.assertEqual(kinds(told), ["granted", "abandoned", "granted"])

    @in_manual_time
    async def test_waiters_that_are_refused_or_aborted_have_left(self) -> None:
        told: Told = []
        subject = limiter(limits=["3w/1s"], on_event=told.append)
        subject.pause_for(10)
        heavy = asyncio.ensure_future(subject.acquire(3))
        light = asyncio.ensure_future(subject.acquire(1))
        await settle()
        subject.set_limits(["2w/1s"])
        self.assertEqual(kinds(told), ["paused", "queued", "queued", "left"])
        subject.abort()
        self.assertEqual(kinds(told)[4:], ["left"])
        with self.assertRaises(ValueError):
            await heavy
        with self.assertRaises(Aborted):
            await light

    @in_manual_time
    async def test_pauses_are_told_when_they_begin_grow_and_are_ended(self) -> None:
        told: Told = []
        subject = limiter(2, SECOND, on_event=told.append)
        subject.pause_for(5)
        subject.pause_for(3)
        subject.pause_until(asyncio.get_running_loop().time() + 8)
        subject.resume()
        subject.resume()
        self.assertEqual(
            [(event.kind, event.pause, event.id) for event in told],
            [("paused", 5.0, None), ("paused", 8.0, None), ("resumed", None, None)],
        )

    @in_manual_time
    async def test_blocks_that_overlap_have_the_times_of_their_own_tasks(self) -> None:
        told: Told = []
        subject = limiter(10, SECOND, concurrency=3, on_event=told.append)

        async def block(seconds: float) -> None:
            async with subject:
                await asyncio.sleep(seconds)

        await asyncio.gather(block(3), block(1), block(2))
        self.assertEqual([event.took for event in told[3:]], [1.0, 2.0, 3.0])
        self.assertEqual([event.id for event in told[3:]], [told[i].id for i in (1, 2, 0)])

    @in_manual_time
    async def test_a_keyed_limiter_tells_of_all_its_keys(self) -> None:
        told: Told = []
        subject: KeyedRateLimiter[str] = KeyedRateLimiter(
            1, SECOND, clock=loop().clock, on_event=told.append
        )
        await subject.run("alice", int)
        await subject.run("bob", int)
        self.assertEqual(kinds(told), ["granted", "completed"] * 2)
        self.assertIs(told[2].limiter, subject["bob"])

    def test_threads_are_told_of_too(self) -> None:
        told: Told = []
        subject = RateLimiter(100, per=1, on_event=told.append)
        first = subject.acquire_blocking()

        def wait() -> None:
            with subject:
                pass

        thread = threading.Thread(target=wait)
        thread.start()
        while subject.stats().queued == 0:
            time.sleep(0.001)
        first.complete()
        thread.join()
        self.assertEqual(kinds(told), ["granted", "queued", "completed", "granted", "completed"])

    def test_a_hook_is_collected_with_its_limiter(self) -> None:
        class Recorder(list[Event]):
            pass

        recorder = Recorder()
        subject = RateLimiter(100, per=1, on_event=recorder.append)
        subject.try_acquire()
        gone = weakref.ref(subject), weakref.ref(recorder)
        del subject, recorder
        gc.collect()
        self.assertEqual([reference() for reference in gone], [None, None])


class Harm(unittest.TestCase):
    @in_manual_time
    async def test_what_a_hook_raises_is_reported_and_changes_nothing(self) -> None:
        def hook(event: Event) -> None:
            raise LookupError(event.kind)

        subject = limiter(1, SECOND, on_event=hook)
        ran: list[int] = []
        for number in range(3):
            await subject.push(functools.partial(ran.append, number))
        self.assertEqual(await subject.run(lambda: 5), 5)
        await subject.drained()
        self.assertEqual((ran, subject.stats().running), ([0, 1, 2], 0))
        reported = [str(failure["exception"]) for failure in loop().failures]
        self.assertEqual(reported.count("granted"), 4)
        self.assertEqual(len(reported), 4 + 4 + 3)
        self.assertIn("on_event of RateLimiter 1/1s failed", loop().failures[0]["message"])

    def test_without_a_loop_it_is_reported_as_unraisable(self) -> None:
        reported: list[Any] = []
        before = sys.unraisablehook
        sys.unraisablehook = lambda hook: reported.append(hook.exc_value)
        try:
            with RateLimiter(1, per=1, on_event=lambda event: event.nothing):  # type: ignore[attr-defined]
                pass
        finally:
            sys.unraisablehook = before
        self.assertEqual([type(error) for error in reported], [AttributeError] * 2)

    def test_what_ends_the_program_is_raised_and_loses_no_permit(self) -> None:
        for kind in (KeyboardInterrupt, SystemExit):
            for told in ("granted", "completed", "queued", "left", "unused"):
                with self.subTest(kind=kind.__name__, told=told):
                    self.interrupted_by(kind, told)

    def interrupted_by(self, kind: type[BaseException], told: str) -> None:
        armed = True

        def hook(event: Event) -> None:
            nonlocal armed
            if armed and event.kind == told:
                armed = False
                raise kind("in a hook")

        subject = RateLimiter(100, per=0.001, on_event=hook)

        async def all_of_it() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            permit = await subject.acquire()
            waits = asyncio.ensure_future(subject.acquire())
            await asyncio.sleep(0)
            waits.cancel()
            await asyncio.sleep(0)
            permit.release_unused()
            await subject.push(lambda: None)

        with self.assertRaises(kind):
            asyncio.run(all_of_it())
        gc.collect()
        self.assertEqual((subject.stats().running, subject.stats().queued), (0, 0))
        ran: list[int] = []
        asyncio.run(subject.run(ran.append, 1))
        self.assertEqual(ran, [1])

    @in_manual_time
    async def test_a_hook_may_call_its_limiter_and_is_never_called_within_itself(self) -> None:
        told: list[str] = []
        depth = 0

        def hook(event: Event) -> None:
            nonlocal depth
            depth += 1
            told.append(f"{depth} {event.kind}")
            if len(told) < 4:
                permit = event.limiter.try_acquire()
                if permit is not None:
                    permit.complete()
            depth -= 1

        subject = limiter(10, SECOND, concurrency=5, on_event=hook)
        await subject.run(lambda: None)
        self.assertEqual({text[0] for text in told}, {"1"})
        self.assertEqual(told.count("1 granted"), told.count("1 completed"))
        self.assertEqual(subject.stats().running, 0)

    def test_a_hook_that_would_wait_is_refused(self) -> None:
        refused: list[BaseException] = []

        def hook(event: Event) -> None:
            if event.kind == "granted":
                try:
                    event.limiter.acquire_blocking(timeout=0.05)
                except RuntimeError as error:
                    refused.append(error)

        with RateLimiter(10, per=0.001, on_event=hook):
            pass
        self.assertEqual([type(error) for error in refused], [WouldDeadlock])

    def test_threads_keep_their_own_count_while_a_hook_is_slow(self) -> None:
        told: Told = []

        def hook(event: Event) -> None:
            time.sleep(0.0001)
            told.append(event)

        subject = RateLimiter(10**6, per=1, concurrency=4, on_event=hook)

        def work() -> None:
            for _ in range(50):
                with subject:
                    pass

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        subject.resume()
        self.assertEqual(kinds(told).count("granted"), 200)
        self.assertEqual(kinds(told).count("completed"), 200)
        self.assertEqual([event.kind for event in told if event.id is None], [])

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork here")
    def test_a_forked_child_tells_of_its_own_tasks_alone(self) -> None:
        told: list[str] = []
        child = 0

        def hook(event: Event) -> None:
            nonlocal child
            told.append(event.kind)
            if event.kind == "granted" and not child:
                child = os.fork() or -1

        subject = RateLimiter(100, per=0.001, concurrency=2, on_event=hook)
        held = subject.try_acquire()
        assert held is not None
        if child == -1:
            # The parent's permit is none of the child's.
            told.clear()
            with contextlib.suppress(RuntimeError):
                held.complete()
            with subject:
                pass
            os._exit(0 if told == ["granted", "completed"] else 9)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        held.complete()
        self.assertEqual(told, ["granted", "completed"])

    @unittest.skipUnless(hasattr(os, "fork"), "there is no fork here")
    def test_a_child_forked_while_a_thread_is_in_a_hook_is_told_of_its_own(self) -> None:
        told: list[str] = []
        entered, leaves = threading.Event(), threading.Event()

        def hook(event: Event) -> None:
            told.append(event.kind)
            if threading.current_thread() is not threading.main_thread():
                entered.set()
                leaves.wait()

        subject = RateLimiter(100, per=0.001, concurrency=2, on_event=hook)
        thread = threading.Thread(target=subject.try_acquire)
        thread.start()
        entered.wait()
        child = os.fork()
        if child == 0:
            told.clear()
            with subject:
                pass
            os._exit(0 if told == ["granted", "completed"] else 9)
        leaves.set()
        thread.join()
        self.assertEqual(os.waitpid(child, 0)[1], 0)


class OnError(unittest.TestCase):
    def test_what_ends_the_program_is_raised_out_of_on_error(self) -> None:
        def on_error(_: BaseException) -> None:
            raise KeyboardInterrupt("in on_error")

        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            subject = RateLimiter(1, per=0.001, on_error=on_error)
            await subject.push(lambda: None)
            await subject.push(lambda: 1 / 0)
            await subject.drained()

        with self.assertRaises(KeyboardInterrupt):
            asyncio.run(main())
