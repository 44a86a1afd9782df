"""read_answer: what an HTTP answer asks of a limiter. The rules have their tests in Rust."""

from __future__ import annotations

import math
import unittest

from async_rate_limiter._native import read_answer, used_before

NOW = 1_700_000_000.0


def never() -> float:
    raise AssertionError("the answer states a time, or asks for none")


class Answers(unittest.TestCase):
    def test_a_wait_is_in_seconds_and_never_less_than_what_is_asked(self) -> None:
        cases = [
            ("2", 2.0),
            ("1.732", 1.732),
            ("0.1", 0.1),
            ("1e300", math.inf),
        ]
        for text, seconds in cases:
            answer = read_answer(429, [("Retry-After", text)], NOW)
            self.assertEqual((answer.wait, answer.header), (seconds, "retry-after"), text)
            self.assertEqual(answer.pause(never), (seconds, "retry-after"))
            self.assertFalse(answer.is_unstated)
        for ns in range(1, 1_000_000_000, 7_654_321):
            text = f"123456789.{ns:09}"
            wait = read_answer(429, [("retry-after", text)], NOW).wait
            assert wait is not None
            # As pause_for counts it. The floats are 15 ns apart here.
            self.assertGreaterEqual(math.ceil(wait * 1e9), 123456789 * 10**9 + ns, text)
            self.assertLess(wait, 123456789 + ns / 1e9 + 1e-7)

    def test_a_refusal_without_a_time_asks_for_the_backoff(self) -> None:
        answer = read_answer(429, [], NOW)
        self.assertEqual((answer.wait, answer.header, answer.is_unstated), (None, None, True))
        self.assertEqual(answer.pause(lambda: 7.5), (7.5, "refusal"))
        self.assertEqual(answer.pause(lambda: math.inf), (math.inf, "refusal"))
        with self.assertRaises(ZeroDivisionError):
            answer.pause(lambda: 1 / 0)
        self.assertIsNone(read_answer(200, [], NOW).pause(never))
        at_once = read_answer(503, [("retry-after", "0")], NOW)
        self.assertEqual(at_once.pause(never), (0.0, "retry-after"))

    def test_the_statuses_and_used_up_windows_that_count_can_be_chosen(self) -> None:
        ask = [("retry-after", "7")]
        self.assertEqual(read_answer(202, ask, NOW).wait, None)
        self.assertEqual(read_answer(202, ask, NOW, [202]).wait, 7.0)
        self.assertEqual(read_answer(429, ask, NOW, statuses=[202]).pause(never), None)
        used_up = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1700000009")]
        self.assertEqual(read_answer(200, used_up, NOW).wait, 10.0)
        self.assertEqual(read_answer(200, used_up, NOW, used_up=False).wait, None)

    def test_the_windows_of_the_server_are_told(self) -> None:
        headers = [
            ("RateLimit", '"minute";r=3;t=10'),
            ("RateLimit-Policy", '"minute";q=40;w=60'),
        ]
        usages = read_answer(200, iter(headers), NOW).usages
        minute = next(usage for usage in usages if usage.name == "minute")
        self.assertEqual((minute.remaining, minute.limit, minute.used), (3, 40, None))
        self.assertEqual((minute.window, minute.reset), (60.0, 10.0))
        self.assertIn("remaining=3", repr(minute))

    def test_counts_are_those_before_the_request(self) -> None:
        answer = read_answer(200, [("X-Left", "3"), ("X-Used", "8")], NOW)
        self.assertEqual(answer.used_before("x-left", "remaining", "10/1s", 5), 6)
        self.assertEqual(answer.used_before("x-left", "remaining", "10w/1s", 5), 2)
        self.assertEqual(answer.used_before("x-used", "used", "10w/1s", 2), 6)
        self.assertIsNone(answer.used_before("x-other", "used", "10w/1s", 2))
        self.assertEqual(used_before("10w/1s", 1000, 2), 8)
        with self.assertRaisesRegex(ValueError, '"used" or "remaining"'):
            answer.used_before("x-left", "left", "10/1s", 1)
        for wrong in ("10", "ten/1s"):
            with self.assertRaisesRegex(ValueError, wrong):
                answer.used_before("x-left", "used", wrong, 1)
            with self.assertRaisesRegex(ValueError, wrong):
                used_before(wrong, 1, 1)

    def test_values_that_no_header_may_hold_are_skipped(self) -> None:
        for value in ("2\udcff", "2\n", "٢", "\x7f2"):
            headers = [("retry-after", value), ("x-y", "1")]
            self.assertTrue(read_answer(429, headers, NOW).is_unstated, ascii(value))
        with self.assertRaises(TypeError):
            read_answer(429, [("retry-after", 2)], NOW)  # type: ignore[list-item]

    def test_a_time_that_is_none_is_refused(self) -> None:
        for now in (math.nan, math.inf, -1.0):
            with self.assertRaisesRegex(ValueError, "seconds since 1970"):
                read_answer(200, [], now)
