"""Harm from around the limiter: the collector, signals, the interpreter's hooks, threads, forks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import sys
import threading
import time
import types
import weakref
from typing import Any

import async_rate_limiter as package

from .fuzz_pool import (
    LIMITERS,
    THREAD_SECONDS,
    TYPES,
    World,
    guarded,
    ingredient,
)
from .fuzz_values import Raised

# Of asyncio, functions in which an exception would make the loop itself forget what it was to call.
FRAGILE = {"_run_once", "_run", "run_forever", "_run_forever_setup", "select", "turn"}
UNSAFE = {"logging", "threading", "importlib._bootstrap", "importlib._bootstrap_external"}
# Ends of objects.


@ingredient
def collect(world: World) -> None:
    some = world.rng.choice([0, 3, len(world.things)])
    del world.things[:some]
    gc.collect(world.rng.randrange(3))


@ingredient
def collector(world: World) -> None:
    """The collector runs all the time, and calls back."""
    # CPython 3.11 breaks its own frames where the collector and a hook call Python in turns.
    if world.hooked == "traced":
        return
    world.hooked = "collector"
    before = gc.get_threshold()
    gc.set_threshold(world.rng.choice([1, 2, 5]))
    world.undo.append(lambda: gc.set_threshold(*before))
    if world.chance(2):

        def callback(_phase: str, _info: object) -> None:
            if world.chance(20):
                world.safely()

        gc.callbacks.append(callback)
        world.undo.append(lambda: gc.callbacks.remove(callback))


@ingredient
def references(world: World) -> None:
    """Weak references with callbacks, and finalizers."""
    thing = world.pick()

    def dies(_reference: object) -> None:
        world.keep(world.pick())
        world.step()

    world.keep(weakref.ref(thing, dies))
    weakref.finalize(thing, world.step).atexit = False


@ingredient
def finalizers(world: World) -> None:
    """An object of a cycle with others, that brings them back or uses them as it ends."""
    things = [world.pick() for _ in range(2)]

    class Ends:
        def __init__(self) -> None:
            self.me = self
            self.things = things

        def __del__(self) -> None:
            if world.chance(2):
                for thing in self.things:
                    world.keep(thing)
            world.step()

    Ends()
    with contextlib.suppress(Exception):
        world.pick((*TYPES,)).ends = Ends()


@ingredient
def clock_cycles(world: World) -> None:
    """A limiter and its clock die in one collection, which ends the clock's globals as well."""
    cycle(world, clock=True)


@ingredient
def task_cycles(world: World) -> None:
    """The same of tasks, of what they await, of `close()` and `on_error`."""
    cycle(world, clock=False)


def cycle(world: World, clock: bool) -> None:
    names: dict[str, Any] = {"time": time, "asyncio": asyncio, "limit": package.RateLimiter}
    names.update(which={})
    # The collector ends them in the order in which they were made.
    parts = CYCLE.strip().split("\n\n")
    world.rng.shuffle(parts)
    if clock:
        parts.insert(0, "which = {'clock': clock}")
        parts.insert(0, "def clock(): return time.monotonic_ns()")
    parts.append("one = Loose(); one.calls = calls; calls.append(one)")
    parts += ["Loose.close = close"] if world.chance(2) else []
    for part in parts:
        exec(part, names)
    limiter, calls = names["limiter"], names["calls"]
    for call in calls[:-1]:
        with contextlib.suppress(Exception):
            if world.chance(2):
                call.send(None)
            elif world.chance(2):
                calls.append(asyncio.ensure_future(call))
    with contextlib.suppress(Exception):
        calls.append(limiter.try_acquire())
    if world.chance(2):
        names.clear()
    call = None
    del names, limiter, calls
    if world.chance(2):
        gc.collect()


CYCLE = """
def on_error(error): time.monotonic_ns()

def close(self): time.monotonic_ns()

def gives(): return one

def task(): return time.monotonic_ns()

async def coroutine():
    try:
        await asyncio.sleep(1)
    finally:
        time.monotonic_ns()

class Loose:
    def __await__(self): return self
    def __iter__(self): return self
    def __next__(self): return None
    def __call__(self): return time.monotonic_ns()
    def __del__(self): time.monotonic_ns()

limiter = limit(10, 10**9, on_error=lambda error: on_error(error), concurrency=3, **which)
calls = [limiter.run(lambda: gives()), limiter.push(lambda: gives())]
calls += [limiter.run(lambda: coroutine()), limiter.run(lambda: task())]
"""


# Interpreters that interrupt.


def may_raise(frame: types.FrameType | None) -> bool:
    """Whether what is raised here is caught, and not where asyncio would lose what it was to do."""
    if frame is None or frame.f_code.co_name in FRAGILE:
        return False
    below: types.FrameType | None = frame
    while below is not None:
        if below.f_code is guarded.__code__:
            return True
        # They would keep their locks; and `os.stat`, in an import, goes on with an exception.
        if below.f_globals.get("__name__") in UNSAFE:
            return False
        below = below.f_back
    return False


@ingredient
def traced(world: World) -> None:
    """Hooks that are called at every call and line, and sometimes call in."""

    if world.hooked == "collector":
        return
    world.hooked = "traced"

    def hook(frame: types.FrameType, _event: str, _argument: object) -> Any:
        if world.chance(200):
            if not world.chance(4):
                world.safely()
            elif may_raise(frame) and world.budget > 0:
                raise Raised("a hook")
        return hook

    choose: Any = world.rng.choice([sys.settrace, sys.setprofile])
    choose(hook)
    world.undo.append(lambda: choose(None))


@ingredient
def signals(world: World) -> None:
    """A signal whose handler raises, again and again."""
    if threading.current_thread() is not threading.main_thread():
        return
    kind = world.rng.choice([KeyboardInterrupt, Raised, SystemExit])
    every = world.rng.choice([0.00005, 0.0003, 0.001])

    def handler(_number: int, frame: types.FrameType | None) -> None:
        if world.budget <= 0:
            return
        # Not at an interval: on a slow machine, handlers would be called in handlers.
        signal.setitimer(signal.ITIMER_REAL, every)
        if may_raise(frame):
            raise kind("a signal")

    before = signal.signal(signal.SIGALRM, handler)
    world.undo.append(lambda: signal.signal(signal.SIGALRM, before))
    world.undo.append(lambda: signal.setitimer(signal.ITIMER_REAL, 0))
    signal.setitimer(signal.ITIMER_REAL, every)


@ingredient
def failing_loop(world: World) -> None:
    """One call of the loop's methods fails."""
    loop: Any = world.loop()
    name = world.rng.choice(["call_soon", "call_later", "call_at", "call_soon_threadsafe"])
    name = world.rng.choice([name, name, "create_future", "create_task", "time"])
    kind = world.rng.choice([KeyboardInterrupt, Raised, RuntimeError, MemoryError])

    def once(*_: Any, **__: Any) -> Any:
        vars(loop).pop(name, None)
        raise kind("the loop")

    if name != "time" or asyncio._get_running_loop() is not None:
        setattr(loop, name, once)


@ingredient
def closed_loop(world: World) -> None:
    """A loop ends with all that it had to do."""
    if asyncio._get_running_loop() is None:
        world.loop().close()
        world.local.loop = None


@ingredient
def nested(world: World) -> None:
    """A loop within a running loop, as in notebooks."""
    running, mine = asyncio._get_running_loop(), getattr(world.local, "loop", None)
    asyncio._set_running_loop(None)
    try:
        world.local.loop = None
        world.inside(world.rng.randrange(1, 5))
    finally:
        asyncio._set_running_loop(running)
        world.local.loop = mine


# Threads and processes.


@ingredient
def thread(world: World) -> None:
    """Another thread takes part, with or without a loop."""
    if len(world.threads) >= 4 or world.shallow:
        return
    rng = random.Random(world.rng.random())

    def steps() -> None:
        world.local.rng = rng
        if rng.random() < 0.6:
            world.inside(rng.randrange(1, 8))
        else:
            for _ in range(rng.randrange(1, 8)):
                world.safely()
        loop = getattr(world.local, "loop", None)
        if loop is not None and rng.random() < 0.5:
            world.safely(loop.close)

    made = threading.Thread(target=steps, daemon=True)
    made.start()
    world.threads.append(made)


@ingredient
def blocking(world: World) -> None:
    """The calls that wait without a loop, where they exist: in a thread of their own."""
    limiter = world.pick(LIMITERS)
    kind = type(limiter)
    if not hasattr(kind, "acquire_blocking") or len(world.threads) >= 4 or world.shallow:
        return
    rng = random.Random(world.rng.random())

    def waits() -> None:
        world.local.rng = rng
        if rng.random() < 0.5:
            with limiter:
                world.step()
        else:
            world.keep(limiter.acquire_blocking(timeout=rng.choice([0, 0.001, 0.01, None])))

    world.awaited.append(limiter)
    made = threading.Thread(target=lambda: world.safely(waits), daemon=True)
    made.start()
    world.threads.append(made)


@ingredient
def fork(world: World) -> None:
    """The process forks, in the middle; the child does a few steps."""
    if not hasattr(os, "fork") or world.forked or world.shallow or world.chance(2):
        return
    child = os.fork()
    if child == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(THREAD_SECONDS)
            world.forked = True
            world.undo.clear()
            world.threads.clear()
            if world.chance(2):
                asyncio._set_running_loop(None)
                world.local.loop = None
            world.inside(world.rng.randrange(1, 8))
            world.things.clear()
            gc.collect()
        finally:
            os._exit(0)
    while True:
        with contextlib.suppress(Exception, KeyboardInterrupt, SystemExit):
            _, status = os.waitpid(child, 0)
            break
    if os.WIFSIGNALED(status):
        world.found(f"fork: the child died of {signal.Signals(os.WTERMSIG(status)).name}")
