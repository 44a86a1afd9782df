"""Odd values for the fuzzer's programs: of every type, out of range, and such as call back in."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Iterator

if TYPE_CHECKING:
    from .fuzz_pool import World


class Raised(Exception):
    """What the fuzzer's own callables raise."""


class Odd:
    """An awaitable, an int, an iterable, a callable: all of them call back in, and some raise."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kind = world.rng.randrange(6)
        self.left = 2

    def _do(self) -> None:
        if self.kind == 0:
            self.world.step()
        elif self.kind == 1 and self.world.chance(2):
            raise Raised("odd")

    def __await__(self) -> Any:
        self._do()
        return 5 if self.kind == 2 else self

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self._do()
        self.left -= 1
        if self.left < 0:
            raise StopIteration(self.left)
        return None if self.kind != 3 else "3/1ms"

    def send(self, _value: Any) -> Any:
        return next(self)

    def throw(self, *_: Any) -> Any:
        self._do()
        if self.kind == 4:
            return None
        raise Raised("thrown")

    def close(self) -> None:
        self._do()
        if self.kind == 5:
            raise Raised("close")

    def __index__(self) -> int:
        self._do()
        return 1

    def __float__(self) -> float:
        self._do()
        return 0.001

    def __bool__(self) -> bool:
        self._do()
        return self.kind % 2 == 0

    def __eq__(self, other: object) -> bool:
        self._do()
        return self is other

    def __hash__(self) -> int:
        self._do()
        return 5

    def __call__(self, *_: Any) -> Any:
        self._do()
        return self


class Whole(int):
    """A subclass of int."""


EXCEPTIONS: list[Any] = [ValueError, ValueError("v"), KeyError("k"), KeyboardInterrupt("fuzz")]
EXCEPTIONS += [GeneratorExit(), StopIteration(1), asyncio.CancelledError(), SystemExit(3), Raised]
EXCEPTIONS += [StopAsyncIteration(), RecursionError("fuzz"), MemoryError("fuzz")]
PLAIN: list[Any] = [None, None, True, 0, 1, 5, -1, 2**31, 2**63 - 1, 2**64, 10**30, Whole(2)]
PLAIN += [0.0, 0.0005, 0.001, -1.5, float("inf"), float("nan"), 1e300, "", "1/1ms", "3w/2ms"]
PLAIN += ["\ud800", "0/0", b"x", (), [], {}, [1], ["2/1ms"], object, int, len, slice(1)]
PLAIN += [timedelta(0), timedelta(milliseconds=1), timedelta(-1), timedelta.max, sys.maxsize]
PLAIN += [datetime.now(timezone.utc), datetime(2020, 1, 1), datetime.max, NotImplemented]
