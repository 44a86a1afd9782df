"""run, acquire, try_acquire, async with, the decorator: a turn, and what it is used for."""

from __future__ import annotations

import asyncio
import gc
import unittest
from typing import Any, AsyncIterator, Iterator

from async_rate_limiter import Permit, WouldDeadlock

from .manual_time import MILLISECOND, SECOND, in_manual_time, limiter, loop, settle, weighted


class Run(unittest.TestCase):
    @in_manual_time
    async def test_run_waits_its_turn_and_gives_the_answer(self) -> None:
        subject = limiter(1, SECOND)

        async def work() -> int:
            await asyncio.sleep(0.5)
            return loop().now_ns // (SECOND // 2)

        self.assertEqual(await subject.run(lambda: "at once"), "at once")
        self.assertEqual(await subject.run(work), 3)
        self.assertEqual(await subject.run(lambda: loop().now_ns // (SECOND // 2)), 5)

    @in_manual_time
    async def test_run_gives_answers_that_look_like_control_flow(self) -> None:
        subject = limiter(100, SECOND)
        for answer in [None, (1, 2), (), ValueError("an answer"), StopIteration(3), [1]]:

            async def work(answer: object = answer) -> object:
                await asyncio.sleep(0)
                return answer

            self.assertIs(await subject.run(work), answer)
            self.assertIs(await subject.run(lambda: answer), answer)
            # As another kind of awaitable, and by the way of iteration alone.
            self.assertIs(await subject.run(lambda: loop().create_task(work())), answer)
            iterator = subject.run(lambda: answer).__await__()
            with self.assertRaises(StopIteration) as stopped:
                next(iterator)
            self.assertIs(stopped.exception.value, answer)

    @in_manual_time
    async def test_run_raises_what_the_task_raises(self) -> None:
        subject = limiter(1, SECOND)
        with self.assertRaises(ZeroDivisionError):
            await subject.run(lambda: 1 / 0)
        with self.assertRaises(ZeroDivisionError):
            await subject.run(lambda: 1 / 0)
        self.assertEqual(subject.stats().completed, 2)

    @in_manual_time
    async def test_callers_and_queued_tasks_share_one_line(self) -> None:
        subject = limiter(1, MILLISECOND)
        order: list[str] = []
        await subject.push(lambda: None)
        caller = loop().create_task(subject.run(lambda: order.append("run")))
        await settle()
        await subject.push(lambda: order.append("push"))
        holder = loop().create_task(subject.acquire())
        await settle()
        await subject.push(lambda: order.append("push again"))
        await caller
        with await holder:
            order.append("acquire")
        await subject.drained()
        self.assertEqual(order, ["run", "push", "acquire", "push again"])

    @in_manual_time
    async def test_a_task_that_would_wait_for_itself_is_told_so(self) -> None:
        subject = limiter(100, SECOND)

        async def outer() -> None:
            with self.assertRaises(WouldDeadlock):
                await subject.run(lambda: None)
            # And again, once it has been put off and taken up again.
            await asyncio.sleep(0)
            with self.assertRaises(WouldDeadlock):
                await subject.acquire()
            with self.assertRaises(WouldDeadlock):
                async with subject:
                    pass
            with self.assertRaises(WouldDeadlock):
                await subject.drained()

        await subject.push(outer)
        subject.pause_for(1)
        self.assertFalse(await subject.push(outer))
        await subject.drained()
        self.assertEqual(loop().failures, [])

    @in_manual_time
    async def test_a_task_that_another_task_was_begun_by_may_wait(self) -> None:
        subject = limiter(100, SECOND)
        begun: list[asyncio.Task[int]] = []

        async def outer() -> None:
            begun.append(loop().create_task(subject.run(lambda: 5)))
            await asyncio.sleep(0.1)

        await subject.push(outer)
        self.assertEqual(await begun[0], 5)

    @unittest.skipUnless(hasattr(asyncio, "eager_task_factory"), "from Python 3.12")
    @in_manual_time
    async def test_an_eager_task_is_not_the_task_that_began_it(self) -> None:
        # By name, since the hints are those of the Python that checks them.
        loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009
        subject = limiter(100, SECOND)
        begun: list[asyncio.Task[int]] = []

        def function() -> None:
            begun.append(loop().create_task(subject.run(lambda: 5)))

        async def coroutine() -> None:
            function()
            await asyncio.sleep(0.1)
            function()

        self.assertTrue(await subject.push(coroutine))
        await subject.drained()
        self.assertTrue(await subject.push(function))
        # Queued behind what that began, it becomes a task of the loop.
        self.assertFalse(await subject.push(coroutine))
        await subject.drained()
        self.assertEqual(await asyncio.gather(*begun), [5] * 5)

    @in_manual_time
    async def test_with_room_beside_itself_a_task_may_run_another(self) -> None:
        subject = limiter(100, SECOND, concurrency=2)

        async def outer() -> int:
            return await subject.run(lambda: 5)

        self.assertEqual(await subject.run(outer), 5)


class Permits(unittest.TestCase):
    @in_manual_time
    async def test_a_block_holds_the_limiter_until_its_end(self) -> None:
        subject = limiter(1, SECOND)
        async with subject:
            await asyncio.sleep(5)
            self.assertEqual(subject.stats().running, 1)
        async with subject:
            self.assertGreater(loop().now_ns, 6 * SECOND)

    @in_manual_time
    async def test_blocks_overlap_as_concurrency_allows(self) -> None:
        subject = limiter(100, SECOND, concurrency=3)
        running = most = 0

        async def block() -> None:
            nonlocal running, most
            async with subject:
                running += 1
                most = max(most, running)
                await asyncio.sleep(0.1)
                running -= 1

        await asyncio.gather(*(block() for _ in range(10)))
        self.assertEqual(most, 3)

    @in_manual_time
    async def test_less_than_reserved_frees_the_rest_at_once(self) -> None:
        subject = weighted(10, SECOND)
        async with subject.weight(10) as permit:
            permit.actual = 3
        self.assertEqual(permit.excess, 0)
        self.assertEqual(subject.stats().held[0].units, 3)
        self.assertTrue(await subject.push(lambda: None, 7))

    @in_manual_time
    async def test_more_than_reserved_is_recorded_and_told(self) -> None:
        subject = weighted(10, SECOND)
        async with subject.weight(2) as permit:
            permit.actual = 9
        self.assertEqual(permit.excess, 7)
        self.assertEqual(subject.stats().held[0].units, 9)
        permit = await subject.acquire()
        self.assertEqual(permit.complete(actual=4), 3)
        self.assertFalse(await subject.push(lambda: None))
        self.assertGreater(subject.stats().next_opening or 0, 1)

    @in_manual_time
    async def test_try_acquire_gives_a_permit_or_none_and_overtakes_nobody(self) -> None:
        subject = limiter(2, SECOND)
        permit = subject.try_acquire()
        assert permit is not None
        self.assertIsNone(subject.try_acquire())
        with permit:
            self.assertTrue(permit.held)
        self.assertFalse(permit.held)
        subject.pause_for(1)
        await subject.push(lambda: None)
        await asyncio.sleep(1)
        self.assertIsNone(subject.try_acquire())
        await subject.drained()

    @in_manual_time
    async def test_a_permit_completes_once(self) -> None:
        subject = limiter(2, SECOND)
        permit = await subject.acquire()
        self.assertEqual(permit.complete(), 0)
        for again in (permit.complete, permit.__enter__):
            with self.assertRaisesRegex(RuntimeError, "not held"):
                again()
        with self.assertRaisesRegex(RuntimeError, "completed"):
            permit.actual = 3
        with self.assertRaisesRegex(RuntimeError, "acquired once"):
            async with permit:
                pass
        self.assertEqual(subject.stats().completed, 1)

    @in_manual_time
    async def test_a_permit_that_is_dropped_completes_then(self) -> None:
        subject = limiter(2, SECOND)
        permit: Permit | None = await subject.acquire()
        self.assertEqual(subject.stats().running, 1)
        del permit
        gc.collect()
        self.assertEqual((subject.stats().running, subject.stats().completed), (0, 1))

    @in_manual_time
    async def test_leaving_without_entering_is_an_error(self) -> None:
        subject = limiter(2, SECOND)
        with self.assertRaisesRegex(RuntimeError, "without being entered"):
            await subject.__aexit__(None, None, None)
        self.assertEqual(subject.stats().completed, 0)

    @in_manual_time
    async def test_a_decorated_function_waits_its_turn_at_each_call(self) -> None:
        subject = weighted(10, SECOND)

        @subject
        async def light(number: int) -> int:
            """Says when."""
            return number + loop().now_ns // SECOND

        @subject(weight=6)
        async def heavy(*, number: int) -> int:
            return number + loop().now_ns // SECOND

        self.assertEqual(light.__doc__, "Says when.")
        self.assertTrue(asyncio.iscoroutinefunction(light))
        answers = [await light(10), await heavy(number=20), await heavy(number=20), await light(10)]
        self.assertEqual(answers, [10, 20, 21, 11])

    @in_manual_time
    async def test_a_generator_is_no_task(self) -> None:
        subject = limiter(1, SECOND)

        def numbers() -> Iterator[int]:
            yield 1

        async def later() -> AsyncIterator[int]:
            yield 1

        for task in (numbers, later):
            with self.assertRaisesRegex(TypeError, "whose body has not run"):
                await subject.run(task)
            await asyncio.sleep(2)
            with self.assertRaisesRegex(TypeError, "whose body has not run"):
                await subject.push(task)
            await subject.push(task)
            await subject.drained()
            (said,) = loop().failures
            self.assertIn("whose body has not run", str(said["exception"]))
            loop().failures.clear()
            await asyncio.sleep(2)

    @in_manual_time
    async def test_what_cannot_be_decorated_is_an_error(self) -> None:
        subject: Any = limiter(1, SECOND)

        async def numbers() -> AsyncIterator[int]:
            yield 1

        with self.assertRaisesRegex(TypeError, "is a generator"):
            subject(numbers)
        with self.assertRaisesRegex(TypeError, "decorates functions"):
            subject(5)
        with self.assertRaisesRegex(ValueError, "weight 11 is over the limit"):
            weighted(10, SECOND)(weight=11)
