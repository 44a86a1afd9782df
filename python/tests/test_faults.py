"""What went wrong in the library that this one began from, each by name."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import tempfile
import types
import unittest
import weakref
from typing import Any, Generator

from async_rate_limiter import RateLimiter, WeightedRateLimiter

from .manual_time import MILLISECOND, in_manual_time, limiter, loop, settle


class FaultsOfTheOriginal(unittest.TestCase):
    @in_manual_time
    async def test_240_concurrent_pushes_never_overlap_and_never_overflow(self) -> None:
        per = 200 * MILLISECOND
        subject = limiter(20, per)
        ends: list[int] = []
        running = most = 0

        async def work() -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.003)
            running -= 1
            ends.append(loop().now_ns)

        await asyncio.gather(*(subject.push(work) for _ in range(240)))
        await subject.drained()
        self.assertEqual(len(ends), 240)
        self.assertEqual(most, 1)
        for index, end in enumerate(ends[:-20]):
            self.assertGreater(ends[index + 20] - 3 * MILLISECOND, end + per)

    @in_manual_time
    async def test_a_task_that_raises_does_not_end_the_queue_behind_it(self) -> None:
        subject = limiter(1, MILLISECOND)
        ran: list[str] = []

        def fails() -> None:
            raise ValueError("this one fails")

        async def fails_later() -> None:
            await asyncio.sleep(0)
            raise KeyError("and this one")

        await subject.push(lambda: ran.append("first"))
        for task in (fails, fails_later, lambda: ran.append("last")):
            self.assertFalse(await subject.push(task))
        await subject.drained()
        self.assertEqual(ran, ["first", "last"])
        failures = [type(failure["exception"]) for failure in loop().failures]
        self.assertEqual(failures, [ValueError, KeyError])

    @in_manual_time
    async def test_every_kind_of_awaitable_is_awaited(self) -> None:
        done: list[str] = []

        class Awaitable:
            def __await__(self) -> Generator[Any, None, None]:
                yield from asyncio.sleep(0.001).__await__()
                done.append("__await__")

        @types.coroutine
        def generator() -> Generator[Any, None, None]:
            yield from asyncio.sleep(0.001).__await__()
            done.append("generator")

        async def coroutine() -> None:
            await asyncio.sleep(0.001)
            done.append("coroutine")

        def future() -> asyncio.Future[None]:
            promise = loop().create_future()
            loop().call_later(0.001, promise.set_result, None)
            promise.add_done_callback(lambda _: done.append("future"))
            return promise

        def task() -> asyncio.Task[None]:
            return loop().create_task(coroutine())

        kinds = [Awaitable, generator, coroutine, future, task]
        names = ["__await__", "generator", "coroutine", "future", "coroutine"]
        at_once = limiter(10, MILLISECOND)
        for kind in kinds:
            self.assertTrue(await at_once.push(kind))
        self.assertEqual(done, names)
        done.clear()
        queued = limiter(1, MILLISECOND)
        await queued.push(lambda: None)
        for kind in kinds:
            self.assertFalse(await queued.push(kind))
        await queued.drained()
        self.assertEqual(done, names)
        self.assertEqual(loop().failures, [])

    def test_rate_0_is_an_error_that_names_the_rate(self) -> None:
        with self.assertRaisesRegex(ValueError, "rate 0"):
            RateLimiter(0, 1000)
        with self.assertRaisesRegex(ValueError, "rate 0"):
            WeightedRateLimiter(allowed_weight=0, per_ns=1000)

    @in_manual_time
    async def test_a_queued_task_is_referenced_while_it_runs(self) -> None:
        subject = limiter(1, MILLISECOND)
        await subject.push(lambda: None)
        wakes: list[weakref.ref[asyncio.Future[None]]] = []
        ended: list[bool] = []

        async def work() -> None:
            # Nothing but the task itself knows this future strongly.
            wake = loop().create_future()
            wakes.append(weakref.ref(wake))
            await wake
            ended.append(True)

        await subject.push(work)
        await asyncio.sleep(0.01)
        gc.collect()
        wake = wakes[0]()
        assert wake is not None, "the task was collected while it ran"
        wake.set_result(None)
        del wake
        await settle()
        self.assertEqual(ended, [True])

    def test_the_package_can_be_imported_as_it_is_installed(self) -> None:
        command = "from async_rate_limiter import RateLimiter, WeightedRateLimiter"
        with tempfile.TemporaryDirectory() as elsewhere:
            subprocess.run([sys.executable, "-c", command], check=True, cwd=elsewhere)
