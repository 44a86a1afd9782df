"""Runs programs of the fuzzer, one after another, and says which; `fuzz.py` starts it."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import random
import sys
import threading
import traceback
import warnings
from typing import Any

from . import fuzz_stand_in as stand_in

if "--stand-in" in sys.argv:
    sys.modules["async_rate_limiter"] = stand_in

from . import fuzz_outside
from .fuzz_chaos import chaos
from .fuzz_clean import PROGRAMS, clean
from .fuzz_pool import INGREDIENTS, World

__all__ = ["INGREDIENTS", "PROGRAMS", "fuzz_outside"]


def perform(world: World) -> None:
    """One program."""
    seed, without, only = world.seed, world.without, world.only
    world.say(f"BEGIN {seed}")
    watch(world)
    # A program that was interrupted may have left it.
    asyncio._set_running_loop(None)
    # What kind of program it is does not depend on what is left out, nor does the rest of it.
    kinds = random.Random(f"kind {seed}")
    names = [name for name in PROGRAMS if name not in without and (not only or name in only)]
    chaotic = not only or bool(only & set(INGREDIENTS))
    if names and (kinds.random() < 0.4 or not chaotic):
        clean(world, kinds.choice(names))
    else:
        chaos(world)


def watch(world: World) -> None:
    """What nobody catches is looked at as well."""

    def unraisable(hook: Any) -> None:
        world.judge(hook.exc_value, "what cannot be raised")

    def in_thread(hook: Any) -> None:
        if hook.exc_type is not SystemExit:
            world.judge(hook.exc_value, "a thread")

    sys.unraisablehook = unraisable
    threading.excepthook = in_thread


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("first", type=int)
    parser.add_argument("runs", type=int)
    parser.add_argument("--without", action="append", default=[])
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--loud", action="store_true")
    parser.add_argument("--stand-in", action="store_true")
    parser.add_argument("--hang", type=float, default=60)
    options = parser.parse_args()
    faulthandler.enable()
    # What is there already is none of the collector's business, which makes it quick.
    gc.freeze()
    warnings.simplefilter("ignore")
    without, only = frozenset(options.without), frozenset(options.only)
    for seed in range(options.first, options.first + options.runs):
        faulthandler.dump_traceback_later(options.hang, exit=True)
        world = World(seed, without, options.loud)
        world.only = only
        world.patience = options.hang / 2
        try:
            perform(world)
        except BaseException as error:
            world.found(f"the fuzzer itself failed: {type(error).__name__} {error}")
            traceback.print_exc()
            break
        gc.collect()
        faulthandler.cancel_dump_traceback_later()
        if world.spoilt:
            break
    # CPython remembers that an `exec` of a text was interrupted, even if somebody caught that, and
    # would end itself by a signal. The next one makes it forget.
    exec("")


if __name__ == "__main__":
    main()
