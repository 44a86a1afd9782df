"""What the fuzzer's programs are made of: a world with its objects, values, and odd callables.

All choices come from the seed. A callable of the pool may call back into the world: a task, a clock
or a `close()` then does a step of the program of its own, in the middle of what the limiter does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time
import types
from datetime import timedelta
from typing import Any, Callable, Generator

import async_rate_limiter as package

from .fuzz_values import EXCEPTIONS, PLAIN, Odd, Raised

MILLISECOND = 1_000_000
NATIVE = ["RateLimiter", "WeightedRateLimiter", "KeyedRateLimiter", "Permit", "Stats", "Held"]
NATIVE += ["Event"]
TYPES: list[type] = [getattr(package, name) for name in NATIVE if hasattr(package, name)]
LIMITERS: tuple[type, ...] = (package.RateLimiter,)
# As it is before any program replaces it.
ABORT = package.RateLimiter.abort
# A thread that has not ended by then never will.
THREAD_SECONDS = 30
BAD = ("SystemError", "PanicException")


def _kind_of_awaitables() -> type:
    call = package.RateLimiter(1, 1000).push(int)
    call.close()
    return type(call)


AWAITABLE = _kind_of_awaitables()


def guarded(what: Callable[[], object]) -> None:
    """While this is on the stack, whatever is raised is caught below it."""
    what()


class World:
    """The state of one program."""

    def __init__(
        self, seed: int, without: frozenset[str] = frozenset(), loud: bool = False
    ) -> None:
        self.seed = seed
        self.without = without
        self.only: frozenset[str] = frozenset()
        self.loud = loud
        # Whether it may come to instances that were never initialised.
        self.bare = "bare" not in without
        self.main = random.Random(seed)
        self.local = threading.local()
        self.things: list[Any] = []
        # Limiters that threads wait for: aborted at the end, or they would wait for ever.
        self.awaited: list[Any] = []
        self.threads: list[threading.Thread] = []
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.budget = self.main.randrange(10, 150)
        self.steps: list[Callable[[World], object]] = []
        self.undo: list[Callable[[], object]] = []
        # Seconds after which a task that has not run is lost: far more than a slow machine needs.
        self.patience = 30.0
        # The process is no longer as it was: the next program needs another one.
        self.spoilt = False
        self.forked = False
        # The limit of recursion is low just now.
        self.shallow = False
        # What of the interpreter calls in.
        self.hooked = ""

    # What was found.

    def say(self, line: str) -> None:
        """A line for the parent, also from a forked child."""
        os.write(1, (line.replace("\n", " | ") + "\n").encode())

    def found(self, text: str) -> None:
        self.say(f"FOUND {self.seed} {text}")

    def tell(self, *what: object) -> None:
        """More of a step, for `--loud`."""
        if self.loud:
            with contextlib.suppress(BaseException):
                self.say(f"STEP {self.seed}      {' '.join(repr(it)[:90] for it in what)}")

    def judge(self, error: BaseException | None, where: str) -> None:
        """No exception of these kinds may come out of the package."""
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            # The last one is CPython's own, where a stack overflows while it parses.
            if type(error).__name__ in BAD and "AST constructor" not in str(error):
                self.found(f"{type(error).__name__} in {where}: {error}")
                return
            error = error.__cause__ or error.__context__

    # Chance.

    @property
    def rng(self) -> random.Random:
        return getattr(self.local, "rng", self.main)

    def chance(self, one_in: int) -> bool:
        return self.rng.randrange(one_in) == 0

    def pick(self, kind: type | tuple[type, ...] | None = None) -> Any:
        """One of the objects made so far, of this kind."""
        things = list(self.things)
        if kind is not None:
            things = [thing for thing in things if isinstance(thing, kind)]
        return self.rng.choice(things) if things else None

    def keep(self, thing: Any) -> Any:
        if thing is not None and (self.bare or thing is not AWAITABLE):
            self.things.append(thing)
            if len(self.things) > 40:
                with contextlib.suppress(IndexError):
                    self.things.pop(self.rng.randrange(len(self.things)))
        return thing

    # Steps.

    def step(self) -> None:
        """One step, from anywhere. What it raises is raised."""
        depth = getattr(self.local, "depth", 0)
        if self.budget <= 0 or depth >= 4 or not self.steps:
            return
        self.budget -= 1
        self.local.depth = depth + 1
        try:
            step = self.rng.choice(self.steps)
            if self.loud:
                self.say(f"STEP {self.seed} {'  ' * depth}{getattr(step, '__name__', step)}")
            step(self)
        finally:
            self.local.depth = depth

    def safely(self, what: Callable[[], object] | None = None, where: str = "a step") -> None:
        """A step whose exception is looked at, and ends here."""
        try:
            guarded(what or self.step)
        except BaseException as error:
            with contextlib.suppress(BaseException):
                self.judge(error, where)

    # Loops.

    def loop(self) -> asyncio.AbstractEventLoop:
        """This thread's loop."""
        loop: asyncio.AbstractEventLoop | None = getattr(self.local, "loop", None)
        if loop is None or loop.is_closed():
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(self.on_loop_error)
            self.loops.append(loop)
            self.local.loop = loop
        return loop

    def on_loop_error(self, _loop: object, context: dict[str, Any]) -> None:
        self.judge(context.get("exception"), "the loop's exception handler")
        if self.chance(20):
            self.step()

    def turn(self, seconds: float = 0.0) -> None:
        """Runs this thread's loop for a while, unless it runs already."""
        if asyncio._get_running_loop() is not None:
            return
        loop = self.loop()
        # Not by the loop's own attributes: a program may have replaced them. Twice, since a signal
        # may make the loop forget the first.
        now = time.monotonic()
        try:
            for after in (seconds, seconds + 0.02):
                asyncio.BaseEventLoop.call_at(loop, now + after, loop.stop)  # type: ignore[arg-type]
        except RuntimeError:
            # It was closed meanwhile.
            return
        self.safely(loop.run_forever, "the loop")

    def inside(self, steps: int) -> None:
        """Runs the loop, with steps of the program in its turns."""

        async def act() -> None:
            for _ in range(steps):
                self.safely()
                await asyncio.sleep(0)

        if asyncio._get_running_loop() is not None:
            for _ in range(steps):
                self.safely()
            return
        loop = self.loop()
        self.safely(lambda: self.keep(loop.create_task(act())))
        self.turn(self.rng.choice([0, 0, 0.001, 0.003]))

    # Values.

    def number(self) -> int:
        return self.rng.choice([1, 1, 1, 2, 2, 3])

    def value(self) -> Any:
        """Anything."""
        rng = self.rng
        kind = rng.randrange(12)
        if kind < 3:
            return rng.choice(PLAIN)
        if kind < 5:
            return self.number()
        if kind < 7:
            return self.pick()
        if kind < 9:
            return self.task()
        if kind == 9:
            return rng.choice([TYPES[0], AWAITABLE if self.bare else int])
        if kind == 10:
            return Odd(self)
        return self.exception()

    def exception(self) -> Any:
        """An exception or a type of one, new each time: a traceback keeps its frames."""
        error = self.rng.choice(EXCEPTIONS)
        return type(error)(*error.args) if isinstance(error, BaseException) else error

    def arguments(self) -> tuple[list[Any], dict[str, Any]]:
        """For a limiter, mostly right."""
        rng = self.rng
        names: dict[str, Any] = {}
        positional: list[Any] = [rng.choice([1, 1, 2, 3, 10, 1000])]
        per: Any = rng.choice([1000, MILLISECOND, 2 * MILLISECOND, 50 * MILLISECOND, 10**12])
        positional.append(rng.choice([per, timedelta(microseconds=per / 1000)]))
        if rng.random() < 0.6:
            names["concurrency"] = rng.choice([1, 2, 5, 1000])
        choices: dict[str, Callable[[], Any]] = {
            "limits": lambda: rng.choice([["3/1ms"], ["2w/1ms", "5/2ms"], Odd(self)]),
            "paced": lambda: True,
            "queue_capacity": lambda: rng.choice([0, 1, 2]),
            "abandon_grace": lambda: rng.choice([0, 1000, timedelta(milliseconds=1)]),
            "clock_drift_ppm": lambda: rng.choice([0, 100]),
            "max_pause": lambda: rng.choice([0, 0.0005, "1ms", Odd(self)]),
            "on_error": lambda: self.task(),
            "on_event": lambda: self.hook(),
            "clock": lambda: self.clock(),
        }
        if "clock_cycles" in self.without:
            del choices["clock"]
        for name, make in choices.items():
            if self.chance(5):
                names[name] = make()
        if self.chance(10):
            # A clock that stands still, as `int` does, lets nobody's timeout pass.
            names[rng.choice(["per", "rate", *(name for name in names if name != "clock")])] = (
                self.value()
            )
        if self.chance(20):
            positional[rng.randrange(2)] = self.value()
        return positional, names

    def clock(self) -> Callable[[], Any]:
        kind = self.rng.randrange(4)
        odd: list[Any] = [-1, None, 2**64, "noon", 0]
        answer = self.rng.choice(odd)

        def clock() -> Any:
            if kind == 1 and self.chance(4):
                self.step()
            if kind == 2 and self.chance(4):
                raise Raised("the clock")
            if kind == 3 and self.chance(4):
                return answer
            return time.monotonic_ns()

        return clock

    def hook(self) -> Callable[..., Any]:
        """A hook: any callable, or one that keeps its events and asks the limiter for more."""
        if self.chance(3):
            return self.task()

        def hook(event: Any) -> None:
            self.keep(event)
            if self.chance(3):
                self.step()
            if self.chance(5):
                self.keep(event.limiter.try_acquire())
            if self.chance(10):
                raise self.exception()

        return hook

    def task(self) -> Callable[..., Any]:
        """A task, a callback: something to call."""
        world, rng = self, self.rng
        kind = rng.randrange(14)
        answer = rng.choice(PLAIN)
        error = self.exception()

        def plain(*_: Any) -> Any:
            return answer

        def fails(*_: Any) -> Any:
            raise error

        def again(*_: Any) -> Any:
            world.step()
            return world.pick() if world.chance(3) else None

        async def sleeps(*_: Any) -> Any:
            await asyncio.sleep(answer if isinstance(answer, float) and 0 <= answer < 1 else 0)
            return answer

        async def steps(*_: Any) -> Any:
            world.step()
            await asyncio.sleep(0)
            world.step()
            raise error

        async def stubborn(*_: Any) -> Any:
            for _unused in range(3):
                with contextlib.suppress(BaseException):
                    await asyncio.sleep(1)
                    world.step()

        async def never(*_: Any) -> Any:
            await asyncio.get_running_loop().create_future()

        async def awaits(*_: Any) -> Any:
            return await world.pick(AWAITABLE)

        @types.coroutine
        def generator(*_: Any) -> Generator[Any, Any, Any]:
            yield
            return (yield from asyncio.sleep(0).__await__())

        def raw(*_: Any) -> Generator[Any, Any, Any]:
            yield world.value()

        def odd(*_: Any) -> Any:
            return Odd(world)

        def gives_call(*_: Any) -> Any:
            return world.pick(AWAITABLE)

        def future(*_: Any) -> Any:
            promise = world.loop().create_future()
            world.keep(promise)
            if world.chance(2):
                promise.set_result(answer)
            return promise

        def pushes(*_: Any) -> Any:
            limiter = world.pick(LIMITERS)
            return None if limiter is None else world.keep(limiter.run(world.task()))

        kinds: list[Any] = [plain, fails, again, sleeps, steps, stubborn, never, awaits]
        kinds += [generator, raw, odd, gives_call, future, pushes]
        made: Callable[..., Any] = kinds[kind]
        return made


# The steps that programs of chaos are made of, each by its name.
Step = Callable[[World], object]
INGREDIENTS: dict[str, Step] = {}


def ingredient(step: Step) -> Step:
    INGREDIENTS[step.__name__] = step
    return step
