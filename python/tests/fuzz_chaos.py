"""Programs in which anything goes: nothing may crash, hang, or raise a SystemError.

Each ingredient is a step of a program, by its name: `--without NAME` leaves it out. A program picks
a few ingredients and repeats them in a random order, also from within tasks, clocks and finalizers.
`fuzz_harm.py` and `fuzz_depth.py` have the others.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import copy
import functools
import gc
import inspect
import operator
import pickle
import sys
import threading
import time
import types
from typing import Any, Callable

import async_rate_limiter as package

# The other ingredients are among those here as soon as they are imported.
from . import fuzz_depth, fuzz_harm
from .fuzz_pool import (
    ABORT,
    AWAITABLE,
    INGREDIENTS,
    LIMITERS,
    THREAD_SECONDS,
    TYPES,
    World,
    ingredient,
)
from .fuzz_values import Odd, Raised

__all__ = ["chaos", "fuzz_depth", "fuzz_harm"]


def chaos(world: World) -> None:
    """One program."""
    rng = world.rng
    names = [name for name in INGREDIENTS if name not in world.without]
    names = [name for name in names if not world.only or name in world.only]
    chosen = rng.sample(names, min(len(names), rng.randrange(2, 7)))
    usual = [INGREDIENTS[name] for name in ("make", "use", "use", "drive", "tasks")]
    world.steps = usual + [INGREDIENTS[name] for name in chosen]
    if world.loud:
        world.say(f"STEP {world.seed} of {chosen}")
    rounds = rng.randrange(2, 6)
    try:
        world.safely(lambda: make(world))
        for _ in range(rounds):
            world.inside(rng.randrange(3, 12))
            if rng.random() < 0.5:
                world.safely()
        finish(world)
    finally:
        world.things.clear()


def finish(world: World) -> None:
    """Ends all that a program began."""
    # No hook or signal interrupts from here on.
    world.budget = 0
    for undo in reversed(world.undo):
        world.safely(undo, "undo")
    limiters: list[Any] = [thing for thing in world.things if isinstance(thing, LIMITERS)]
    for limiter in [*(one for one in limiters if world.chance(2)), *world.awaited]:
        world.safely(functools.partial(ABORT, limiter), "abort")
        del limiter
    world.awaited.clear()
    for thread in world.threads:
        if thread is not threading.current_thread():
            thread.join(THREAD_SECONDS)
            if thread.is_alive():
                world.found("thread: one never ended")
    # Some loops are cancelled politely, others are closed with all that they had to do.
    for loop in world.loops:
        if loop.is_closed():
            continue
        if world.chance(2):
            for task in asyncio.all_tasks(loop):
                world.safely(task.cancel, "cancel")
            world.local.loop = loop
            world.turn()
        world.safely(loop.close, "loop.close")
    world.loops.clear()
    world.local.__dict__.clear()
    world.things.clear()
    del limiters
    gc.collect()


# The usual.


@ingredient
def make(world: World) -> None:
    """A limiter, or one of a kind of limiter that may not be there yet."""
    positional, names = world.arguments()
    kind = world.rng.choice([thing for thing in TYPES if thing.__name__.endswith("Limiter")])
    world.keep(kind(*positional, **names))


@ingredient
def use(world: World) -> None:
    """A public method, with what it is made for."""
    limiter = world.pick(LIMITERS)
    if limiter is None:
        make(world)
        return
    pause = world.rng.choice([0, 0.0005, 0.001])
    many = world.number()
    uses: list[tuple[str, tuple[Any, ...]]] = [
        *[("push", (world.task(),)), ("push", (world.task(), many)), ("run", (world.task(),))] * 3,
        *[("acquire", ()), ("try_acquire", ()), ("try_acquire", (many,)), ("weight", (many,))] * 2,
        *[("acquire", (many,)), ("__aenter__", ()), ("__aexit__", (None, None, None))] * 2,
        ("drained", ()),
        ("aclose", ()),
        ("abort", ()),
        ("close", ()),
        ("stats", ()),
        ("__repr__", ()),
        ("pause_for", (pause,)),
        ("pause_until", (time.monotonic() + pause,)),
        ("resume", ()),
        ("set_concurrency", (many,)),
        ("set_limits", (world.rng.choice([["2/1ms"], ["5/1ms", "3w/2ms"], Odd(world)]),)),
        ("__call__", (world.task(),)),
        ("acquire_blocking", (many,)),
    ]
    name, arguments = world.rng.choice(uses)
    # Where waits have a timeout; elsewhere it is nonsense.
    names = {"timeout": world.rng.choice([0, 0.001, 5])} if world.chance(10) else {}
    if name == "acquire_blocking":
        names = {"timeout": 0.001}
    if name.endswith("acquire") or name == "acquire_blocking":
        names.update(weight=arguments[0] if arguments else 1)
        arguments = ()
    world.tell(limiter, name, arguments, names)
    if hasattr(limiter, name):
        world.keep(getattr(limiter, name)(*arguments, **names))


@ingredient
def keyed(world: World) -> None:
    """A limiter for each key, where that exists: whatever takes a key is given one."""
    kind: Any = getattr(package, "KeyedRateLimiter", None)
    limiter = None if kind is None else world.pick(kind)
    if limiter is None:
        return
    names = [name for name in dir(limiter) if not name.startswith("_") and "block" not in name]
    name = world.rng.choice([*names, "__getitem__", "__call__", "__len__", "__contains__"])
    key = world.rng.choice([1, 2, "key", Odd(world), (), []])
    more = world.rng.choice([(), (world.task(),), (world.number(),)])
    world.tell(limiter, name, key, more)
    method = getattr(limiter, name)
    world.keep(method(key, *more) if callable(method) else method)


@ingredient
def drive(world: World) -> None:
    """An awaitable, by hand."""
    call = world.pick(AWAITABLE)
    if call is None:
        use(world)
        return
    rng = world.rng
    thrown = [(world.exception(),), (ValueError, "v"), (ValueError, ValueError(), None), (), (1,)]
    thrown += [(asyncio.CancelledError(),), (GeneratorExit,), (Odd,), (Raised, None, 5)]
    ways: list[Callable[[], Any]] = [
        *[lambda: call.send(None)] * 4,
        lambda: call.send(world.value()),
        lambda: call.throw(*rng.choice(thrown)),
        lambda: call.close(),
        lambda: world.keep(call.__await__()).__next__(),
        lambda: next(iter(call.__await__())),
        lambda: world.keep(asyncio.ensure_future(call)),
    ]
    way = rng.randrange(len(ways))
    world.tell(call, way)
    ways[way]()


@ingredient
def tasks(world: World) -> None:
    """Tasks of the loop that await, some of them cancelled or with a timeout."""
    call = world.pick(AWAITABLE)
    task = world.pick(asyncio.Task)
    if task is not None and world.chance(3):
        task.cancel()
    if call is None:
        return
    loop = world.loop()

    async def waits() -> Any:
        return await asyncio.wait_for(call, world.rng.choice([0, 0.0005, 0.01]))

    async def twice() -> Any:
        return await asyncio.gather(call, call, return_exceptions=True)

    async def block() -> Any:
        limiter = world.pick(LIMITERS)
        async with limiter if world.chance(2) else limiter.weight(world.number()) as permit:
            world.keep(permit)
            world.step()

    async def plainly() -> Any:
        return await call

    world.keep(loop.create_task(world.rng.choice([waits, twice, block, plainly])()))


@ingredient
def permits(world: World) -> None:
    """What a permit can do."""
    permit = world.pick(package.Permit)
    if permit is None:
        limiter = world.pick(LIMITERS)
        permit = world.keep(limiter.try_acquire() if limiter is not None else None)
    if permit is None:
        return
    way = world.rng.randrange(6)
    if way == 0:
        permit.complete(*world.rng.choice([(), (0,), (1,), (100,), (world.value(),)]))
    elif way == 1:
        permit.actual = world.value()
    elif way == 2 and permit.held:
        # One that is not held would wait for it, and that may be for ever.
        with permit:
            world.step()
    elif way == 3:
        world.things.remove(permit)
    elif way == 4:
        world.keep(permit.__aenter__())
    else:
        permit.__exit__(world.rng.choice([None, asyncio.CancelledError, ValueError, 5]), None, None)


@ingredient
def call(world: World) -> None:
    """Any attribute of any object, dunders too, with any arguments."""
    natives = [thing for thing in world.things if is_native(thing)]
    if not natives:
        return
    thing = world.rng.choice(natives)
    name = world.rng.choice(dir(thing))
    if name in ("__new__", "__class__") and not world.bare:
        return
    if name in ("__setattr__", "__delattr__") and isinstance(thing, type):
        world.spoilt = True
    value = getattr(thing, name)
    if not callable(value):
        world.keep(value)
        return
    waits = isinstance(thing, (*LIMITERS, package.Permit))
    if waits and (name == "__enter__" or "block" in name):
        # It waits, and has its own ingredient.
        return
    many = world.rng.randrange(4)
    names: dict[str, Any] = {}
    with contextlib.suppress(ValueError, TypeError):
        for key in inspect.signature(value).parameters:
            if world.chance(4):
                names[key] = world.value()
    arguments = [world.value() for _ in range(many)]
    world.tell(thing, name, arguments, names)
    world.keep(value(*arguments, **names))


def is_native(thing: Any) -> bool:
    """Whether it is of the package, or a method of such a thing: CPython's have faults too."""
    kind = type(thing)
    if isinstance(thing, (types.BuiltinMethodType, types.MethodWrapperType, types.MethodType)):
        return is_native(thing.__self__)
    own = kind.__module__.startswith("async_rate_limiter") or isinstance(thing, (*TYPES, AWAITABLE))
    # Those that have no public name say that they are of builtins.
    return own or (
        kind.__module__ == "builtins"
        and not hasattr(builtins, kind.__name__)
        and bool(kind.__flags__ & 1 << 9)
    )


@ingredient
def hidden(world: World) -> None:
    """What the package leaves with the loop, and what its objects hold: taken out, and called."""
    found: list[Any] = []
    for loop in list(world.loops):
        for handle in [*getattr(loop, "_ready", ()), *getattr(loop, "_scheduled", ())]:
            found.append(getattr(handle, "_callback", None))
    found += gc.get_referents(*[thing for thing in world.things if is_native(thing)])
    found = [thing for thing in found if is_native(thing) and not isinstance(thing, type)]
    if found:
        thing = world.keep(world.rng.choice(found))
        world.tell(thing)
        if callable(thing) and world.chance(2):
            thing()


@ingredient
def operators(world: World) -> None:
    """Operators between any two objects."""
    one, other = world.pick(), world.value()
    names = ["lt", "eq", "ne", "add", "mul", "or_", "getitem", "contains", "truth", "index", "neg"]
    operation = getattr(operator, world.rng.choice(names))
    for arguments in ((one, other), (other, one), (one,)):
        with contextlib.suppress(TypeError):
            operation(*arguments)
    builtins: list[Any] = [hash, repr, str, bool, len, iter, list, format, sys.getsizeof]
    world.rng.choice(builtins)(one)


# Objects that nobody made properly, or that are changed.


@ingredient
def bare(world: World) -> None:
    """Instances that were never initialised."""
    kind: Any = world.rng.choice([*TYPES, AWAITABLE, type(world.pick())])
    ways: list[Callable[[], Any]] = [
        lambda: kind(),
        lambda: kind.__new__(kind),
        lambda: object.__new__(kind),
        lambda: kind.__new__(world.rng.choice([*TYPES, AWAITABLE, object])),
        lambda: kind(*[world.value() for _ in range(world.rng.randrange(3))]),
    ]
    thing = world.rng.choice(ways)()
    if isinstance(thing, (*TYPES, AWAITABLE)):
        world.keep(thing)


@ingredient
def copies(world: World) -> None:
    thing = world.pick()
    ways: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, pickle.dumps]
    ways.append(lambda one: one.__reduce_ex__(world.rng.choice([0, 1, 2, 4, None])))
    if isinstance(thing, (*TYPES, AWAITABLE)):
        world.keep(world.rng.choice(ways)(thing))


@ingredient
def attributes(world: World) -> None:
    """Attributes of objects set, deleted and replaced, their class among them."""
    thing = world.pick((*TYPES, AWAITABLE))
    name = world.rng.choice([*dir(thing), "new", "__class__", "__dict__"])
    way = world.rng.randrange(3)
    if way == 0:
        setattr(thing, name, world.value())
    elif way == 1:
        delattr(thing, name)
    else:
        thing.__class__ = world.rng.choice([*TYPES, AWAITABLE, Odd, subclass(world)])


@ingredient
def patched(world: World) -> None:
    """The types themselves, changed. The process is of no use after that."""
    kind = world.rng.choice([*TYPES, AWAITABLE])
    names = [name for name in vars(kind) if name != "__doc__"] + ["__del__", "__len__", "__eq__"]
    name = world.rng.choice(names)
    world.spoilt = True
    world.tell(kind, name)
    if world.chance(3):
        delattr(kind, name)
    else:
        setattr(kind, name, world.task())


def subclass(world: World) -> Any:
    """A subclass whose methods, constructors and end are odd."""
    base: Any = world.rng.choice(list(TYPES))
    body: dict[str, Any] = {}
    world_step = world.step

    def stepping(self: Any, *arguments: Any, **names: Any) -> Any:
        world_step()

    def resurrects(self: Any) -> None:
        world.keep(self)
        world_step()

    def usual(self: Any, *arguments: Any, **names: Any) -> None:
        base.__init__(self, *arguments, **names)
        world_step()

    def other_new(cls: Any, *arguments: Any, **names: Any) -> Any:
        made = base.__new__(cls, *(arguments or (1, 1000)), **names)
        world_step()
        return made if world.chance(2) else world.pick()

    choices: dict[str, list[Any]] = {
        "__init__": [usual, stepping],
        "__new__": [other_new],
        "__del__": [resurrects, stepping],
        "push": [stepping],
        "abort": [stepping],
        "__repr__": [stepping],
        "__slots__": [(), ("one",), ("__weakref__",)],
        "__getattribute__": [lambda self, name: world_step() or base.__getattribute__(self, name)],
        "__eq__": [stepping],
        "__hash__": [stepping],
    }
    for name in world.rng.sample(sorted(choices), world.rng.randrange(5)):
        body[name] = world.rng.choice(choices[name])
    return type("Sub", (base,), body)


@ingredient
def subclasses(world: World) -> None:
    kind = subclass(world)
    positional, names = world.arguments()
    world.keep(kind(*positional, **names))
