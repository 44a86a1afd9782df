"""push: at once or in its turn."""

from __future__ import annotations

import asyncio
import contextvars
import unittest
from typing import Callable

from async_rate_limiter import QueueFull, RateLimiter

from .manual_time import (
    MILLISECOND,
    SECOND,
    ManualLoop,
    in_manual_time,
    limiter,
    loop,
    settle,
    weighted,
)


class Push(unittest.TestCase):
    @in_manual_time
    async def test_true_says_that_it_ran_at_once_and_has_ended(self) -> None:
        subject = limiter(2, SECOND)
        ended: list[str] = []

        async def work() -> None:
            await asyncio.sleep(0.5)
            ended.append("coroutine")

        self.assertIs(await subject.push(lambda: ended.append("function")), True)
        self.assertIs(await subject.push(work), True)
        self.assertEqual(ended, ["function", "coroutine"])

    @in_manual_time
    async def test_false_says_that_it_is_queued_and_runs_when_the_window_opens(self) -> None:
        subject = limiter(1, SECOND)
        starts: list[int] = []
        await subject.push(lambda: starts.append(loop().now_ns))
        for _ in range(3):
            self.assertIs(await subject.push(lambda: starts.append(loop().now_ns)), False)
        await subject.drained()
        # The window is closed: a second is not over until a nanosecond more has passed.
        for earlier, later in zip(starts, starts[1:]):
            self.assertIn(later - earlier, range(SECOND + 1, SECOND + 3))

    @in_manual_time
    async def test_the_window_counts_from_completion(self) -> None:
        subject = limiter(1, SECOND)
        starts: list[int] = []

        async def work() -> None:
            starts.append(loop().now_ns)
            await asyncio.sleep(5)

        await subject.push(work)
        await subject.push(work)
        await subject.drained()
        self.assertGreater(starts[1] - starts[0], 6 * SECOND)

    @in_manual_time
    async def test_a_task_that_never_awaits_counts_until_it_returns(self) -> None:
        subject = limiter(1, SECOND)
        starts: list[int] = []

        def work() -> None:
            starts.append(loop().now_ns)
            loop().advance(3 * SECOND)

        await subject.push(work)
        await subject.push(work)
        await subject.drained()
        self.assertGreater(starts[1] - starts[0], 4 * SECOND)

    @in_manual_time
    async def test_tasks_run_in_the_order_they_were_pushed(self) -> None:
        subject = limiter(3, MILLISECOND)
        order: list[int] = []

        def task(number: int) -> Callable[[], object]:
            async def work() -> None:
                order.append(number)
                await asyncio.sleep(0.0001)

            return (lambda: order.append(number)) if number % 2 else work

        for number in range(50):
            await subject.push(task(number))
        await subject.drained()
        self.assertEqual(order, list(range(50)))

    @in_manual_time
    async def test_what_a_task_raises_at_once_reaches_the_caller(self) -> None:
        subject = limiter(2, SECOND)

        def fails() -> None:
            raise LookupError("function")

        async def fails_later() -> None:
            await asyncio.sleep(0.1)
            raise LookupError("coroutine")

        with self.assertRaisesRegex(LookupError, "function"):
            await subject.push(fails)
        with self.assertRaisesRegex(LookupError, "coroutine"):
            await subject.push(fails_later)
        # A task that failed has run all the same.
        self.assertEqual(subject.stats().held[0].units, 2)
        self.assertEqual(loop().failures, [])

    @in_manual_time
    async def test_what_a_queued_task_raises_goes_to_the_loop_and_to_on_error(self) -> None:
        seen: list[BaseException] = []
        subject = limiter(1, MILLISECOND, on_error=seen.append)
        await subject.push(lambda: None)
        error = LookupError("nobody waits for this")

        def fails() -> None:
            raise error

        await subject.push(fails)
        await subject.drained()
        self.assertEqual(seen, [error])
        (failure,) = loop().failures
        self.assertIs(failure["exception"], error)
        self.assertIs(failure["limiter"], subject)
        self.assertIn("RateLimiter 1/1ms", failure["message"])

    @in_manual_time
    async def test_an_on_error_that_fails_is_reported_and_the_queue_goes_on(self) -> None:
        def on_error(_: BaseException) -> None:
            raise RuntimeError("on_error fails too")

        subject = limiter(1, MILLISECOND, on_error=on_error)
        ran: list[bool] = []
        await subject.push(lambda: None)
        await subject.push(lambda: 1 / 0)
        await subject.push(lambda: ran.append(True))
        await subject.drained()
        kinds = [type(failure["exception"]) for failure in loop().failures]
        self.assertEqual(kinds, [ZeroDivisionError, RuntimeError])
        self.assertEqual(ran, [True])

    @in_manual_time
    async def test_a_push_from_inside_a_task_is_queued_and_never_runs_inside(self) -> None:
        for concurrency in (1, 4):
            subject = limiter(100, SECOND, concurrency=concurrency)
            events: list[object] = []

            def inner() -> None:
                events.append("inner")

            async def outer() -> None:
                events.append(await subject.push(inner))
                await asyncio.sleep(0)
                events.append("outer ends")

            await subject.push(outer)
            await subject.drained()
            self.assertEqual(events[0], False)
            self.assertEqual(sorted(map(str, events)), ["False", "inner", "outer ends"])
            if concurrency == 1:
                self.assertEqual(events, [False, "outer ends", "inner"])

    @in_manual_time
    async def test_a_push_from_inside_a_queued_task_is_queued_too(self) -> None:
        subject = limiter(100, SECOND, concurrency=2)
        subject.pause_for(1)
        answers: list[bool] = []

        async def outer() -> None:
            await asyncio.sleep(0.1)
            answers.append(await subject.push(lambda: None))

        self.assertFalse(await subject.push(outer))
        await subject.drained()
        self.assertEqual(answers, [False])

    @in_manual_time
    async def test_a_function_may_push_more_than_the_stack_could_hold(self) -> None:
        subject = limiter(10**6, SECOND)
        left = 5_000
        pushes: list[asyncio.Task[bool]] = []

        def work() -> None:
            nonlocal left
            left -= 1
            if left:
                pushes.append(loop().create_task(subject.push(work)))

        await subject.push(work)
        while left:
            await asyncio.sleep(0)
        self.assertEqual(left, 0)

    @in_manual_time
    async def test_a_queued_task_runs_in_the_context_it_was_pushed_in(self) -> None:
        variable = contextvars.ContextVar("variable", default="unset")
        subject = limiter(1, MILLISECOND)
        seen: list[str] = []

        async def work() -> None:
            await asyncio.sleep(0)
            seen.append(variable.get())

        await subject.push(lambda: None)
        for value in ("one", "two"):
            variable.set(value)
            await subject.push(lambda: seen.append(variable.get()))
            await subject.push(work)
        variable.set("three")
        await subject.drained()
        self.assertEqual(seen, ["one", "one", "two", "two"])

    @in_manual_time
    async def test_a_long_queue_of_functions_lets_the_loop_turn_between_them(self) -> None:
        subject = limiter(1000, SECOND)
        subject.pause_for(1)
        ran = 0

        def work() -> None:
            nonlocal ran
            ran += 1

        for _ in range(100):
            await subject.push(work)
        await asyncio.sleep(1)
        seen = set()
        while ran < 100:
            await asyncio.sleep(0)
            seen.add(ran)
        self.assertGreater(len(seen), 50)

    @in_manual_time
    async def test_a_push_waits_for_room_in_the_queue(self) -> None:
        subject = limiter(1, SECOND, queue_capacity=1)
        starts: list[int] = []

        def work() -> None:
            starts.append(loop().now_ns // SECOND)

        self.assertTrue(await subject.push(work))
        self.assertFalse(await subject.push(work))
        waits = loop().create_task(subject.push(work))
        await settle()
        self.assertFalse(waits.done())
        self.assertFalse(await waits)
        self.assertEqual(loop().now_ns // SECOND, 1)
        await subject.drained()
        self.assertEqual(starts, [0, 1, 2])

    @in_manual_time
    async def test_without_a_queue_a_push_waits_and_then_runs_its_task(self) -> None:
        subject = limiter(1, SECOND, queue_capacity=0)
        self.assertTrue(await subject.push(lambda: None))
        self.assertTrue(await subject.push(lambda: None))
        self.assertEqual(loop().now_ns // SECOND, 1)

    @in_manual_time
    async def test_inside_a_task_a_full_queue_is_an_error(self) -> None:
        subject = limiter(1, SECOND, queue_capacity=1)

        async def outer() -> None:
            self.assertFalse(await subject.push(lambda: None))
            with self.assertRaises(QueueFull):
                await subject.push(lambda: None)

        self.assertTrue(await subject.push(outer))
        self.assertEqual(subject.stats().queued, 1)
        await subject.drained()

    @in_manual_time
    async def test_weights_are_reserved_and_a_heavy_head_blocks_light_ones(self) -> None:
        subject = weighted(allowed_weight=10, per_ns=SECOND)
        order: list[str] = []
        self.assertTrue(await subject.push(lambda: order.append("8"), 8))
        self.assertFalse(await subject.push(lambda: order.append("5"), estimated_weight=5))
        self.assertFalse(await subject.push(task=lambda: order.append("1"), estimated_weight=1))
        await subject.drained()
        self.assertEqual(order, ["8", "5", "1"])

    @in_manual_time
    async def test_a_task_that_raises_stop_iteration_gives_no_answer(self) -> None:
        subject = limiter(2, SECOND)

        def stops() -> None:
            raise StopIteration("not an answer")

        for call in (subject.push, subject.run):
            with self.assertRaisesRegex(RuntimeError, "StopIteration") as caught:
                await call(stops)
            self.assertIsInstance(caught.exception.__cause__, StopIteration)

    def test_keyboard_interrupt_in_a_queued_function_ends_the_program_and_not_the_queue(
        self,
    ) -> None:
        manual = ManualLoop()
        ran: list[bool] = []

        def interrupts() -> None:
            raise KeyboardInterrupt

        async def main() -> RateLimiter:
            subject = limiter(1, MILLISECOND)
            for task in (lambda: None, interrupts, lambda: ran.append(True)):
                await subject.push(task)
            return subject

        subject = manual.run_until_complete(main())
        with self.assertRaises(KeyboardInterrupt):
            manual.run_until_complete(asyncio.sleep(1))
        manual.run_until_complete(subject.drained())
        manual.close()
        self.assertEqual(ran, [True])
