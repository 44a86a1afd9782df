"""Metrics of limiters by `on_event`, in the text format that Prometheus reads, without a library.

A hook sees each wait and each task, so it can count and time them; polling `stats()` misses what
happens in between. Serve the text at `/metrics`. With prometheus_client or OpenTelemetry, a hook of
the same shape calls `histogram.observe(event.waited)`: see `trace` for spans.
"""

import asyncio
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import Any
from weakref import WeakKeyDictionary

from async_rate_limiter import Event, KeyedRateLimiter, RateLimiter

BUCKETS = (0.001, 0.01, 0.1, 1.0, 10.0, float("inf"))


class Histogram:
    def __init__(self) -> None:
        self.counts = [0] * len(BUCKETS)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds

    def lines(self, name: str, labels: str) -> Iterator[str]:
        for bucket, count in zip(BUCKETS, accumulate(self.counts)):
            le = "+Inf" if bucket == float("inf") else f"{bucket:g}"
            yield f'{name}_bucket{{{labels},le="{le}"}} {count}'
        yield f"{name}_count{{{labels}}} {sum(self.counts)}"
        yield f"{name}_sum{{{labels}}} {self.sum:.3f}"


class Metrics:
    """The numbers of a limiter, or of all keys of one: give it as `on_event`. The names are those
    of the Rust library.
    """

    def __init__(self, name: str) -> None:
        self.labels = f'limiter="{name}"'
        # A limiter calls its hook in one thread at a time, but there may be several limiters.
        self.lock = threading.Lock()
        self.ends: Counter[str] = Counter()
        self.overspent = 0
        # The latest numbers of each limiter, which would be kept alive by a plain dict.
        self.loads: WeakKeyDictionary[RateLimiter, tuple[int, int]] = WeakKeyDictionary()
        self.waited, self.took = Histogram(), Histogram()

    def __call__(self, event: Event) -> None:
        with self.lock:
            # Set and not counted up: so they are right in a forked child too.
            self.loads[event.limiter] = (event.running, event.queued)
            self.ends[event.kind] += 1
            self.overspent += event.excess
            if event.kind == "granted" and event.waited is not None:
                self.waited.observe(event.waited)
            elif event.kind in ("completed", "abandoned") and event.took is not None:
                self.took.observe(event.took)

    def lines(self) -> Iterator[str]:
        with self.lock:
            running, queued = (sum(each) for each in zip((0, 0), *self.loads.values()))
            yield f"rate_limiter_running{{{self.labels}}} {running}"
            yield f"rate_limiter_queued{{{self.labels}}} {queued}"
            for end in ("completed", "abandoned"):
                yield f"rate_limiter_{end}_total{{{self.labels}}} {self.ends[end]}"
            yield f"rate_limiter_overspent_units_total{{{self.labels}}} {self.overspent}"
            yield from self.waited.lines("rate_limiter_wait_seconds", self.labels)
            yield from self.took.lines("rate_limiter_task_seconds", self.labels)


def held(limiter: RateLimiter, labels: str) -> Iterator[str]:
    """What only falls with time has no events: read it when somebody asks."""
    for each in limiter.stats().held:
        yield f'rate_limiter_held_units{{{labels},limit="{each.limit}"}} {each.units}'


def trace(tracer: Any, spans: dict[int, Any], event: Event) -> None:
    """Spans of OpenTelemetry for one limiter: `on_event=functools.partial(trace, tracer, {})`.

    They are "queued", from asking to the permit, and "running", from the permit to the end.
    """
    if event.id is None:
        return
    if event.kind in ("queued", "granted"):
        if event.id in spans:
            spans.pop(event.id).end()
        name = "queued" if event.kind == "queued" else "running"
        spans[event.id] = tracer.start_span(name, attributes={"weight": event.weight or 1})
    elif event.id in spans:
        span = spans.pop(event.id)
        span.set_attribute("end", event.kind)
        span.end()


async def main() -> None:
    api_metrics, user_metrics = Metrics("api"), Metrics("users")
    api = RateLimiter(limits=["20/1s", "900w/1s"], concurrency=2, on_event=api_metrics)
    users: KeyedRateLimiter[str] = KeyedRateLimiter(2, per=0.1, on_event=user_metrics)
    for weight in (100, 350):
        async with api.weight(weight) as permit:
            permit.actual = 400
    for _ in range(5):
        await users.run("alice", asyncio.sleep, 0.01)
    await api.push(lambda: None)
    print(*api_metrics.lines(), *held(api, api_metrics.labels), *user_metrics.lines(), sep="\n")


asyncio.run(main())
