"""The loop that a limiter belongs to: another one, another thread, its end. Time is real here."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import subprocess
import sys
import threading
import time
import unittest
import weakref
from typing import Any

from async_rate_limiter import RateLimiter

HOUR = 3_600_000_000_000


def loops() -> list[Any]:
    """asyncio's own, and uvloop's where it is installed."""
    if importlib.util.find_spec("uvloop") is None:
        return [asyncio.new_event_loop]
    return [asyncio.new_event_loop, importlib.import_module("uvloop").new_event_loop]


class Loops(unittest.TestCase):
    def test_a_loop_may_be_run_again(self) -> None:
        for make in loops():
            loop = make()
            subject = RateLimiter(1, 1_000_000)
            ran: list[int] = []
            for _ in range(3):
                loop.run_until_complete(subject.push(lambda: ran.append(1)))
                loop.run_until_complete(subject.drained())
            self.assertEqual(len(ran), 3)
            loop.close()

    def test_a_new_loop_is_welcome_once_the_old_one_is_closed_and_the_window_stays(self) -> None:
        subject = RateLimiter(2, HOUR)
        self.assertTrue(asyncio.run(subject.push(lambda: None)))
        self.assertTrue(asyncio.run(subject.push(lambda: None)))

        async def main() -> bool:
            answer = await subject.push(lambda: None)
            subject.abort()
            return answer

        self.assertFalse(asyncio.run(main()))

    def test_without_a_loop_there_is_no_awaiting(self) -> None:
        subject = RateLimiter(1, HOUR)
        self.assertRaises(StopIteration, subject.push(lambda: None).send, None)
        call: Any = subject.push(lambda: None)
        with self.assertRaisesRegex(RuntimeError, "no running event loop"):
            call.send(None)

    def test_a_permit_may_complete_in_another_thread(self) -> None:
        async def main() -> None:
            subject = RateLimiter(100, 1_000_000)
            permit = await subject.acquire()
            waits = asyncio.ensure_future(subject.run(lambda: threading.get_ident()))
            await asyncio.sleep(0)

            def later() -> None:
                time.sleep(0.02)
                permit.complete()

            thread = threading.Thread(target=later)
            thread.start()
            self.assertEqual(await asyncio.wait_for(waits, 60), threading.get_ident())
            thread.join()

        # In debug mode the loop minds being called from another thread in the wrong way.
        asyncio.run(main(), debug=True)

    def test_a_loop_that_closes_with_tasks_queued_says_so(self) -> None:
        for make in loops():
            for rate in (1, 100):
                loop = make()
                said: list[dict[str, Any]] = []
                loop.set_exception_handler(lambda _, context: said.append(context))
                subject = RateLimiter(rate, HOUR)

                async def main() -> None:
                    subject.pause_for(3600)
                    for _ in range(3):
                        self.assertFalse(await subject.push(lambda: None))
                    await asyncio.sleep(0.001)

                loop.run_until_complete(main())
                self.assertEqual(said, [])
                loop.close()
                gc.collect()
                (context,) = said
                self.assertRegex(
                    context["message"], "3 queued tasks of RateLimiter 1(00)?/1h never ran"
                )
                self.assertIs(context["limiter"], subject)
                self.assertEqual(subject.stats().queued, 0)
                if make is asyncio.new_event_loop:
                    gone = weakref.ref(loop)
                    del loop
                    gc.collect()
                    self.assertIsNone(gone())

    def test_a_loop_that_closes_while_a_queued_task_runs_says_so(self) -> None:
        program = (
            "import asyncio\n"
            "from async_rate_limiter import RateLimiter\n"
            "loop = asyncio.new_event_loop()\n"
            "async def main():\n"
            "    limiter = RateLimiter(10, 1000)\n"
            "    limiter.pause_for(3600)\n"
            "    await limiter.push(lambda: asyncio.sleep(3600))\n"
            "    await limiter.push(print)\n"
            "    limiter.resume()\n"
            "    while not limiter.stats().running: await asyncio.sleep(0.001)\n"
            "loop.run_until_complete(main())\n"
            "loop.close()\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        # The limiter, its loop and its task are found to be garbage together.
        self.assertIn("Task was destroyed but it is pending", ran.stderr)
        self.assertRegex(ran.stderr, r"1 queued task of RateLimiter 10/1us never ran")

    def test_a_limiter_that_outlives_its_loop_forgets_what_ran_there(self) -> None:
        for make in loops():
            said: list[str] = []
            subject = RateLimiter(100, 1000)
            loop = make()
            loop.set_exception_handler(lambda _, context: said.append(context["message"]))

            async def main() -> None:
                subject.pause_for(3600)
                await subject.push(lambda: asyncio.sleep(3600))
                await subject.push(lambda: None)
                subject.resume()
                while not subject.stats().running:
                    await asyncio.sleep(0.001)

            loop.run_until_complete(main())
            loop.close()
            self.assertEqual(subject.stats().running, 1)
            answer = asyncio.run(asyncio.wait_for(subject.run(lambda: 5), 60))
            self.assertEqual(answer, 5)
            self.assertEqual((subject.stats().running, subject.stats().completed), (0, 2))
            self.assertTrue(any("1 queued task of" in message for message in said), said)

    def test_a_pause_until_a_time_of_the_loop_ends_no_earlier(self) -> None:
        async def main() -> None:
            loop = asyncio.get_running_loop()
            subject = RateLimiter(100, 1000)
            # Not at the beginning of the limiter's own time.
            await asyncio.sleep(0.01)
            until = loop.time() + 0.05
            subject.pause_until(until)
            opening = subject.stats().next_opening
            assert opening is not None
            self.assertAlmostEqual(opening, until, delta=0.001)
            self.assertGreaterEqual(await subject.run(loop.time), until)

        asyncio.run(main())

    def test_the_originals_example_runs(self) -> None:
        program = (
            "import asyncio\n"
            "from datetime import timedelta\n"
            "from async_rate_limiter import RateLimiter\n"
            "async def work():\n"
            "    print('did work')\n"
            "async def main():\n"
            "    rate_limiter = RateLimiter(10, timedelta(milliseconds=50))\n"
            "    for _ in range(50):\n"
            "        await rate_limiter.push(work)\n"
            "    await rate_limiter.drained()\n"
            "asyncio.run(main())\n"
        )
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        self.assertEqual(ran.stdout, "did work\n" * 50)
        self.assertEqual(ran.stderr, "")

    def test_a_real_window_never_overflows(self) -> None:
        rate, per = 20, 20_000_000
        for make in loops():
            starts: list[int] = []
            ends: list[int] = []
            loop = make()

            async def main() -> None:
                subject = RateLimiter(rate, per)

                async def work() -> None:
                    starts.append(time.monotonic_ns())
                    await asyncio.sleep(0)
                    ends.append(time.monotonic_ns())

                for _ in range(10 * rate):
                    await subject.push(work)
                await subject.drained()

            loop.run_until_complete(main())
            loop.close()
            self.assertEqual(len(starts), 10 * rate)
            for index in range(len(ends) - rate):
                # The earliest that the one can be counted at, the latest for the other.
                self.assertGreater(starts[index + rate], ends[index] + per)
