"""Random schedules, judged by an oracle that scans everything.

The oracle knows nothing of windows or queues. It is given what happened, and says of each start
whether the law, the order and the concurrency allowed it, and whether they had not allowed it
earlier. All numbers come from hypothesis, which shrinks and repeats what fails.
"""

from __future__ import annotations

import asyncio
import random
import unittest
from dataclasses import dataclass
from typing import Any

try:
    from hypothesis import given, settings
    from hypothesis import strategies as st
except ImportError as error:
    raise unittest.SkipTest("needs hypothesis") from error

from async_rate_limiter import RateLimiter

from .manual_time import loop, run

# A timer is a float of seconds: it may be early by what a float cannot say, and is then set again.
TIMER_NS = 4


@dataclass
class Limit:
    rate: int
    per: int
    weighs: bool

    def units(self, weight: int) -> int:
        return weight if self.weighs else 1

    def text(self) -> str:
        return f"{self.rate}{'w' if self.weighs else ''}/{self.per}ns"


@dataclass
class Request:
    """What is asked for, and then what became of it."""

    gap: int
    kind: str
    weight: int
    length: int
    fails: bool
    cancelled_after: int | None
    arrived: int = -1
    started: int | None = None
    ended: int | None = None
    left: int | None = None


def held(limit: Limit, requests: list[Request], at: int) -> int:
    """The units of what had started by then and had not ended for longer than `per`."""
    return sum(
        limit.units(request.weight)
        for request in requests
        if request.started is not None
        and request.started <= at
        and (request.ended is None or at <= request.ended + limit.per)
    )


def allowed(
    limits: list[Limit], concurrency: int, before: list[Request], weight: int, at: int
) -> bool:
    running = [
        request
        for request in before
        if request.started is not None
        and request.started <= at
        and (request.ended is None or request.ended > at)
    ]
    fits = all(held(limit, before, at) + limit.units(weight) <= limit.rate for limit in limits)
    return fits and len(running) < concurrency


def judge(limits: list[Limit], concurrency: int, requests: list[Request], prompt: bool) -> None:
    turn = 0
    for index, request in enumerate(requests):
        before = requests[:index]
        if request.started is None:
            assert request.left is not None, "a request was forgotten"
            turn = max(turn, request.left)
            continue
        at = request.started
        assert at >= turn, "somebody was overtaken"
        for limit in limits:
            units = held(limit, before, at) + limit.units(request.weight)
            assert units <= limit.rate, f"{limit.text()} was broken: {units} held"
        ends = [request.ended for request in before if request.ended is not None]
        if prompt:
            moments = [request.arrived, turn, *ends]
            moments += [end + limit.per + 1 for end in ends for limit in limits]
            since = max(request.arrived, turn)
            could = [
                moment
                for moment in moments
                if since <= moment < at - TIMER_NS
                and allowed(limits, concurrency, before, request.weight, moment)
            ]
            assert not could, f"it could have started at {could[0]}, and did at {at}"
        turn = at
    for limit in limits:
        # Whatever moment the server counts each of them at: the worst are start and end.
        for request in requests:
            if request.started is not None:
                assert held(limit, requests, request.started) <= limit.rate


async def perform(subject: RateLimiter, requests: list[Request]) -> None:
    calls: list[asyncio.Task[Any]] = []

    async def body(request: Request) -> None:
        try:
            if request.length:
                promise = loop().create_future()
                loop().call_at((loop().now_ns + request.length) / 1e9, promise.set_result, None)
                await promise
            if request.fails:
                raise LookupError("as it should")
        finally:
            request.ended = loop().now_ns

    async def in_block(request: Request) -> None:
        async with subject.weight(request.weight):
            request.started = loop().now_ns
            await body(request)

    async def call(request: Request) -> None:
        def task() -> Any:
            request.started = loop().now_ns
            return body(request)

        try:
            if request.kind == "push":
                await subject.push(task, request.weight)
            elif request.kind == "run":
                await subject.run(task, weight=request.weight)
            else:
                await in_block(request)
        except LookupError:
            pass
        finally:
            if request.started is None:
                request.left = loop().now_ns

    for request in requests:
        if request.gap:
            await asyncio.sleep(request.gap / 1e9)
        request.arrived = loop().now_ns
        made = loop().create_task(call(request))
        calls.append(made)
        # It joins the line before the next one does, and before time passes.
        await asyncio.sleep(0)
        if request.cancelled_after is not None and request.kind != "push":
            loop().call_at((loop().now_ns + request.cancelled_after) / 1e9, made.cancel)
    await asyncio.gather(*calls, return_exceptions=True)
    await subject.drained()


periods = st.integers(1, 50).map(lambda many: many * 1000)
limits_ = st.lists(
    st.builds(Limit, st.integers(2, 5), periods, st.booleans()), min_size=1, max_size=3
)
requests_ = st.lists(
    st.builds(
        Request,
        gap=st.integers(0, 30).map(lambda many: many * 700),
        kind=st.sampled_from(["push", "run", "block"]),
        weight=st.integers(1, 2),
        length=st.sampled_from([0, 0, 300, 5000, 60000]),
        fails=st.booleans(),
        cancelled_after=st.sampled_from([None, None, 0, 400, 20000]),
    ),
    min_size=1,
    max_size=25,
)


class Oracle(unittest.TestCase):
    @settings(max_examples=400, deadline=None)
    @given(limits_, st.integers(1, 3), requests_)
    def test_every_start_is_allowed_and_none_could_have_been_earlier(
        self, limits: list[Limit], concurrency: int, requests: list[Request]
    ) -> None:
        self.judged(limits, concurrency, requests, late=None)

    @settings(max_examples=200, deadline=None)
    @given(limits_, st.integers(1, 3), requests_, st.integers(0, 2**32))
    def test_a_late_loop_costs_time_and_never_strictness(
        self, limits: list[Limit], concurrency: int, requests: list[Request], seed: int
    ) -> None:
        self.judged(limits, concurrency, requests, late=random.Random(seed))

    def judged(
        self,
        limits: list[Limit],
        concurrency: int,
        requests: list[Request],
        late: random.Random | None,
    ) -> None:
        async def main() -> None:
            subject = RateLimiter(
                limits=[limit.text() for limit in limits],
                concurrency=concurrency,
                clock=loop().clock,
            )
            await perform(subject, requests)

        run(main, (lambda: late.randrange(10_000)) if late else (lambda: 0))
        judge(limits, concurrency, requests, prompt=late is None)
