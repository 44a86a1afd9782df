"""What is awaited, held to what CPython's own coroutines do."""

from __future__ import annotations

import asyncio
import collections.abc
import functools
import gc
import inspect
import sys
import unittest
import warnings
import weakref
from typing import Any, Generator
from unittest import mock

from async_rate_limiter import Permit, RateLimiter

from .manual_time import SECOND, in_manual_time, limiter, loop, run, settle


def returned(value: Any) -> Any:
    return value


class Awaitables(unittest.TestCase):
    @in_manual_time
    async def test_they_are_coroutines_to_all_of_asyncio(self) -> None:
        subject = limiter(100, SECOND)
        call = subject.push(lambda: None)
        self.assertIsInstance(call, collections.abc.Coroutine)
        self.assertTrue(asyncio.iscoroutine(call))
        self.assertTrue(await loop().create_task(call))
        self.assertTrue(await asyncio.ensure_future(subject.push(lambda: None)))
        self.assertTrue(await asyncio.shield(subject.push(lambda: None)))
        self.assertTrue(await asyncio.wait_for(subject.push(lambda: None), 1))
        self.assertEqual(
            await asyncio.gather(subject.run(lambda: 1), subject.run(lambda: 2)), [1, 2]
        )

    @in_manual_time
    async def test_they_say_which_call_they_are(self) -> None:
        subject = limiter(1, SECOND)
        calls: list[tuple[Any, str]] = [
            (subject.push(print), "RateLimiter.push"),
            (subject.run(print), "RateLimiter.run"),
            (subject.acquire(), "RateLimiter.acquire"),
            (subject.__aenter__(), "RateLimiter.__aenter__"),
            (subject.drained(), "RateLimiter.drained"),
        ]
        for call, name in calls:
            self.assertIn(f"<coroutine object {name} at", repr(call))
            self.assertEqual(call.__qualname__, name)
            call.close()
        task = loop().create_task(subject.run(lambda: asyncio.sleep(1)))
        self.assertIn("RateLimiter.run", repr(task))
        await settle()
        self.assertIn("RateLimiter.run", repr(task))
        await task

    def test_one_that_is_never_awaited_is_warned_of(self) -> None:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            subject: Any = RateLimiter(1, 1000)
            subject.push(print)
            subject.run(print)
            call = RateLimiter(1, 1000).run(print)
            call.close()
            del call
        messages = [str(warning.message) for warning in caught]
        expected = [f"coroutine 'RateLimiter.{name}' was never awaited" for name in ("push", "run")]
        self.assertEqual(messages, expected)
        self.assertTrue(all(warning.category is RuntimeWarning for warning in caught))

    def test_a_warning_at_its_end_leaves_the_exception_on_its_way_alone(self) -> None:
        unraisable: list[Any] = []
        with mock.patch("sys.unraisablehook", unraisable.append), warnings.catch_warnings():
            warnings.simplefilter("error")
            with self.assertRaises(ZeroDivisionError):
                self.make_and_fail()
        self.assertEqual([type(hook.exc_value) for hook in unraisable], [RuntimeWarning])

    def make_and_fail(self) -> None:
        # It is on the stack when the exception comes, and ends with it on its way.
        print(RateLimiter(1, 1000).push(print), 1 / 0)

    @in_manual_time
    async def test_a_function_may_begin_what_it_does_not_wait_for(self) -> None:
        subject = limiter(100, SECOND)

        def work() -> None:
            call: Any = subject.run(lambda: 5)
            self.assertTrue(asyncio.isfuture(call.send(None)))
            call.close()

        self.assertTrue(await subject.push(work))

    @in_manual_time
    async def test_their_type_is_referred_to_once_by_each(self) -> None:
        subject = limiter(1000, SECOND)
        call = subject.drained()
        kind = type(call)
        await call
        del call
        before = sys.getrefcount(kind)
        for _ in range(100):
            await subject.push(lambda: None)
        calls = [subject.drained() for _ in range(50)]
        self.assertEqual(sys.getrefcount(kind), before + 50)
        while calls:
            await calls.pop()
        self.assertEqual(sys.getrefcount(kind), before)

    @in_manual_time
    async def test_one_is_awaited_once(self) -> None:
        subject = limiter(100, SECOND)
        call = subject.push(lambda: None)
        await call
        for again in (
            call.__await__().__next__,
            lambda: call.send(None),
            lambda: call.throw(KeyError()),
        ):
            with self.assertRaisesRegex(RuntimeError, "already awaited"):
                again()
        call.close()

    @in_manual_time
    async def test_one_that_is_awaited_twice_at_once_says_so(self) -> None:
        subject = limiter(100, SECOND)
        calls: list[Any] = []

        def work() -> None:
            for again in (
                lambda: calls[0].send(None),
                lambda: calls[0].throw(KeyError),
                calls[0].close,
            ):
                with self.assertRaisesRegex(ValueError, "already executing"):
                    again()

        calls.append(subject.push(work))
        self.assertTrue(await calls[0])

    @in_manual_time
    async def test_send_and_throw_go_through_to_the_task(self) -> None:
        subject = limiter(100, SECOND)
        seen: list[object] = []

        class Echo:
            def __await__(self) -> Generator[Any, Any, str]:
                seen.append((yield "one"))
                try:
                    yield "two"
                except KeyError as error:
                    seen.append(error.args)
                yield "three"
                return "answer"

        call = subject.run(Echo)
        with self.assertRaises(TypeError):
            call.send(5)
        self.assertEqual(call.send(None), "one")
        self.assertEqual(call.send("sent"), "two")
        self.assertEqual(call.throw(KeyError("thrown")), "three")
        self.assertEqual(subject.stats().running, 1)
        with self.assertRaises(StopIteration) as stopped:
            call.send(None)
        self.assertEqual(stopped.exception.value, "answer")
        self.assertEqual(seen, ["sent", ("thrown",)])
        self.assertEqual(subject.stats().completed, 1)

    @in_manual_time
    async def test_throw_takes_a_type_an_instance_or_both(self) -> None:
        subject = limiter(100, SECOND)
        for arguments in [
            (KeyError,),
            (KeyError(1),),
            (KeyError, 1),
            (KeyError, KeyError(1)),
            (KeyError, None, None),
        ]:
            call: Any = subject.push(lambda: None)
            with self.assertRaises(KeyError):
                call.throw(*arguments)
        call = subject.push(lambda: None)
        for arguments in [(), (KeyError, 1, None, None), (5,)]:
            with self.assertRaises(TypeError):
                call.throw(*arguments)
        self.assertEqual(subject.stats().completed, 0)

    @in_manual_time
    async def test_closed_in_the_middle_of_its_task_it_closes_the_task(self) -> None:
        subject = limiter(100, SECOND)
        closed: list[bool] = []

        async def work() -> None:
            try:
                await loop().create_future()
            except GeneratorExit:
                closed.append(True)
                raise

        for end in ("close", "drop"):
            coroutine = work()
            call: Any = subject.push(functools.partial(returned, coroutine))
            call.send(None)
            self.assertEqual(subject.stats().running, 1)
            if end == "close":
                # Whoever else refers to it.
                call.close()
                self.assertEqual(inspect.getcoroutinestate(coroutine), inspect.CORO_CLOSED)
            del call, coroutine
            gc.collect()
            self.assertEqual(subject.stats().running, 0)
        self.assertEqual(closed, [True, True])

    @in_manual_time
    async def test_dropped_in_the_queue_it_leaves_the_queue(self) -> None:
        subject = limiter(1, SECOND)
        await subject.push(lambda: None)
        call: Any = subject.run(lambda: None)
        call.send(None)
        self.assertEqual(subject.stats().queued, 1)
        del call
        gc.collect()
        self.assertEqual(subject.stats().queued, 0)

    @in_manual_time
    async def test_a_cycle_through_a_call_is_collected(self) -> None:
        class Owner:
            limiter: RateLimiter
            call: Any

            def task(self) -> None: ...

        subject = limiter(1, SECOND)
        await subject.push(lambda: None)
        for queued in (False, True):
            owner = Owner()
            owner.limiter = subject
            owner.call = subject.run(owner.task)
            if queued:
                owner.call.send(None)
            gone = weakref.ref(owner)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                del owner
                gc.collect()
            self.assertIsNone(gone())
        self.assertEqual(subject.stats().queued, 0)

    def test_a_cycle_through_a_queue_is_collected_and_what_was_queued_is_told(self) -> None:
        class Owner:
            limiter: RateLimiter
            permit: Permit

            def task(self) -> None: ...

        async def main() -> None:
            owner = Owner()
            owner.limiter = limiter(10, SECOND)
            owner.permit = await owner.limiter.acquire()
            await owner.limiter.push(owner.task)
            await settle()
            gone = weakref.ref(owner)
            del owner
            gc.collect()
            self.assertIsNone(gone())
            (failure,) = loop().failures
            self.assertIn("1 queued task of RateLimiter 10/1s never ran", failure["message"])

        run(main)

    def test_a_cycle_through_a_limiter_is_collected(self) -> None:
        class Client:
            def __init__(self) -> None:
                self.limiter = limiter(1, SECOND, on_error=self.failed)

            def failed(self, _: BaseException) -> None: ...

            def call(self) -> None: ...

        async def main() -> tuple[weakref.ref[Any], weakref.ref[Any]]:
            client = Client()
            for _ in range(3):
                await client.limiter.push(client.call)
            return weakref.ref(client), weakref.ref(client.limiter)

        gone = run(main)
        gc.collect()
        self.assertEqual([reference() for reference in gone], [None, None])
