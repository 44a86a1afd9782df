"""What a limiter is made of, and what makes no sense."""

from __future__ import annotations

import functools
import inspect
import unittest
from datetime import timedelta
from typing import Any

from async_rate_limiter import RateLimiter, WeightedRateLimiter

from .manual_time import MILLISECOND, SECOND, in_manual_time, limiter, loop


class Settings(unittest.TestCase):
    def test_a_period_is_nanoseconds_or_a_timedelta_by_either_name(self) -> None:
        second = timedelta(seconds=1)
        for subject in (
            RateLimiter(10, SECOND),
            RateLimiter(10, second),
            RateLimiter(rate=10, per_ns=SECOND),
            RateLimiter(10, per=1),
            RateLimiter(10, per=1.0),
            RateLimiter(10, per="1s"),
            RateLimiter(10, per=second),
            RateLimiter(limits=["10/1s"]),
        ):
            self.assertEqual(subject.limits, ["10/1s"])
        self.assertEqual(RateLimiter(1, timedelta(microseconds=1)).limits, ["1/1us"])
        self.assertEqual(
            RateLimiter(1, timedelta(days=2, microseconds=3)).stats().held[0].per_ns,
            172_800_000_003_000,
        )

    def test_limits_add_up(self) -> None:
        subject = RateLimiter(10, SECOND, limits=("500/1m", "90000w/1m"))
        self.assertEqual(subject.limits, ["10/1s", "500/1m", "90000w/1m"])
        subject = WeightedRateLimiter(10, per=1, limits=["5/1s"])
        self.assertEqual(subject.limits, ["10w/1s", "5/1s"])

    @in_manual_time
    async def test_all_limits_hold(self) -> None:
        subject = limiter(2, SECOND, limits=["3/10s"])
        starts: list[int] = []
        for _ in range(5):
            await subject.push(lambda: starts.append(loop().now_ns // SECOND))
        await subject.drained()
        self.assertEqual(starts, [0, 0, 1, 10, 10])

    @in_manual_time
    async def test_paced_tasks_never_run_back_to_back(self) -> None:
        subject = limiter(4, SECOND, paced=True)
        starts: list[int] = []
        for _ in range(6):
            await subject.push(lambda: starts.append(loop().now_ns // (250 * MILLISECOND)))
        await subject.drained()
        self.assertEqual(starts, [0, 1, 2, 3, 4, 5])

    @in_manual_time
    async def test_a_clock_that_may_run_fast_stretches_the_period(self) -> None:
        subject = limiter(1, SECOND, clock_drift_ppm=500_000)
        await subject.run(lambda: None)
        await subject.run(lambda: None)
        self.assertIn(loop().now_ns - 3 * SECOND // 2, range(4))

    def test_what_is_out_of_range_is_a_value_error_that_names_it(self) -> None:
        wrong: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
            ((0, SECOND), {}, "rate 0"),
            ((-1, SECOND), {}, "rate -1"),
            ((2**41, SECOND), {}, f"rate {2**41}"),
            ((2**64, SECOND), {}, f"rate {2**64}"),
            ((1, 0), {}, "period of 0"),
            ((1, -1), {}, "per_ns -1"),
            ((10, 60), {}, "per_ns=60 is 60 ns. For seconds, write per=60"),
            ((1, 999), {}, "999 ns"),
            ((1,), {"per": -1}, "per -1"),
            ((1,), {"per": -0.5}, "per -0.5"),
            ((1,), {"per": float("nan")}, "per nan"),
            ((1,), {"per": "soon"}, 'per "soon" is no time'),
            ((1, timedelta(seconds=-1)), {}, "per_ns -1 day"),
            ((1, timedelta.max), {}, "per_ns 999999999 days"),
            ((1, 2**60), {}, "period of"),
            ((1, SECOND), {"concurrency": 0}, "concurrency 0"),
            ((1, SECOND), {"concurrency": -3}, "concurrency -3"),
            ((1, SECOND), {"concurrency": 2**30}, "concurrency"),
            ((1, SECOND), {"queue_capacity": -1}, "queue_capacity -1"),
            ((1, SECOND), {"abandon_grace": -1}, "abandon_grace -1"),
            ((1, SECOND), {"clock_drift_ppm": 2**40}, "clock_drift_ppm"),
            ((1, SECOND), {"limits": ["10 per second"]}, "10 per second"),
            ((), {}, "no limit"),
            ((), {"limits": ["5w/1s"], "paced": True}, "pacing"),
        ]
        for arguments, keywords, named in wrong:
            with self.subTest(named), self.assertRaisesRegex(ValueError, named):
                RateLimiter(*arguments, **keywords)

    def test_what_is_of_the_wrong_kind_is_a_type_error_that_names_it(self) -> None:
        wrong: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
            ((1.5, SECOND), {}, "rate has to be an int"),
            (("10", SECOND), {}, "rate has to be an int"),
            ((1, 1.5), {}, "per_ns has to be an int of nanoseconds or a timedelta"),
            ((1,), {}, "rate needs its period"),
            ((), {"per": 1}, "a period needs rate"),
            ((True, SECOND), {}, "rate has to be an int"),
            ((1, True), {}, "per_ns has to be an int"),
            ((1,), {"per": None, "per_ns": 1.0}, "per takes seconds"),
            ((1,), {"per": True}, "per has to be a timedelta, a number of seconds or a text"),
            ((1,), {"per": [1]}, "per has to be a timedelta"),
            ((1, SECOND), {"per": 1}, "two names of one period"),
            ((1, SECOND), {"concurrency": "4"}, "concurrency has to be an int"),
            ((1, SECOND), {"limits": "10/1s"}, "list of strings"),
            ((1, SECOND), {"limits": [10]}, "limits have to be strings"),
            ((1, SECOND), {"on_error": 5}, "on_error has to be callable"),
            ((1, SECOND), {"clock": 5}, "clock has to be callable"),
            ((1, SECOND, 1), {}, "positional"),
            ((1, SECOND), {"burst": 1}, "burst"),
        ]
        for arguments, keywords, named in wrong:
            with self.subTest(named), self.assertRaisesRegex(TypeError, named):
                RateLimiter(*arguments, **keywords)

    def test_a_weight_that_could_never_run_is_refused_at_once(self) -> None:
        subject: Any = WeightedRateLimiter(10, SECOND)
        for weight, named in [
            (0, "weight 0"),
            (11, "weight 11 is over the limit 10w/1s"),
            (-1, "-1"),
        ]:
            calls: list[tuple[Any, ...]] = [
                (subject.push, {"task": print, "estimated_weight": weight}),
                (functools.partial(subject.run, print), {"weight": weight}),
                (subject.acquire, {"weight": weight}),
                (subject.acquire_blocking, {"weight": weight}),
                (subject.try_acquire, {"weight": weight}),
                (functools.partial(subject.weight, weight), {}),
                (functools.partial(subject, print), {"weight": weight}),
            ]
            for call, keywords in calls:
                with self.subTest(named), self.assertRaisesRegex(ValueError, named):
                    call(**keywords)
        with self.assertRaisesRegex(TypeError, "estimated_weight has to be an int"):
            subject.push(print, 1.5)

    def test_a_task_that_is_not_callable_is_a_type_error(self) -> None:
        subject: Any = RateLimiter(10, SECOND)

        async def work() -> None: ...

        coroutine = work()
        for task, named in [(5, "not int"), (None, "NoneType"), (coroutine, "push the function")]:
            for call in (subject.push, subject.run):
                with self.subTest(named), self.assertRaisesRegex(TypeError, named):
                    call(task)
        coroutine.close()

    def test_push_takes_its_arguments_as_a_function_written_in_python_would(self) -> None:
        push: Any = RateLimiter(10, SECOND).push
        wrong: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
            ((), {}),
            ((print, 1, 2), {}),
            ((print,), {"task": print}),
            ((print, 1), {"estimated_weight": 1}),
            ((print,), {"weight": 1}),
            ((), {"estimated_weight": 1}),
        ]
        for arguments, keywords in wrong:
            with self.subTest(str(keywords)), self.assertRaises(TypeError):
                push(*arguments, **keywords)
        for call in (push(print), push(task=print), push(estimated_weight=1, task=print)):
            call.close()
        unbound: Any = RateLimiter.push
        with self.assertRaises(TypeError):
            unbound(5, print)
        signature = inspect.signature(RateLimiter.push)
        self.assertEqual(
            list(signature.parameters), ["self", "task", "estimated_weight", "timeout"]
        )

    @in_manual_time
    async def test_stats_and_repr_say_how_it_stands(self) -> None:
        subject = limiter(2, SECOND, limits=["9w/1m"], concurrency=3)
        permit = await subject.acquire(weight=4)
        await subject.push(lambda: None, 5)
        await subject.push(lambda: None, 1)
        stats = subject.stats()
        self.assertEqual((stats.running, stats.queued, stats.completed), (1, 1, 1))
        self.assertEqual([held.units for held in stats.held], [2, 9])
        self.assertEqual(
            [(held.rate, held.per_ns) for held in stats.held], [(2, SECOND), (9, 60 * SECOND)]
        )
        self.assertEqual(stats.next_opening, 60.000000001)
        self.assertEqual(repr(subject), "<RateLimiter 2/1s + 9w/1m: 1 running, 1 queued>")
        self.assertEqual(subject.concurrency, 3)
        self.assertIn("queued=1", repr(stats))
        self.assertIn("9w/1m", repr(stats.held[1]))
        self.assertIn("weight 4, held", repr(permit))
        subject.abort()
        self.assertIn("closed", repr(subject))
        permit.complete()

    def test_the_clock_has_to_return_nanoseconds(self) -> None:
        subject = RateLimiter(1, SECOND, clock=lambda: -5)
        with self.assertRaisesRegex(ValueError, "nanoseconds"):
            subject.stats()
