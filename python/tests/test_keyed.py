"""A limiter for each key, on a manual clock; the last tests have real threads on that clock."""

from __future__ import annotations

import gc
import math
import threading
import unittest
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest import mock

from async_rate_limiter import Aborted, Closed, KeyedRateLimiter, Permit, RateLimiter

from .manual_time import MILLISECOND, SECOND, in_manual_time, loop, settle

PER = 10 * MILLISECOND


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


class Keyed(unittest.TestCase):
    def setUp(self) -> None:
        patch = mock.patch("async_rate_limiter._keyed.RateLimiter", RateLimiter)
        patch.start()
        self.addCleanup(patch.stop)
        self.clock = Clock()

    def keyed(self, *limits: str, **settings: Any) -> KeyedRateLimiter[Any]:
        return KeyedRateLimiter(limits=limits or ["1/10ms"], clock=self.clock, **settings)

    def use(self, keyed: KeyedRateLimiter[Any], key: object) -> None:
        permit = keyed.try_acquire(key)
        assert permit is not None
        permit.complete()

    def test_keys_do_not_limit_each_other(self) -> None:
        keyed = self.keyed()
        self.use(keyed, 1)
        self.assertIsNone(keyed.try_acquire(1))
        self.use(keyed, 2)
        self.clock.now_ns += PER
        self.assertIsNone(keyed.try_acquire(1))
        self.clock.now_ns += 1
        self.use(keyed, 1)
        self.assertIs(keyed[1], keyed.get(1))
        self.assertTrue(1 in keyed and 3 not in keyed)

    def test_a_key_may_have_settings_of_its_own_and_keeps_them_when_it_is_forgotten(self) -> None:
        own = {"alice": ["3w/10ms"], "bob": {"concurrency": 5}, "eve": {"rate": 7, "per_ns": PER}}
        keyed = self.keyed("1/10ms", "9/1s", concurrency=2, overrides=own)
        for _ in range(2):
            self.assertEqual(keyed["alice"].limits, ["3w/10ms"])
            self.assertEqual(keyed["bob"].limits, ["1/10ms", "9/1s"])
            self.assertEqual(keyed["eve"].limits, ["7/10ms"])
            self.assertEqual(keyed["other"].limits, ["1/10ms", "9/1s"])
            concurrency = [keyed[key].concurrency for key in ("alice", "bob", "eve", "other")]
            self.assertEqual(concurrency, [2, 5, 2, 2])
            keyed.forget_idle()
            self.assertEqual(len(keyed), 0)
        self.assertEqual(keyed.limits, ["1/10ms", "9/1s", "3w/10ms", "7/10ms"])

    def test_rate_and_period_may_come_first_as_those_of_a_limiter(self) -> None:
        keyed: KeyedRateLimiter[str] = KeyedRateLimiter(3, timedelta(seconds=1))
        self.assertEqual(keyed["key"].limits, ["3/1s"])
        self.assertEqual(repr(keyed), "<KeyedRateLimiter 3/1s: 1 keys>")

    def test_invalid_settings_are_refused_before_their_key_is_used(self) -> None:
        with self.assertRaisesRegex(ValueError, "rate 0"):
            KeyedRateLimiter(0, SECOND)
        with self.assertRaises(TypeError):
            self.keyed(nonsense=1)
        with self.assertRaisesRegex(ValueError, "concurrency 0"):
            self.keyed(overrides={"alice": {"concurrency": 0}})
        with self.assertRaisesRegex(TypeError, "lists of limits"):
            self.keyed(overrides={"alice": "1/10ms"})

    def test_a_key_is_forgotten_only_when_a_new_limiter_would_decide_the_same(self) -> None:
        def hold(keyed: KeyedRateLimiter[Any]) -> Permit | None:
            return keyed.try_acquire(1)

        def pause(keyed: KeyedRateLimiter[Any]) -> None:
            keyed[1].pause_for(3 * PER / SECOND)

        def end_pause(keyed: KeyedRateLimiter[Any]) -> None:
            pause(keyed)
            keyed[1].resume()

        uses: list[tuple[str, float, Any]] = [
            ("nothing", 0, lambda keyed: keyed[1].stats().running),
            ("a completion", PER + 1, lambda keyed: self.use(keyed, 1)),
            ("a permit", math.inf, hold),
            ("a reference", math.inf, lambda keyed: keyed[1]),
            ("a reference by a method", math.inf, lambda keyed: keyed[1].close),
            ("an awaitable", math.inf, lambda keyed: keyed.run(1, print)),
            ("a pause", 3 * PER, pause),
            ("a pause that was ended", 0, end_pause),
            ("closing it", math.inf, lambda keyed: keyed[1].close()),
        ]
        for what, until, use in uses:
            keyed = self.keyed()
            kept = use(keyed)
            passed = 0
            for step in (0, PER, 1, 2 * PER - 1, 10 * PER):
                self.clock.now_ns += step
                passed += step
                keyed.forget_idle()
                self.assertEqual(len(keyed) == 0, passed >= until, f"{what}, after {passed}")
            if hasattr(kept, "close") and what == "an awaitable":
                kept.close()

    def test_a_longer_period_set_later_counts_what_a_forgotten_limiter_granted(self) -> None:
        keyed = self.keyed()
        for forgets in (False, True):
            self.use(keyed, forgets)
            self.clock.now_ns += PER + 1
            if forgets:
                keyed.forget_idle()
            keyed[forgets].set_limits(["1/1h"])
            self.assertIsNone(keyed.try_acquire(forgets), f"forgotten: {forgets}")

    def test_a_dropped_reference_frees_its_key(self) -> None:
        keyed = self.keyed()
        kept = [keyed[1], keyed[2]]
        keyed.forget_idle()
        self.assertEqual(len(keyed), 2)
        self.assertEqual(len(list(keyed)), 2)
        del kept[0]
        gc.collect()
        keyed.forget_idle()
        self.assertEqual((1 in keyed, 2 in keyed), (False, True))

    @in_manual_time
    async def test_a_waiter_keeps_its_key(self) -> None:
        keyed: KeyedRateLimiter[int] = KeyedRateLimiter(limits=["1/10ms"], clock=loop().clock)
        self.use(keyed, 1)
        waiter = loop().create_task(keyed.acquire(1))
        await settle()
        keyed.forget_idle()
        self.assertEqual(len(keyed), 1)
        (await waiter).complete()
        del waiter
        await keyed.drained()

    @in_manual_time
    async def test_a_key_is_used_in_all_the_ways_of_a_limiter(self) -> None:
        keyed: KeyedRateLimiter[str] = KeyedRateLimiter(
            limits=["100w/10ms"], clock=loop().clock, concurrency=3
        )
        self.assertEqual(await keyed.run("key", divmod, 7, 2, weight=5), (3, 1))
        self.assertEqual(await keyed.run("key", int, "ff", base=16), 255)
        self.assertTrue(await keyed.push("key", lambda: None, 4))
        permit = await keyed.acquire("key", weight=20)
        self.assertEqual((permit.weight, keyed.stats()["key"].held[0].units), (20, 30))
        permit.complete()
        permit = keyed.acquire_blocking("key", weight=2)
        self.assertEqual(permit.weight, 2)
        permit.complete()
        permit_or_none = keyed.try_acquire("key", weight=3)
        assert permit_or_none is not None
        self.assertEqual(permit_or_none.weight, 3)
        permit_or_none.complete()
        self.assertEqual(keyed.stats()["key"].completed, 6)

    @in_manual_time
    async def test_closing_applies_to_new_keys_as_well(self) -> None:
        keyed: KeyedRateLimiter[int] = KeyedRateLimiter(limits=["1/10ms"], clock=loop().clock)
        self.use(keyed, 1)
        accepted = loop().create_task(keyed.acquire(1))
        await settle()
        keyed.close()
        self.assertTrue(keyed.closed)
        for key in (1, 2):
            with self.assertRaises(Closed):
                await keyed.run(key, print)
        self.assertEqual(len(keyed), 1, "keys that come when all is closed are not kept")
        drained = loop().create_task(keyed.aclose())
        await settle()
        self.assertFalse(drained.done())
        (await accepted).complete()
        await drained

    @in_manual_time
    async def test_an_abort_empties_the_queues_of_all_keys(self) -> None:
        keyed: KeyedRateLimiter[int] = KeyedRateLimiter(limits=["1/10ms"], clock=loop().clock)
        for key in (1, 2):
            self.use(keyed, key)
            await keyed.push(key, print)
        waiter = loop().create_task(keyed.acquire(2))
        await settle()
        self.assertEqual(keyed.abort(), [print, print])
        with self.assertRaises(Aborted):
            await waiter
        await keyed.drained()

    def test_a_pause_of_all_holds_for_keys_that_come_later(self) -> None:
        def is_paused(key: int) -> bool:
            permit = keyed.try_acquire(key)
            if permit is not None:
                permit.complete()
            return permit is None

        keyed = self.keyed()
        self.assertFalse(is_paused(1))
        self.clock.now_ns += 2 * PER
        keyed.pause_for(timedelta(seconds=5))
        keyed.pause_for(1)
        self.assertTrue(is_paused(1) and is_paused(2))
        self.clock.now_ns += 5 * SECOND - 1
        self.assertTrue(is_paused(1) and is_paused(2) and is_paused(3))
        self.clock.now_ns += 1
        self.assertFalse(is_paused(1) or is_paused(3) or is_paused(4))
        keyed.pause_until(self.clock.now_ns / SECOND + 7)
        self.clock.now_ns += 6 * SECOND
        self.assertTrue(is_paused(1) and is_paused(5))
        keyed.resume()
        self.assertFalse(is_paused(1) or is_paused(5) or is_paused(6))
        keyed.pause_until(datetime.now(timezone.utc) + timedelta(hours=1))
        self.assertTrue(is_paused(7))
        with self.assertRaisesRegex(ValueError, "time zone"):
            keyed.pause_until(datetime.now())

    def test_many_keys_pass_through_a_bounded_memory(self) -> None:
        keyed = self.keyed()
        most = 0
        for key in range(20_000):
            # A hundred keys a period, each used once.
            self.use(keyed, key)
            self.clock.now_ns += PER // 100
            most = max(most, len(keyed))
        self.assertTrue(100 <= most <= 210, f"{most} at once, where 100 have something in hand")
        self.clock.now_ns += PER
        keyed.forget_idle()
        self.assertEqual((len(keyed), len(keyed._round)), (0, 0))

    def test_a_key_that_fails_when_it_is_compared_breaks_nothing(self) -> None:
        class Key:
            fails = False

            def __hash__(self) -> int:
                if self.fails:
                    raise ZeroDivisionError
                return 1

        keyed = self.keyed()
        key = Key()
        key.fails = True
        with self.assertRaises(ZeroDivisionError):
            keyed.get(key)
        key.fails = False
        self.use(keyed, key)
        self.assertIsNone(keyed.try_acquire(key))
        self.clock.now_ns += 2 * PER
        keyed.forget_idle()
        self.assertEqual(len(keyed), 0)

    def test_no_window_is_lost_to_forgetting_under_threads(self) -> None:
        keyed = self.keyed("3/10ms", concurrency=8)
        granted: list[int] = []

        def work(thread: int) -> None:
            for number in range(200):
                permit = keyed.try_acquire(-1)
                if permit is not None:
                    permit.complete()
                    granted.append(thread)
                del permit
                keyed.get(thread * 1000 + number)

        for _ in range(5):
            granted.clear()
            threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            self.assertEqual(len(granted), 3, "time stands still: one full window for all threads")
            self.clock.now_ns += PER + 1
