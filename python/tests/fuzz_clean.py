"""Programs that do nothing odd themselves: their every task runs once, in its window and in order.

Each program looks at itself and says what it found. `fuzz_outside.py` has those to which something
odd comes from outside.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import gc
import random
import threading
import time
from typing import Any, Callable

import async_rate_limiter as package

from .fuzz_pool import AWAITABLE, MILLISECOND, TYPES, World

Program = Callable[[World], object]
PROGRAMS: dict[str, Program] = {}


def program(function: Program) -> Program:
    PROGRAMS[function.__name__] = function
    return function


def clean(world: World, name: str) -> None:
    """One program, and then what it left."""
    # Held, so that no later object has the place of one of them.
    before = {id(thing): thing for thing in natives()}
    if world.loud:
        world.say(f"STEP {world.seed} {name}")
    try:
        PROGRAMS[name](world)
    except BaseException as error:
        world.judge(error, name)
        world.found(f"{name}: {type(error).__name__} came out: {str(error)[:100]}")
        del error
    world.local.__dict__.clear()
    for _ in range(3):
        gc.collect()
    left = collections.Counter(type(it).__name__ for it in natives() if id(it) not in before)
    if left:
        world.found(f"{name}: left alive {dict(left)}")


def natives() -> list[Any]:
    return [thing for thing in gc.get_objects() if isinstance(thing, (*TYPES, AWAITABLE))]


class Audit:
    """When each task ran, and the law: a plain scan of all of it."""

    def __init__(self, limits: list[tuple[int, int, bool]], concurrency: int) -> None:
        self.limits = limits
        self.concurrency = concurrency
        # Start, end, weight while it runs, weight once it has ended.
        self.runs: list[list[Any]] = []
        self.counts: collections.Counter[int] = collections.Counter()
        self.limiter: Any = None
        self.told: Told | None = None

    def begin(self, number: int, weight: int = 1) -> list[Any]:
        self.counts[number] += 1
        run: list[Any] = [time.monotonic_ns(), None, weight, weight]
        self.runs.append(run)
        return run

    def end(self, run: list[Any], actual: int | None = None) -> None:
        if actual is not None:
            run[3] = actual
        if run[1] is None:
            run[1] = time.monotonic_ns()

    def judge(self, world: World, name: str) -> None:
        if self.told is not None:
            self.told.judge(world, name, self.limiter)
        runs = sorted(self.runs, key=lambda run: int(run[0]))
        for index, (start, _, weight, _) in enumerate(runs):
            earlier = runs[:index]
            at_once = 1 + sum(end is None or end > start for _, end, _, _ in earlier)
            if at_once > self.concurrency:
                world.found(f"{name}: {at_once} at once, of {self.concurrency}")
                return
            for rate, per, weighs in self.limits:
                held = weight if weighs else 1
                for _, end, reserved, actual in earlier:
                    if end is None or end >= start - per:
                        units = reserved if end is None or end > start else actual
                        held += units if weighs else 1
                if held > rate:
                    world.found(f"{name}: {held} in a window of {rate}/{per}ns")
                    return

    def once(self, world: World, name: str, numbers: Any, unsure: Any = ()) -> None:
        """Each of these ran once; each of the others at most once."""
        lost = [number for number in numbers if self.counts[number] == 0]
        twice = [number for number, times in self.counts.items() if times > 1]
        if lost:
            world.found(f"{name}: lost {len(lost)} of {len(numbers)} tasks ({len(unsure)} unsure)")
        if twice:
            world.found(f"{name}: {len(twice)} tasks ran more than once")


class Told:
    """A hook that keeps a book of what it is told, and now and then fails."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = random.Random(rng.random())
        # The last event of each task, and what it cannot have come after.
        self.last: dict[int, str] = {}
        self.wrong: list[str] = []
        self.busy = False

    def __call__(self, event: Any) -> None:
        if self.busy:
            self.wrong.append("a hook is called within itself")
        self.busy = True
        before = self.last.get(event.id)
        if before not in BEFORE[event.kind]:
            self.wrong.append(f"{event.kind} after {before}")
        self.last[event.id] = event.kind
        if self.rng.random() < 0.1:
            permit = event.limiter.try_acquire()
            if permit is not None:
                permit.release_unused()
        self.busy = False
        if self.rng.random() < 0.1:
            fails()

    def judge(self, world: World, name: str, limiter: Any) -> None:
        # The last call to the limiter tells what is left to tell.
        limiter.resume()
        open_ends = [kind for kind in self.last.values() if kind in ("queued", "granted")]
        if open_ends and not limiter.stats().running + limiter.stats().queued:
            self.wrong.append(f"{len(open_ends)} tasks never ended")
        if self.wrong:
            world.found(f"{name}: a hook was told wrongly: {self.wrong[0]}")


#: Of the events of one task, what may come before each.
BEFORE: dict[str, tuple[Any, ...]] = {
    "queued": (None,),
    "left": ("queued",),
    "granted": (None, "queued"),
    **dict.fromkeys(("completed", "abandoned", "unused"), ("granted",)),
}


def settings(rng: random.Random) -> tuple[Any, Audit, int]:
    """A limiter, what audits it, and the greatest weight."""
    weighs = rng.random() < 0.3
    rate, per = rng.randrange(1, 5), rng.choice([1, 2, 5]) * MILLISECOND
    limits = [(rate, per, weighs)]
    names: dict[str, Any] = {}
    if rng.random() < 0.3:
        limits.append((rng.randrange(1, 6), rng.choice([1, 3]) * MILLISECOND, rng.random() < 0.5))
        other = limits[1]
        names["limits"] = [f"{other[0]}{'w' if other[2] else ''}/{other[1]}ns"]
    concurrency = rng.choice([1, 1, 2, 4])
    names["concurrency"] = concurrency
    if rng.random() < 0.2:
        names["queue_capacity"] = rng.randrange(1, 4)
    if rng.random() < 0.15 and not weighs:
        names["paced"] = True
    if rng.random() < 0.3:
        names["on_error"] = fails
    audit = Audit(limits, concurrency)
    if rng.random() < 0.4:
        names["on_event"] = audit.told = Told(rng)
    kind: Any = package.WeightedRateLimiter if weighs else package.RateLimiter
    most = min([limit[0] for limit in limits if limit[2]] or [3])
    audit.limiter = kind(rate, per, **names)
    return audit.limiter, audit, most


def fails(*_: object) -> None:
    raise LookupError("as it should")


async def work(limiter: Any, audit: Audit, number: int, rng: random.Random, most: int) -> None:
    """One task, asked for in one of the ways there are."""
    weight = rng.randrange(1, most + 1)
    length = rng.choice([0, 0, 0.0005, 0.002])
    raises = rng.random() < 0.15

    def function() -> None:
        audit.end(audit.begin(number, weight))
        if raises:
            fails()

    async def coroutine() -> None:
        run = audit.begin(number, weight)
        try:
            await asyncio.sleep(length)
            if raises:
                fails()
        finally:
            audit.end(run)

    way = rng.randrange(8)
    with contextlib.suppress(LookupError):
        if way < 2:
            await limiter.push((function, coroutine)[way], weight)
        elif way < 4:
            await limiter.run((function, coroutine)[way - 2], weight=weight)
        elif way == 4:
            weight = 1
            async with limiter:
                await coroutine()
        elif way == 5:
            actual = rng.randrange(weight + 1)
            async with limiter.weight(weight) as permit:
                run = audit.begin(number, weight)
                try:
                    await asyncio.sleep(length)
                    permit.actual = actual
                    audit.end(run, actual)
                finally:
                    audit.end(run)
        elif way == 6:
            await limiter(coroutine, weight=weight)()
        else:
            permit = await limiter.acquire(weight=weight)
            with permit:
                function()


@program
def window(world: World) -> None:
    """Tasks of all kinds, some of them cancelled."""
    rng = world.rng
    limiter, audit, most = settings(rng)
    many = rng.randrange(3, 40)
    cancels = rng.random() < 0.4
    cancelled: set[int] = set()

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        made = []
        for number in range(many):
            made.append(asyncio.ensure_future(work(limiter, audit, number, rng, most)))
            if rng.random() < 0.3:
                await asyncio.sleep(rng.choice([0, 0.001]))
            if cancels and rng.random() < 0.3:
                victim = rng.randrange(len(made))
                cancelled.add(victim)
                made[victim].cancel()
        _, pending = await asyncio.wait(made, timeout=world.patience)
        if pending:
            world.found(f"window: {len(pending)} calls wait for ever: {limiter!r}")
        await asyncio.wait_for(limiter.drained(), world.patience)
        stats = limiter.stats()
        if stats.running or stats.queued:
            world.found(f"window: not drained: {limiter!r}")
        for number, task in enumerate(made):
            if task.done() and not task.cancelled() and task.exception() is not None:
                world.found(f"window: task {number} failed: {task.exception()!r}")

    asyncio.run(main())
    audit.judge(world, "window")
    audit.once(world, "window", [n for n in range(many) if n not in cancelled], cancelled)


@program
def fifo(world: World) -> None:
    """Plain acquires are granted in the order in which they were asked for."""
    rng = world.rng
    rate = rng.randrange(1, 4)
    limiter = package.RateLimiter(rate, MILLISECOND, concurrency=rng.randrange(1, 4))
    order: list[int] = []
    many = rng.randrange(3, 40)

    async def one(number: int) -> None:
        permit = await limiter.acquire()
        order.append(number)
        if rng.random() < 0.3:
            await asyncio.sleep(0.0005)
        permit.complete()

    async def main() -> None:
        await asyncio.wait_for(asyncio.gather(*map(one, range(many))), world.patience)

    asyncio.run(main())
    if order != list(range(many)):
        world.found(f"fifo: granted in the order {order}")


@program
def loops(world: World) -> None:
    """One loop after another, each drained: nothing is lost, and the window stays as full."""
    rng = world.rng
    limiter, audit, most = settings(rng)

    async def main(first: int) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        calls = [work(limiter, audit, first + more, rng, most) for more in range(4)]
        await asyncio.wait_for(asyncio.gather(*calls), world.patience)
        await asyncio.wait_for(limiter.drained(), world.patience)

    rounds = rng.randrange(2, 6)
    for number in range(rounds):
        asyncio.run(main(number * 4))
    audit.judge(world, "loops")
    audit.once(world, "loops", range(rounds * 4))


@program
def many_threads(world: World) -> None:
    """Threads that share a limiter, each with a loop or without: where they can."""
    if not hasattr(package.RateLimiter, "acquire_blocking"):
        return
    limiter, audit, most = settings(world.rng)

    def run(first: int, rng: random.Random) -> None:
        async def main() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda *_: None)
            calls = [work(limiter, audit, first + more, rng, most) for more in range(5)]
            await asyncio.wait_for(asyncio.gather(*calls), world.patience)
            await asyncio.wait_for(limiter.drained(), world.patience)

        if rng.random() < 0.5:
            world.safely(lambda: asyncio.run(main()), "a thread's loop")
            return
        for number in range(first, first + 5):
            with limiter.acquire_blocking(timeout=world.patience):
                audit.end(audit.begin(number))

    threads = []
    for index in range(world.rng.randrange(2, 5)):
        rng = random.Random(world.rng.random())
        threads.append(threading.Thread(target=run, args=(index * 5, rng), daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join(2 * world.patience)
        if thread.is_alive():
            world.found("many_threads: one never ended")
    audit.judge(world, "many_threads")
    audit.once(world, "many_threads", range(5 * len(threads)))


@program
def inherited(world: World) -> None:
    """A subclass written the usual way."""

    def __init__(self: Any, rate: int, per: int) -> None:
        base.__init__(self, rate, per)

    base: Any = package.RateLimiter
    limiter: Any = type("Mine", (base,), {"__init__": __init__})(world.number(), MILLISECOND)
    asyncio.run(asyncio.wait_for(limiter.run(limiter.stats), world.patience))
