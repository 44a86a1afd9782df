"""A limiter for each key: a user, a host, an account.

A key's limiter is made at the key's first use. It is removed when a new one would decide the same:
its window is empty, nothing runs or waits, it is not paused, and nothing else refers to it (permits
and waiters do). Each new key checks two old ones, in rotation, and removes those that are idle. So
at most about half of the known keys are idle.

One lock guards the keys. A limiter is checked and removed under it, and handed out under it, so no
use of a limiter can fall between its check and its removal.
"""

from __future__ import annotations

import functools
import math
import sys
import threading
import time
from collections import deque
from datetime import datetime, timedelta
from typing import (
    Any,
    Awaitable,
    Callable,
    Coroutine,
    Generic,
    Iterable,
    Iterator,
    Mapping,
    TypeVar,
    Union,
)

from ._native import Permit, RateLimiter, Stats

_K = TypeVar("_K")
_T = TypeVar("_T")

#: A key's own settings: some keywords of RateLimiter, or its limits alone, as in ["100/1s"].
Settings = Union[Mapping[str, Any], Iterable[str]]

#: How many old keys each new key checks. With two, all keys are checked before their number has
#: doubled.
_CHECKS = 2

#: The keywords that give limits: a key that has one of them has none of the common limits.
_LIMITS = ("rate", "per_ns", "per", "limits")


def _references(cell: list[Any]) -> int:
    return sys.getrefcount(cell[0])


#: What `_references` counts for an object that nothing refers to but its cell.
_ALONE = _references([object()])


class KeyedRateLimiter(Generic[_K]):
    """A RateLimiter for each key, all with the same settings unless a key has its own.

    The settings are the keywords of RateLimiter. `overrides` gives some keys their own: a mapping
    of keywords, which replace the common ones, or a list of limits, as in `{"alice": ["100/1s"],
    "bob": {"concurrency": 4}}`. A key that has a limit of its own has none of the common limits.
    Invalid settings raise a ValueError or a TypeError here, even if their key is never used.

        per_user = KeyedRateLimiter(10, timedelta(seconds=1), overrides={"alice": ["100/1s"]})
        async with per_user["bob"]: ...

    It may be used from any thread. Memory follows the number of busy keys: an idle key is
    forgotten, see `forget_idle()`. A key is kept while anything refers to its limiter.
    """

    def __init__(
        self,
        rate: int | None = None,
        per_ns: int | timedelta | None = None,
        *,
        overrides: Mapping[_K, Settings] | None = None,
        **settings: Any,
    ) -> None:
        given = {"rate": rate, "per_ns": per_ns, **settings}
        self._common = {name: value for name, value in given.items() if value is not None}
        self._own: dict[_K, dict[str, Any]] = {}
        for key, own in (overrides or {}).items():
            self._own[key] = self._merged(own)
        for settings in [self._common, *self._own.values()]:
            RateLimiter(**settings)
        self._limiters: dict[_K, RateLimiter] = {}
        self._round: deque[_K] = deque()
        # A finalizer or a signal handler may use a key while this thread holds the lock.
        self._lock = threading.RLock()
        self._closed = False
        self._has_forgotten = False
        self._clock: Callable[[], int] = self._common.get("clock", time.monotonic_ns)
        self._paused_until_ns = -math.inf

    def _merged(self, own: Settings) -> dict[str, Any]:
        if isinstance(own, str):
            raise TypeError('overrides have to be lists of limits, as in ["100/1s"], or keywords')
        if not isinstance(own, Mapping):
            own = {"limits": list(own)}
        common = self._common
        if any(name in own for name in _LIMITS):
            common = {name: value for name, value in common.items() if name not in _LIMITS}
        return {**common, **own}

    # --- A key

    def get(self, key: _K) -> RateLimiter:
        """The limiter of a key, for pauses, stats, `async with` and so on.

        The key is kept while the limiter is referred to.
        """
        with self._lock:
            limiter = self._limiters.get(key)
            return self._make(key) if limiter is None else limiter

    __getitem__ = get

    def run(
        self,
        key: _K,
        function: Callable[..., Awaitable[_T] | _T],
        *args: Any,
        weight: int = 1,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, _T]:
        """Wait for a permit of this key, call the function and return its answer:
        `RateLimiter.run`.
        """
        call: Any = functools.partial(function, *args, **kwargs) if args or kwargs else function
        return self.get(key).run(call, weight=weight, timeout=timeout)

    def acquire(
        self, key: _K, *, weight: int = 1, timeout: float | None = None
    ) -> Coroutine[Any, Any, Permit]:
        """Wait for a permit of this key: `RateLimiter.acquire`."""
        return self.get(key).acquire(weight=weight, timeout=timeout)

    def acquire_blocking(self, key: _K, *, weight: int = 1, timeout: float | None = None) -> Permit:
        """Wait in this thread for a permit of this key: `RateLimiter.acquire_blocking`."""
        return self.get(key).acquire_blocking(weight=weight, timeout=timeout)

    def try_acquire(self, key: _K, *, weight: int = 1) -> Permit | None:
        """A permit of this key if there is one now, else None: `RateLimiter.try_acquire`."""
        return self.get(key).try_acquire(weight=weight)

    def push(
        self, key: _K, task: Callable[[], object], estimated_weight: int = 1
    ) -> Coroutine[Any, Any, bool]:
        """Run the task now, or queue it: `RateLimiter.push`."""
        return self.get(key).push(task, estimated_weight)

    # --- All keys

    @property
    def limits(self) -> list[str]:
        """The limits of all keys: the common ones, then those of keys with their own settings."""
        settings = [self._common, *self._own.values()]
        return list(dict.fromkeys(limit for own in settings for limit in RateLimiter(**own).limits))

    def stats(self) -> dict[_K, Stats]:
        """The numbers of each known key. An idle key may be missing."""
        return {key: limiter.stats() for key, limiter in self._known()}

    def __iter__(self) -> Iterator[_K]:
        """The known keys."""
        return iter([key for key, _ in self._known()])

    def __len__(self) -> int:
        """The number of known keys."""
        return len(self._limiters)

    def __contains__(self, key: object) -> bool:
        """Whether the key is known. A key that is not known is like one that is idle."""
        with self._lock:
            return key in self._limiters

    def pause_for(self, pause: float | timedelta) -> None:
        """Grant nothing for any key for so long from now: seconds, or a timedelta. New keys as
        well.
        """
        seconds = pause.total_seconds() if isinstance(pause, timedelta) else pause
        with self._lock:
            until = self._clock() + seconds * 1e9
            self._paused_until_ns = max(self._paused_until_ns, until)
        for _, limiter in self._known():
            limiter.pause_for(seconds)

    def pause_until(self, when: float | datetime) -> None:
        """Grant nothing for any key before a time: `RateLimiter.pause_until`. New keys as well."""
        if isinstance(when, datetime):
            if when.tzinfo is None:
                raise ValueError("pause_until needs a datetime with a time zone")
            self.pause_for(when - datetime.now(when.tzinfo))
        else:
            self.pause_for(when - self._clock() / 1e9)

    def resume(self) -> None:
        """End the pauses of all keys, for whatever reason they were paused. The limits hold as
        before.
        """
        with self._lock:
            self._paused_until_ns = -math.inf
        for _, limiter in self._known():
            limiter.resume()

    @property
    def closed(self) -> bool:
        """Whether new work is refused for all keys."""
        return self._closed

    def close(self) -> None:
        """Take no new work for any key, new keys included. What was accepted still runs."""
        with self._lock:
            self._closed = True
        for _, limiter in self._known():
            limiter.close()

    def abort(self) -> list[Callable[[], object]]:
        """Close, and drop what is queued for any key. Returns the queued tasks:
        `RateLimiter.abort`.
        """
        self.close()
        return [task for _, limiter in self._known() for task in limiter.abort()]

    async def drained(self) -> None:
        """Wait until nothing runs and nobody waits, for the keys that are known at the call."""
        for _, limiter in self._known():
            await limiter.drained()

    async def aclose(self) -> None:
        """Close, and wait until all that was accepted has run: for `contextlib.aclosing(keyed)`."""
        self.close()
        await self.drained()

    def forget_idle(self) -> None:
        """Remove all idle keys. Checks every key.

        Useful after a burst of keys that no new keys follow; otherwise new keys do it.
        """
        with self._lock:
            for _ in range(len(self._round)):
                self._check_next()

    def __repr__(self) -> str:
        closed = ", closed" if self._closed else ""
        return f"<KeyedRateLimiter {' + '.join(self.limits)}: {len(self)} keys{closed}>"

    # --- Under the lock

    def _known(self) -> list[tuple[_K, RateLimiter]]:
        with self._lock:
            return list(self._limiters.items())

    def _make(self, key: _K) -> RateLimiter:
        for _ in range(min(_CHECKS, len(self._round))):
            self._check_next()
        settings = self._own.get(key, self._common)
        if self._has_forgotten:
            # The key may have had a limiter. An empty history says that nothing is known of the
            # time before: a longer period, set later, must not take it for idle.
            settings = {"history": (), **settings}
        limiter = RateLimiter(**settings)
        if self._closed:
            # All later limiters of the key will be closed as well, so there is nothing to keep.
            limiter.close()
            return limiter
        left_ns = self._paused_until_ns - self._clock()
        if left_ns > 0:
            limiter.pause_for(left_ns / 1e9)
        # A key may raise when it is hashed: then it is only in the rotation, which a check repairs.
        self._round.append(key)
        return self._limiters.setdefault(key, limiter)

    def _check_next(self) -> None:
        key = self._round.popleft()
        limiter = self._limiters.get(key)
        if limiter is None:
            return
        cell = [limiter]
        del limiter
        # The map and the cell. Nobody else can get at it while this thread holds the lock.
        if _references(cell) > _ALONE + 1 or not cell[0].is_like_new():
            self._round.append(key)
            return
        del self._limiters[key]
        self._has_forgotten = True
