"""No program ends the interpreter, and no exception is lost.

Each program runs in an interpreter of its own.
"""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import textwrap
import unittest
from typing import Any, Callable

from async_rate_limiter import RateLimiter

from .manual_time import SECOND, ManualLoop, in_manual_time, limiter, loop, settle

HOUR = 3_600_000_000_000


def run_program(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


class Programs(unittest.TestCase):
    def check(self, program: str, printed: str = "alive\n") -> None:
        ran = run_program(program)
        self.assertEqual((ran.returncode, ran.stdout), (0, printed), ran.stderr)

    def test_nobody_makes_an_awaitable_or_a_permit_by_hand(self) -> None:
        self.check("""
            import copy, pickle
            from async_rate_limiter import RateLimiter, Permit
            limiter = RateLimiter(10, per=1)
            awaitable = limiter.push(print)
            kind = type(awaitable)
            permit = limiter.try_acquire()
            for make in (kind, lambda: kind.__new__(kind), lambda: object.__new__(kind), Permit,
                         lambda: Permit.__new__(Permit), lambda: object.__new__(Permit),
                         lambda: type("Sub", (kind,), {}), lambda: copy.copy(awaitable),
                         lambda: copy.copy(permit), lambda: copy.deepcopy(limiter),
                         lambda: pickle.dumps(limiter), lambda: pickle.dumps(permit)):
                try:
                    print("made", make())
                except TypeError:
                    pass
            awaitable.close()
            print("alive")
            """)

    def test_a_limiter_that_was_never_initialised_says_so(self) -> None:
        self.check(
            """
            from async_rate_limiter import RateLimiter
            limiter = RateLimiter.__new__(RateLimiter)
            print(repr(limiter))
            class Sub(RateLimiter):
                def __init__(self): pass
            for name in dir(limiter):
                for subject in (limiter, Sub()):
                    try:
                        method = getattr(subject, name)
                        if not name.startswith("__") or "enter" in name: method()
                    except (RuntimeError, TypeError): pass
            print("alive")
            """,
            "<RateLimiter, not made yet>\nalive\n",
        )

    def test_what_dies_in_one_collection_runs_no_code_whose_globals_are_gone(self) -> None:
        scenes = {
            "a held permit and its clock": """
                def clock(): return time.monotonic_ns()
                box = [RateLimiter(10, per=1, clock=clock).try_acquire()]
                """,
            "a suspended awaitable of a class with close()": """
                class Awaits:
                    def __await__(self): return self
                    def __iter__(self): return self
                    def __next__(self): return None
                    def close(self): closed.append(time.monotonic_ns())
                box = [RateLimiter(10, per=1).run(Awaits)]
                box[0].send(None)
                """,
            "a block by a local clock": """
                def clock(): return time.monotonic_ns()
                class Holder: pass
                holder = Holder()
                holder.limiter = RateLimiter(10, per=1, clock=clock)
                holder.entered = holder.limiter.__aenter__()
                try: holder.entered.send(None)
                except StopIteration: pass
                box = [holder]
                """,
            "a limiter with tasks queued on a loop with a local handler": """
                def handler(loop, context): told.append((time.time(), context["message"]))
                loop = asyncio.new_event_loop()
                loop.set_exception_handler(handler)
                limiter = RateLimiter(1, per=3600, on_error=lambda error: time.time())
                async def main():
                    for _ in range(3): await limiter.push(lambda: time.time())
                loop.run_until_complete(main())
                box = [limiter, loop]
                """,
            "a resurrected permit": """
                class Saves:
                    def __del__(self): saved.append(self.permit)
                box = Saves()
                box.permit = RateLimiter(10, per=1, clock=lambda: time.monotonic_ns()).try_acquire()
                box.me = box
                box = [box]
                """,
        }
        for name, scene in scenes.items():
            with self.subTest(name):
                program = (
                    "import asyncio, gc, time\nfrom async_rate_limiter import RateLimiter\n"
                    "closed, told, saved = [], [], []\n"
                    "def scene():\n"
                    + textwrap.indent(textwrap.dedent(scene), "    ")
                    + "    box.append(box)\n"
                    "gc.disable()\nscene()\ngc.collect()\nsaved.clear()\ngc.collect()\nprint('alive')\n"
                )
                self.check(program)

    def test_a_class_that_has_lost_its_finalizer_runs_no_code_in_a_collection(self) -> None:
        self.check("""
            import gc, sys, time
            from async_rate_limiter import Permit, RateLimiter
            del Permit.__del__
            sys.unraisablehook = lambda hook: print(hook.exc_value)
            for _ in range(10):
                names = {"time": time}
                exec("def clock(): return time.monotonic_ns()", names)
                limiter = RateLimiter(10, per=1, clock=names["clock"])
                names["permit"] = limiter.try_acquire()
                del names, limiter
                gc.collect()
            print("alive")
            """)

    def test_native_recursion_ends_in_a_recursion_error(self) -> None:
        program = """
            import asyncio, functools, sys, threading, warnings
            from async_rate_limiter import RateLimiter
            warnings.simplefilter("ignore")
            limiter = RateLimiter(10**6, per=1, concurrency=10**6)
            def plain(n): return limiter.run(functools.partial(plain, n - 1)) if n else 0
            async def awaits(n): return 1 + await limiter.run(awaits, n - 1) if n else 0
            def run():
                for task in (plain, awaits):
                    for depth in (50, 20_000):
                        try: asyncio.run(task(depth) if task is awaits else aio(task(depth)))
                        except RecursionError: print("refused", end=" ")
            async def aio(awaitable): return await awaitable
            threading.stack_size(int(sys.argv[1]) * 1024)
            thread = threading.Thread(target=run); thread.start(); thread.join()
            print("alive")
            """
        for kib in ("512", "8192"):
            ran = run_program(program, kib)
            self.assertEqual(ran.returncode, 0, ran.stderr)
            self.assertTrue(ran.stdout.endswith("alive\n"), ran.stderr)

    def test_a_subinterpreter_is_refused_by_name_and_takes_nobodys_place(self) -> None:
        program = """
            import sys
            try: import _interpreters as interpreters
            except ImportError: import _xxsubinterpreters as interpreters
            newer = sys.version_info >= (3, 13)
            other = interpreters.create("legacy") if newer else (
                interpreters.create(isolated=False) if sys.version_info >= (3, 10)
                else interpreters.create())
            path = f"import sys; sys.path[:] = {sys.path}\\n"
            code = path + '''
            try: import async_rate_limiter
            except ImportError as error: print("not in a subinterpreter" in str(error), flush=True)
            '''.replace("\\n            ", "\\n")
            (interpreters.exec if newer else interpreters.run_string)(other, code)
            interpreters.destroy(other)
            import asyncio, async_rate_limiter
            async def main():
                limiter = async_rate_limiter.RateLimiter(1, per=0.001)
                for _ in range(2): await limiter.push(lambda: None)
                await limiter.drained()
                return await limiter.run(lambda: "alive")
            print(asyncio.run(main()))
            """
        self.check(program, "True\nalive\n")

    @unittest.skipUnless(hasattr(os, "fork"), "needs fork")
    def test_a_forked_child_goes_on_with_a_limiter_of_its_own_and_a_full_window(self) -> None:
        program = """
            import asyncio, os, sys
            from async_rate_limiter import RateLimiter
            limiter = RateLimiter(3, per=0.2)
            ran = []
            async def child():
                before = limiter.stats()
                pushed = [await limiter.push(lambda: ran.append(1)) for _ in range(4)]
                await limiter.drained()
                with limiter: pass
                return (before.running, before.queued, before.held[0].units, sum(pushed), len(ran))
            async def main():
                await limiter.run(lambda: None)
                permit = await limiter.acquire()
                waits = asyncio.ensure_future(limiter.run(lambda: None))
                await limiter.push(lambda: None)
                await asyncio.sleep(0)
                process = os.fork()
                if not process:
                    asyncio._set_running_loop(None)
                    try:
                        answer = asyncio.new_event_loop().run_until_complete(child())
                        print("child", answer, flush=True)
                    finally: os._exit(0)
                assert os.waitpid(process, 0)[1] == 0
                permit.complete()
                await waits
                await limiter.drained()
                print("parent", limiter.stats().completed)
            asyncio.run(main())
            """
        self.check(program, "child (0, 0, 2, 1, 4)\nparent 4\n")


class Ends(unittest.TestCase):
    def test_a_thread_that_waits_does_not_end_the_interpreter_as_it_exits(self) -> None:
        for block in ("with limiter: pass", "limiter.acquire_blocking(timeout=5).complete()"):
            ran = run_program(f"""
import threading, time
from async_rate_limiter import RateLimiter
limiter = RateLimiter(1, per=0.003)
def work():
    while True:
        {block}
class Slow:
    def __del__(self): time.sleep(0.2)
slow = Slow()
for _ in range(3): threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
print("alive", flush=True)
""")
            self.assertEqual((ran.returncode, ran.stdout), (0, "alive\n"), ran.stderr)

    def test_nor_does_a_thread_whose_loop_runs_tasks_that_the_limiter_has_woken(self) -> None:
        for _ in range(3):
            ran = run_program("""
import asyncio, threading, time
from async_rate_limiter import RateLimiter
limiter = RateLimiter(100000, per=1)
woken = threading.Event()
async def worker():
    while True:
        async with limiter:
            time.sleep(0.0005)
            await asyncio.sleep(0)
        woken.set()
async def main():
    await asyncio.gather(*[worker() for _ in range(5)])
class Slow:
    def __del__(self): time.sleep(0.2)
slow = Slow()
threading.Thread(target=asyncio.run, args=(main(),), daemon=True).start()
woken.wait()
print("alive", flush=True)
""")
            self.assertEqual((ran.returncode, ran.stdout), (0, "alive\n"), ran.stderr)


class Exceptions(unittest.TestCase):
    """A signal handler may raise at any moment, in whatever the limiter calls."""

    @in_manual_time
    async def test_one_that_is_raised_in_the_loops_methods_is_raised_and_the_queue_goes_on(
        self,
    ) -> None:
        for method in ("call_soon", "call_later", "create_future"):
            for after in (False, True):
                with self.subTest(method=method, after=after):
                    await self.raise_once(method, after)

    async def raise_once(self, method: str, after: bool) -> None:
        subject = limiter(1, SECOND)
        ran: list[int] = []
        raised: list[BaseException] = []
        await subject.push(lambda: None)
        accepted = 0
        real = getattr(loop(), method)

        def once(*arguments: Any, **keywords: Any) -> Any:
            delattr(loop(), method)
            if after:
                real(*arguments, **keywords)
            raise Interrupt

        for number in range(4):
            if number == 1:
                setattr(loop(), method, once)
            try:
                await subject.push(functools.partial(ran.append, number))
                accepted += 1
            except Interrupt as error:
                raised.append(error)
        await subject.drained()
        said = [context.get("exception") for context in loop().failures]
        raised += [error for error in said if isinstance(error, Interrupt)]
        loop().failures.clear()
        self.assertEqual(len(ran), accepted)
        self.assertEqual(ran, sorted(ran))
        # It was raised once, if the method was called at all.
        self.assertEqual(len(raised), int(method not in loop().__dict__))
        loop().__dict__.pop(method, None)

    @in_manual_time
    async def test_one_that_is_raised_by_the_clock_is_raised_and_the_permit_comes_back(
        self,
    ) -> None:
        fails = False

        def clock() -> int:
            if fails:
                raise Interrupt
            return loop().now_ns

        subject = RateLimiter(2, SECOND, clock=clock)
        permit = await subject.acquire()
        fails = True
        for call in (permit.complete, subject.stats, subject.try_acquire):
            self.assertRaises(Interrupt, call)
        with self.assertRaises(Interrupt):
            await subject.run(lambda: None)
        fails = False
        loop().advance(SECOND)
        # They are stamped later than they ended, and by now.
        self.assertEqual((subject.stats().running, subject.stats().completed), (0, 1))
        self.assertEqual(subject.stats().held[0].units, 1)
        await asyncio.sleep(0.9)
        self.assertEqual(subject.stats().held[0].units, 1)
        self.assertEqual(await subject.run(lambda: 5), 5)

    @in_manual_time
    async def test_one_that_is_raised_by_the_clock_leaves_nobody_waiting(self) -> None:
        fails = False

        def clock() -> int:
            if fails:
                raise Interrupt
            return loop().now_ns

        subject = RateLimiter(2, SECOND, clock=clock)
        permit = await subject.acquire()
        waits = loop().create_task(subject.acquire())
        drained = loop().create_task(subject.drained())
        await settle()
        for end in (permit.complete, lambda: waits.result().complete()):
            fails = True
            self.assertRaises(Interrupt, end)
            fails = False
            # Nobody calls the limiter, and yet it looks again.
            await asyncio.wait([waits, drained], return_when=asyncio.FIRST_COMPLETED)
        await drained

    def test_one_that_ends_the_program_does_not_end_the_queue(self) -> None:
        ran: list[int] = []
        manual = ManualLoop()
        subject = RateLimiter(1, SECOND, clock=manual.clock)

        def interrupted() -> None:
            raise KeyboardInterrupt

        async def interrupted_later() -> None:
            await asyncio.sleep(0.1)
            raise KeyboardInterrupt

        async def main() -> None:
            tasks: list[Callable[[], object]] = [lambda: None, interrupted, interrupted_later]
            for task in [*tasks, lambda: ran.append(1)]:
                await subject.push(task)
            await subject.drained()

        with self.assertRaises(KeyboardInterrupt):
            manual.run_until_complete(main())
        with self.assertRaises(KeyboardInterrupt):
            manual.run_until_complete(asyncio.sleep(2))
        manual.run_until_complete(subject.drained())
        self.assertEqual((ran, subject.stats().completed), ([1], 4))
        manual.close()


class Interrupt(Exception):
    """Raised where nobody expects it."""


class Looks(unittest.TestCase):
    @in_manual_time
    async def test_an_awaitable_looks_like_a_coroutine(self) -> None:
        subject = limiter(1, SECOND)

        async def work() -> None:
            await asyncio.sleep(1)

        awaitable: Any = subject.run(work)
        self.assertEqual(
            (awaitable.cr_running, awaitable.cr_await, awaitable.cr_frame), (False, None, None)
        )
        task = loop().create_task(awaitable)
        await asyncio.sleep(0.5)
        self.assertEqual(awaitable.cr_await.__name__, "work")
        # asyncio prints the task's own stack.
        (frame,) = task.get_stack()
        self.assertIs(frame.f_code, work.__code__)
        await task
        self.assertEqual((awaitable.cr_await, awaitable.cr_suspended), (None, False))
