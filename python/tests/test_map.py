"""map_inputs and gather_inputs: a function for each of many inputs."""

from __future__ import annotations

import asyncio
import itertools
import unittest
from typing import Any, AsyncIterator, Iterator

from async_rate_limiter import Closed, gather_inputs, map_inputs

from .manual_time import MILLISECOND, SECOND, in_manual_time, limiter, loop, settle, weighted


async def slowly(number: int) -> int:
    """The lower ones take longer."""
    await asyncio.sleep(1 / (1 + number))
    return 10 * number


def others() -> list[asyncio.Task[Any]]:
    """The tasks of the loop besides the one that runs."""
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


class Source:
    """Counts what was read of it."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.read = 0
        self.fails_at = fails_at

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count():
            self.read += 1
            if number == self.fails_at:
                raise KeyError("of the inputs")
            yield number

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in self:
            await asyncio.sleep(0)
            yield number


class AsyncSource:
    """The same, for async iteration alone."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.source = Source(fails_at)

    def __aiter__(self) -> AsyncIterator[int]:
        return self.source.__aiter__()

    @property
    def read(self) -> int:
        return self.source.read


class Sync(Source):
    __aiter__ = None  # type: ignore[assignment]


class Map(unittest.TestCase):
    @in_manual_time
    async def test_answers_come_in_the_order_of_the_inputs(self) -> None:
        subject = limiter(100, SECOND, concurrency=5)
        answers = [answer async for answer in map_inputs(subject, slowly, range(5))]
        self.assertEqual(answers, [0, 10, 20, 30, 40])
        self.assertEqual(loop().now_ns, SECOND, "all at once, as the limiter lets them")

    @in_manual_time
    async def test_answers_may_come_as_the_calls_end(self) -> None:
        subject = limiter(100, SECOND, concurrency=5)
        answers = map_inputs(subject, slowly, range(5), in_order=False)
        self.assertEqual([answer async for answer in answers], [40, 30, 20, 10, 0])

    @in_manual_time
    async def test_the_limiter_holds_and_sync_functions_are_called_in_the_loop(self) -> None:
        subject = limiter(2, SECOND)
        at = [now async for now in map_inputs(subject, lambda _: loop().now_ns // SECOND, range(6))]
        self.assertEqual(at, [0, 0, 1, 1, 2, 2])
        self.assertEqual([each async for each in map_inputs(subject, slowly, [])], [])

    @in_manual_time
    async def test_inputs_without_end_are_read_a_bounded_number_ahead(self) -> None:
        for source in (Sync(), AsyncSource()):
            for in_order in (True, False):
                subject = limiter(1000, SECOND, concurrency=3)
                before = source.read
                answers = map_inputs(
                    subject, lambda number: number, source, max_in_flight=7, in_order=in_order
                )
                for yielded in range(1, 30):
                    await answers.__anext__()
                    # A consumer that is slower than the calls.
                    await asyncio.sleep(0.1)
                    self.assertLessEqual(source.read - before, yielded + 7)
                await answers.aclose()
                self.assertEqual(others(), [])

    @in_manual_time
    async def test_by_default_twice_as_many_are_in_flight_as_may_run(self) -> None:
        for concurrency, ahead in ((1, 2), (3, 6), (100_000, 1000)):
            source = Sync()
            subject = limiter(1_000_000, SECOND, concurrency=concurrency)
            answers = map_inputs(subject, slowly, source)
            self.assertEqual(await answers.__anext__(), 0)
            self.assertEqual(source.read, ahead)
            await answers.aclose()

    @in_manual_time
    async def test_a_slow_consumer_stops_the_reading_but_not_the_calls(self) -> None:
        subject = limiter(1000, SECOND, concurrency=4)
        ended: list[int] = []

        async def call(number: int) -> int:
            await asyncio.sleep(0.01)
            ended.append(number)
            return number

        source = AsyncSource()
        answers = map_inputs(subject, call, source, max_in_flight=4)
        self.assertEqual(await answers.__anext__(), 0)
        await asyncio.sleep(1)
        self.assertEqual((len(ended), source.read), (5, 5), "one was yielded")
        await answers.aclose()

    @in_manual_time
    async def test_a_failure_is_raised_in_its_place_and_the_rest_is_cancelled(self) -> None:
        for source in (Sync(), AsyncSource()):
            subject = limiter(100, SECOND, concurrency=4)
            begun: list[int] = []

            async def call(number: int) -> int:
                begun.append(number)
                await asyncio.sleep(0.01 if number == 2 else 0.1)
                if number == 2:
                    raise ValueError("the third")
                return number

            answers = map_inputs(subject, call, source, max_in_flight=4)
            got: list[int] = []
            with self.assertRaisesRegex(ValueError, "the third"):
                async for answer in answers:
                    got.append(answer)
            self.assertEqual((got, begun), ([0, 1], [0, 1, 2, 3]))
            self.assertEqual(source.read, 4, "nothing more was read")
            self.assertEqual(others(), [])
            self.assertEqual(subject.stats().queued, 0)
            await subject.drained()

    @in_manual_time
    async def test_as_completed_a_failure_is_raised_at_once(self) -> None:
        subject = limiter(100, SECOND, concurrency=4)

        async def call(number: int) -> int:
            await asyncio.sleep(1)
            return number // (2 - number)

        async def slow_first(number: int) -> int:
            return 1 // number if number < 1 else await call(number)

        with self.assertRaises(ZeroDivisionError):
            async for _ in map_inputs(subject, slow_first, Sync(), in_order=False):
                self.fail("nothing has ended before")
        self.assertEqual((others(), loop().now_ns), ([], 0))

    @in_manual_time
    async def test_failures_may_be_answers(self) -> None:
        subject = limiter(100, SECOND, concurrency=4)

        async def call(number: int) -> int:
            if number == 3:
                raise asyncio.CancelledError
            return 6 // number

        answers = map_inputs(subject, call, range(5), return_exceptions=True)
        got: list[Any] = [answer async for answer in answers]
        self.assertEqual((got[1:3], got[4]), ([6, 3], 1))
        self.assertIsInstance(got[0], ZeroDivisionError)
        self.assertIsInstance(got[3], asyncio.CancelledError)
        with self.assertRaises(asyncio.CancelledError):
            await gather_inputs(subject, call, [1, 3])

    @in_manual_time
    async def test_a_failure_of_the_inputs_is_raised_after_the_answers_before_it(self) -> None:
        for make in (Sync, AsyncSource):
            for in_order in (True, False):
                subject = limiter(100, SECOND, concurrency=2)
                got: list[int] = []
                with self.assertRaisesRegex(KeyError, "of the inputs"):
                    answers = map_inputs(
                        subject, slowly, make(3), in_order=in_order, return_exceptions=True
                    )
                    async for answer in answers:
                        got.append(answer)
                self.assertEqual(sorted(got), [0, 10, 20])
                self.assertEqual(others(), [])

    @in_manual_time
    async def test_a_break_cancels_what_is_left(self) -> None:
        for source in (Sync(), AsyncSource()):
            subject = limiter(100, SECOND, concurrency=4)
            cancelled: list[int] = []

            async def call(number: int) -> int:
                try:
                    await asyncio.sleep(number)
                except asyncio.CancelledError:
                    cancelled.append(number)
                    raise
                return number

            async for answer in map_inputs(subject, call, source):
                if answer == 1:
                    break
            # The loop closes the iterator when it has been dropped.
            await settle(20)
            self.assertEqual(others(), [])
            self.assertIn(2, cancelled)
            self.assertEqual((subject.stats().running, subject.stats().queued), (0, 0))

    @in_manual_time
    async def test_closing_waits_until_the_cancelled_calls_have_ended(self) -> None:
        subject = limiter(100, SECOND, concurrency=4)
        cleaned_up: list[int] = []

        async def call(number: int) -> int:
            try:
                await asyncio.sleep(number)
            finally:
                await asyncio.sleep(0.5)
                cleaned_up.append(number)
            return number

        answers = map_inputs(subject, call, range(4))
        self.assertEqual(await answers.__anext__(), 0)
        await answers.aclose()
        self.assertEqual(sorted(cleaned_up), [0, 1, 2, 3])
        with self.assertRaises(StopAsyncIteration):
            await answers.__anext__()
        never_begun = map_inputs(subject, call, range(4))
        await never_begun.aclose()
        self.assertEqual(len(cleaned_up), 4)

    @in_manual_time
    async def test_a_consumer_that_is_cancelled_leaves_no_call(self) -> None:
        subject = limiter(1, SECOND)
        for source in (Sync(), AsyncSource()):
            consumer = loop().create_task(gather_inputs(subject, slowly, source))
            await asyncio.sleep(0.25)
            self.assertGreater(len(others()), 1)
            consumer.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await consumer
            self.assertEqual((others(), subject.stats().queued), ([], 0))
            await asyncio.sleep(5)

    @in_manual_time
    async def test_each_call_may_have_its_weight(self) -> None:
        subject = weighted(10, SECOND, concurrency=9)

        async def now(_: int) -> int:
            return loop().now_ns // SECOND

        at = [each async for each in map_inputs(subject, now, [4, 6, 1, 9], weight=abs)]
        self.assertEqual(at, [0, 0, 1, 1])
        await asyncio.sleep(2)
        begin = loop().now_ns // SECOND
        at = [each - begin async for each in map_inputs(subject, now, [4, 6, 1, 9], weight=5)]
        self.assertEqual(at, [0, 0, 1, 1])
        with self.assertRaisesRegex(ValueError, "weight 11"):
            await gather_inputs(subject, now, [4], weight=11)

    @in_manual_time
    async def test_progress_is_told_as_calls_end(self) -> None:
        told: list[tuple[int, int | None]] = []

        async def call(number: int) -> float:
            await asyncio.sleep(0.1)
            return 1 / number

        def tell(done: int, total: int | None) -> None:
            told.append((done, total))

        subject = limiter(100, SECOND, concurrency=3)
        await gather_inputs(subject, call, [0, 1, 2], on_progress=tell, return_exceptions=True)
        self.assertEqual(told, [(1, 3), (2, 3), (3, 3)])
        told.clear()
        await gather_inputs(subject, call, iter([1, 2]), on_progress=tell)
        self.assertEqual(told, [(1, None), (2, None)])
        with self.assertRaisesRegex(ZeroDivisionError, "of the progress"):

            def fails(*_: object) -> None:
                raise ZeroDivisionError("of the progress")

            await gather_inputs(subject, call, [1], on_progress=fails)

    @in_manual_time
    async def test_gather_gives_all_answers_and_fails_at_the_first_failure_in_time(self) -> None:
        subject = limiter(1000, SECOND, concurrency=100)
        self.assertEqual(
            await gather_inputs(subject, slowly, range(50)), [10 * number for number in range(50)]
        )
        begin = loop().now_ns

        async def call(number: int) -> int:
            await asyncio.sleep(10 - number)
            return 1 // (7 - number)

        with self.assertRaises(ZeroDivisionError):
            await gather_inputs(subject, call, range(9))
        self.assertEqual(loop().now_ns - begin, 3 * SECOND)
        self.assertEqual(others(), [])

    @in_manual_time
    async def test_wrong_arguments_are_refused(self) -> None:
        subject = limiter(1, MILLISECOND)
        with self.assertRaisesRegex(ValueError, "max_in_flight 0"):
            map_inputs(subject, slowly, [1], max_in_flight=0)
        with self.assertRaises(TypeError):
            await gather_inputs(subject, slowly, 5)  # type: ignore[call-overload]
        subject.close()
        with self.assertRaises(Closed):
            await gather_inputs(subject, slowly, [1])
        self.assertEqual(others(), [])


class Twice(unittest.TestCase):
    @in_manual_time
    async def test_a_function_that_this_limiter_limits_already_is_refused(self) -> None:
        subject = limiter(10, SECOND)

        @subject
        async def call(number: int) -> int:
            return number

        with self.assertRaisesRegex(ValueError, "two permits"):
            subject.map(call, [1])
        with self.assertRaisesRegex(ValueError, "two permits"):
            await subject.gather(call, [1])
        self.assertEqual(await limiter(10, SECOND).gather(call, [1]), [1])
