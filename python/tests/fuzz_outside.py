"""Clean programs to which something odd comes from outside, and which must come through it.

Signals whose handlers raise, a loop that fails once, forks, loops within loops, interpreters.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import importlib
import os
import signal
import sys
import time
import types
from typing import Any, Callable

import async_rate_limiter as package

from .fuzz_clean import Audit, program
from .fuzz_pool import MILLISECOND, World

# Methods of a loop in which a signal may raise. Elsewhere, asyncio itself would lose something.
RAISES = {"call_soon", "_call_soon", "call_later", "call_at", "call_soon_threadsafe", "__init__"}
RAISES |= {"_check_closed", "cancel", "_timer_handle_cancelled", "get_debug", "_write_to_self"}
# Ways to make an interpreter: isolated, or as web servers do.
HOW: dict[str, list[tuple[Any, ...]]] = {
    "_xxsubinterpreters": [()],
    "_interpreters": [("isolated",), ("legacy",)],
}


class Interrupted:
    """Pushes plain functions into a loop in which something raises; sees where that comes out.

    The functions are not Python's own: no signal can come between their call and their effect.
    """

    def __init__(self, world: World, name: str) -> None:
        rng = world.rng
        self.world, self.name = world, name
        base = rng.choice([KeyboardInterrupt, Exception, BaseException])
        self.kind: Any = type("Tick", (base,), {})
        self.raised: list[BaseException] = []
        self.seen: set[int] = set()
        self.sure: list[int] = []
        self.begun: list[int] = []
        self.ran: list[int] = []
        self.armed = self.over = False
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _, context: self.see(context.get("exception")))
        self.limiter = package.RateLimiter(rng.randrange(1, 6), MILLISECOND)
        self.tasks: list[asyncio.Task[None]] = []

    def tick(self) -> BaseException:
        made: BaseException = self.kind("a tick")
        self.raised.append(made)
        return made

    def see(self, error: BaseException | None) -> None:
        """It, and all that it came from, has come out."""
        while error is not None and id(error) not in self.seen:
            self.seen.add(id(error))
            self.see(error.__cause__)
            error = error.__context__

    async def push(self, many: int) -> None:
        for _ in range(many):
            number = len(self.begun)
            try:
                self.begun.append(number)
                await self.limiter.push(functools.partial(self.ran.append, number))
                self.sure.append(number)
            except self.kind as error:
                self.see(error)

    def spin(self, seconds: float, armed: bool) -> None:
        asyncio.BaseEventLoop.call_later(self.loop, seconds, self.loop.stop)  # type: ignore[arg-type]
        self.armed = armed
        try:
            self.loop.run_forever()
        except self.kind as error:
            self.see(error)
        finally:
            self.armed = False

    def run(self, rounds: int) -> None:
        before = sys.unraisablehook
        sys.unraisablehook = lambda hook: self.see(hook.exc_value)
        try:
            for _ in range(rounds):
                self.tasks.append(self.loop.create_task(self.push(self.world.rng.randrange(12))))
                self.spin(0.002, armed=True)
            still = 0
            while not set(self.sure) <= set(self.ran) and still < 500:
                ran = len(self.ran)
                self.spin(0.005, armed=False)
                still = still + 1 if ran == len(self.ran) else 0
                if not self.limiter.stats().queued and not self.limiter.stats().running:
                    break
            for task in self.tasks:
                if task.done():
                    self.see(task.exception())
            self.tasks.clear()
            gc.collect()
        finally:
            self.loop.close()
            sys.unraisablehook = before
        audit = Audit([], 1)
        audit.counts.update(self.ran)
        audit.once(self.world, self.name, self.sure, set(self.begun) - set(self.sure))
        swallowed = [error for error in self.raised if id(error) not in self.seen]
        if swallowed:
            of = f"{len(swallowed)} of {len(self.raised)}"
            self.world.found(f"{self.name}: {of} exceptions swallowed")


@program
def interrupted(world: World) -> None:
    """A signal's handler raises: in the loop's methods, and in the function that pushes."""
    run = Interrupted(world, "interrupted")

    def handler(_number: int, frame: types.FrameType | None) -> None:
        if run.over:
            return
        # Not at an interval: on a slow machine, handlers would be called in handlers.
        signal.setitimer(signal.ITIMER_REAL, every)
        if not run.armed or frame is None:
            return
        code = frame.f_code
        where = code is Interrupted.push.__code__
        # Elsewhere in asyncio it would be the loop that forgets what it was to call.
        if where or ("asyncio" in code.co_filename and code.co_name in RAISES):
            raise run.tick()

    every = world.rng.choice([0.00002, 0.0001])
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, every)
    try:
        run.run(world.rng.randrange(3, 15))
    finally:
        run.over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@program
def interrupted_wait(world: World) -> None:
    """A signal's handler raises while a thread waits without a loop, where that exists."""
    limiter: Any = package.RateLimiter(2, 3600 * 10**9)
    if not hasattr(limiter, "acquire_blocking"):
        return
    # Nobody knows when it ends, so no timeout is known to be too short.
    held = limiter.acquire_blocking()

    def handler(_number: int, _frame: object) -> None:
        raise InterruptedError("a tick")

    before = signal.signal(signal.SIGALRM, handler)
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, world.rng.choice([0.001, 0.01]))
    try:
        if world.chance(2):
            limiter.acquire_blocking(timeout=world.patience)
        else:
            limiter.__enter__()
        world.found("interrupted_wait: granted what is not free")
    except InterruptedError:
        if time.monotonic() - start > world.patience / 2:
            world.found("interrupted_wait: the exception came out after the wait only")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if limiter.stats().queued:
        world.found(f"interrupted_wait: it left a trace: {limiter!r}")
    held.complete()


@program
def refused(world: World) -> None:
    """One of the loop's methods fails once, before or after it has done what it was asked."""
    run = Interrupted(world, "refused")
    loop: Any = run.loop
    name = world.rng.choice(["call_soon", "call_later", "call_at"])
    real = getattr(loop, name)
    left, after = world.rng.randrange(6), world.rng.random() < 0.3

    def method(*arguments: Any, **names: Any) -> Any:
        nonlocal left
        callback = arguments[0 if name == "call_soon" else 1]
        own = callback == loop.stop or "Task" in type(callback).__name__
        if own or not run.armed:
            return real(*arguments, **names)
        left -= 1
        if left >= 0:
            return real(*arguments, **names)
        vars(loop).pop(name)
        if after:
            real(*arguments, **names)
        raise run.tick()

    setattr(loop, name, method)
    run.run(world.rng.randrange(3, 8))


def in_fork(what: Callable[[], int], seconds: int = 60) -> int:
    """The status of a forked child that does this."""
    child = os.fork()
    if child == 0:
        code = 6
        try:
            signal.alarm(seconds)
            code = what()
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


@program
def interpreters(world: World) -> None:
    """Another interpreter in the process: it works there, or cannot be imported."""
    module: Any = None
    for name in ("_xxsubinterpreters", "_interpreters"):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(name)
    if module is None:
        return

    def child() -> int:
        text = """
try:
    import asyncio
    from async_rate_limiter import RateLimiter
except ImportError:
    pass
else:
    asyncio.run(RateLimiter(1, 1000).run(int))
"""
        module.run_string(module.create(*world.rng.choice(HOW[module.__name__])), text)
        return 0

    status = in_fork(child, 30)
    if status:
        world.found(f"interpreters: the process ended with {status:#x}, of a subinterpreter")


@program
def forked(world: World) -> None:
    """A child of a fork, while the loop runs: it works, or says that it cannot."""
    limiter = package.RateLimiter(2, MILLISECOND)
    ran: list[int] = []
    runs = world.chance(2)

    async def in_child() -> int:
        accepted = 0
        for _ in range(5):
            try:
                await asyncio.wait_for(limiter.push(functools.partial(ran.append, 1)), 5)
                accepted += 1
                if runs:
                    await asyncio.wait_for(limiter.run(int), 5)
            except asyncio.TimeoutError:
                return 4
            except RuntimeError as error:
                return 5 if "attached to a different loop" in str(error) else 0
        for _ in range(500):
            if len(ran) == accepted:
                return 0
            await asyncio.sleep(0.01)
        return 3

    def child() -> int:
        asyncio._set_running_loop(None)
        return asyncio.run(in_child())

    async def main() -> None:
        await limiter.run(int)
        faults = {3: "lost tasks", 4: "waits for ever", 5: "is sent to the parent's loop"}
        status = in_fork(child)
        if status:
            code = os.WEXITSTATUS(status)
            world.found(f"forked: the child {faults.get(code, f'died: {status:#x}')}")
        await asyncio.wait_for(limiter.run(int), world.patience)

    asyncio.run(main())


@program
def within(world: World) -> None:
    """A loop runs within another: the limiter works in it, or says that it cannot."""
    limiter = package.RateLimiter(2, MILLISECOND, concurrency=world.rng.randrange(1, 3))

    async def inner() -> None:
        for _ in range(5):
            await asyncio.wait_for(limiter.run(int), 5)

    async def main() -> None:
        await limiter.run(int)
        running = asyncio.get_running_loop()
        asyncio._set_running_loop(None)
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(inner())
        except asyncio.TimeoutError:
            world.found("within: waits for ever in a loop within a loop")
        except RuntimeError as error:
            if "attached to a different loop" in str(error):
                world.found(f"within: is sent to the outer loop: {error}")
        finally:
            loop.close()
            asyncio._set_running_loop(running)
        await asyncio.wait_for(limiter.run(int), world.patience)

    asyncio.run(main())
