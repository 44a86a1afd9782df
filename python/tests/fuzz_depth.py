"""Depth: tasks within tasks, long chains, and the end of the stack."""

from __future__ import annotations

import asyncio
import functools
import inspect
import operator
import random
import sys
import threading
import types
from typing import Any

import async_rate_limiter as package

from .fuzz_pool import THREAD_SECONDS, World, ingredient


def nest(world: World, depth: int) -> None:
    limiter = package.RateLimiter(10**6, 10**9, concurrency=10**6)
    how = world.rng.randrange(4)

    async def within(left: int) -> int:
        if left == 0:
            await asyncio.sleep(0)
            return 0
        if how == 1:
            return int(await limiter.push(functools.partial(within, left - 1)))
        return 1 + await limiter.run(functools.partial(within, left - 1))

    def given(left: int) -> Any:
        return limiter.run(functools.partial(given, left - 1)) if left else 0

    async def main() -> None:
        await (within(depth) if how < 3 else limiter.run(functools.partial(given, depth)))

    loop = asyncio.new_event_loop()
    # The default one logs, and logging keeps its lock where a stack ends at the wrong moment.
    loop.set_exception_handler(world.on_loop_error)
    running = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        # Interrupted, it may wait for ever.
        for after in (3, 4):
            loop.call_later(after, loop.stop)
        loop.create_task(main()).add_done_callback(lambda _: loop.stop())
        world.safely(loop.run_forever, "deep nesting")
    finally:
        loop.close()
        asyncio._set_running_loop(running)


@ingredient
def deep(world: World) -> None:
    """Tasks within tasks, up to the limit of recursion."""
    nest(world, world.rng.choice([20, 300, 1000, 6000]))


@ingredient
def chain(world: World) -> None:
    """A long chain of awaitables, each with the one before as its task, that ends at once."""
    limiter = package.RateLimiter(10, 10**9)
    # `send` is a method of C, the next one a method as Python's functions have, then a partial.
    links: list[Any] = [operator.attrgetter("send"), functools.partial(types.MethodType, int)]
    links.append(lambda call: functools.partial(int, call))
    calls: list[Any] = [limiter.run, limiter.push]
    link, call = world.rng.choice(links), world.rng.choice(calls)
    last: Any = int
    for _ in range(world.rng.choice([100, 5000, 50_000])):
        last = link(call(last))
    del last


@ingredient
def recursion(world: World) -> None:
    """A step at the very end of what recursion is left."""
    # CPython 3.11 may abort here, and in a forked child that waits for faulthandler's thread, which
    # a fork does not copy.
    if world.forked:
        return
    # The limit is that of all threads, and CPython aborts where one is far beyond it.
    if any(thread.is_alive() for thread in world.threads) or world.shallow:
        return
    before = sys.getrecursionlimit()
    world.shallow = True

    def down() -> None:
        try:
            down()
        except RecursionError:
            if world.chance(3):
                world.safely()
            raise

    try:
        sys.setrecursionlimit(len(inspect.stack(0)) + world.rng.choice([20, 30, 50, 100]))
        world.safely(world.step if world.chance(2) else down)
    finally:
        sys.setrecursionlimit(before)
        world.shallow = False


@ingredient
def small_stack(world: World) -> None:
    """Tasks within tasks in a thread with a small stack, as deep as plain coroutines can be."""
    rng = random.Random(world.rng.random())
    if world.shallow:
        return

    def run() -> None:
        world.local.rng = rng
        nest(world, rng.choice([20, 100, 250, 900]))

    before = threading.stack_size(512 * 1024)
    try:
        made = threading.Thread(target=run, daemon=True)
        made.start()
    finally:
        threading.stack_size(before)
    made.join(THREAD_SECONDS)
