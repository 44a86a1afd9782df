"""Memory, counted: nothing is kept that is over. Time is real here, and does not matter."""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import unittest
import weakref
from pathlib import Path

from async_rate_limiter import RateLimiter

MEGABYTE = 1 << 20
HOUR = 3_600_000_000_000


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class Memory(unittest.TestCase):
    @unittest.skipUnless(sys.platform == "linux", "reads /proc")
    def test_ten_million_pushes_leave_nothing(self) -> None:
        async def coroutine() -> None: ...

        def function() -> None: ...

        async def some(subject: RateLimiter, pushes: int) -> None:
            for _ in range(pushes // 2):
                await subject.push(function)
                await subject.push(coroutine)

        async def main() -> None:
            subject = RateLimiter(1000, 1000)
            await some(subject, 100_000)
            gc.collect()
            before, objects = resident(), len(gc.get_objects())
            # A debug build takes ten times as long for each.
            await some(subject, 500_000 if hasattr(sys, "gettotalrefcount") else 10_000_000)
            gc.collect()
            self.assertLess(resident() - before, MEGABYTE)
            self.assertLess(len(gc.get_objects()) - objects, 100)

        asyncio.run(main())

    @unittest.skipUnless(sys.platform == "linux", "reads /proc")
    def test_a_million_queued_pushes_take_less_than_200_bytes_each(self) -> None:
        def function() -> None: ...

        async def main() -> None:
            subject = RateLimiter(1, HOUR)
            await subject.push(function)
            before = resident()
            for _ in range(1_000_000):
                await subject.push(function)
            self.assertLess((resident() - before) / 1_000_000, 200)
            self.assertEqual(len(subject.abort()), 1_000_000)

        asyncio.run(main())

    def test_a_task_is_let_go_of_as_soon_as_it_is_over(self) -> None:
        class Task:
            def __call__(self) -> None: ...

        class AsyncTask:
            async def __call__(self) -> None:
                await asyncio.sleep(0)

        async def main() -> None:
            subject = RateLimiter(1, 1_000_000)
            for kind in (Task, AsyncTask):
                gone = []
                for task in [kind(), kind(), kind()]:
                    gone.append(weakref.ref(task))
                    await subject.push(task)
                del task
                await subject.drained()
                await asyncio.sleep(0)
                self.assertEqual([reference() for reference in gone], [None] * 3)

        asyncio.run(main())

    def test_counting_every_reference_nothing_is_kept(self) -> None:
        if not hasattr(sys, "gettotalrefcount"):
            self.skipTest("needs a debug build of Python, which counts references")

        def fails() -> None:
            raise ValueError

        async def coroutine() -> int:
            await asyncio.sleep(0)
            return 5

        async def everything() -> None:
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda *_: None)
            subject = RateLimiter(1, 1000, queue_capacity=3, on_error=lambda _: None)
            for task in (lambda: None, fails, coroutine):
                for _ in range(3):
                    try:
                        await subject.push(task)
                        await subject.run(task, weight=1)
                    except ValueError:
                        pass
                cancelled = loop.create_task(subject.run(task))
                await asyncio.sleep(0)
                cancelled.cancel()
                async with subject.weight(1) as permit:
                    permit.actual = 1
                async with subject:
                    pass
                held = subject.try_acquire()
                self.assertIn("RateLimiter", f"{subject!r} {held!r} {subject.stats()!r}")
                del held
            await subject.drained()
            subject.abort()

        for _ in range(3):
            asyncio.run(everything())
        counts = []
        for _ in range(6):
            gc.collect()
            counts.append(sys.gettotalrefcount())
            asyncio.run(everything())
        grown = [later - earlier for earlier, later in zip(counts, counts[1:])]
        self.assertLess(min(grown), 10, f"references grow with every round: {grown}")
