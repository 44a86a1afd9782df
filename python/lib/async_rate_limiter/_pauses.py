"""Pauses limiters when a server asks for it, and fails requests during pauses longer than
`max_pause`.

The limiter itself is paused for the whole time, so it grants nothing before. This module remembers
what the servers asked for. Requests fail while the rest of a pause is longer than `max_pause`, so
that resuming the limiter also ends the errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from ._native import RateLimiter, RateLimiterError

if TYPE_CHECKING:
    from types import TracebackType

    from ._native import Permit

#: The header that is reported if a refusal states no time.
REFUSAL = "refusal"

#: What is reported of a pause that the program itself began.
OWN = "pause"


class Target(NamedTuple):
    """The limiter of a request, and its host if there is a limiter for each."""

    limiter: RateLimiter
    host: str | None


class PauseTooLong(RateLimiterError):
    """More than `max_pause` is left of a pause: the server of an HTTP client asked for it, or a
    limiter with a `max_pause` was paused.

    Nothing is granted until the pause is over or is ended by `resume()`. Whoever would have to
    wait longer than `max_pause` gets this error at once, whoever waits already too. The answer
    that asked for the pause is returned to its caller.
    """

    def __init__(self, asked: float, left: float, header: str, host: str | None) -> None:
        #: The pause that the server asked for, in seconds from its answer on; `inf` is for ever.
        self.asked = asked
        #: What is left of it, in seconds, when the error is raised.
        self.left = left
        #: The header that asked, in lower case: "ratelimit-reset" for every header with a reset
        #: time, "hint" if a hook asked, "refusal" if a 429 or 503 stated no time, "pause" if the
        #: program paused the limiter itself.
        self.header = header
        #: The host, as in "api.example.com:443", if there is a limiter for each.
        self.host = host
        #: The end of the pause by the wall clock; None if it never ends, or not in our era.
        self.until = None if asked == math.inf else _wall_clock_in(left)
        super().__init__(asked, left, header, host)

    def __str__(self) -> str:
        server = self.host or "the server"
        if self.header == OWN:
            asks = "the limiter was told to make a pause"
        elif self.header == REFUSAL:
            asks = f"{server} refused a request and did not say for how long: a pause"
        else:
            asks = f"{server} asked by `{self.header}` for a pause"
        if self.until is None:
            end = " that never ends"
        else:
            end = f" of {self.asked:.0f} s, until {self.until:%Y-%m-%d %H:%M:%S} UTC"
        return (
            f"{asks}{end}, longer than `max_pause`: nothing is granted before, unless `resume` "
            "ends the pause"
        )


class _Asked(NamedTuple):
    wait: float
    header: str


class _Record:
    """Of one limiter, for all clients that share it."""

    def __init__(self) -> None:
        #: What a server asked for: of several pauses, the one that ends last.
        self.asked: _Asked | None = None
        #: The requests that wait for a permit.
        self.waits: set[_Wait] = set()


_records: WeakKeyDictionary[RateLimiter, _Record] = WeakKeyDictionary()
# A finalizer may send a request while its thread holds the lock.
_lock = threading.RLock()


def _record(limiter: RateLimiter) -> _Record:
    """Called under the lock."""
    record = _records.get(limiter)
    if record is None:
        record = _records[limiter] = _Record()
    return record


class Pauses:
    """A client's part in the pauses of its limiters. Used from any thread."""

    def __init__(self, max_pause: float | timedelta) -> None:
        self.max_pause = to_seconds(max_pause)
        self._paused: WeakSet[RateLimiter] = WeakSet()

    def pause(self, limiter: RateLimiter, wait: float, header: str) -> None:
        """Pause the limiter for so many seconds, and tell requests that would wait too long."""
        with _lock:
            record = _record(limiter)
            if wait >= limiter.paused_for():
                record.asked = _Asked(wait, header)
            limiter.pause_for(wait)
            self._paused.add(limiter)
            told = [waiting for waiting in record.waits if wait > waiting.max_pause]
        for waiting in told:
            waiting.end()

    async def acquire(self, target: Target, weight: int) -> Permit:
        """Wait for a permit. A pause that begins after the grant, but before this task runs, holds
        the request back.

        Raises PauseTooLong, also if such a pause begins while this waits.
        """
        limiter = target.limiter
        while True:
            permit = None
            with _Wait(self.max_pause) as wait:
                # Before the check, so that no pause is missed.
                self._begin(limiter, wait)
                try:
                    self._check(target)
                    permit = await limiter.acquire(weight=weight)
                except PauseTooLong as error:
                    raise self._explained(error, target) from None
                finally:
                    self._end(limiter, wait)
            if permit is None:
                continue  # A pause that is too long has ended the wait.
            if limiter.paused_for() <= 0:
                return permit
            permit.release_unused()

    def acquire_blocking(self, target: Target, weight: int) -> Permit:
        """The same in this thread. A thread that waits already is told of a pause that is too long
        by the limiter alone, by its own `max_pause`.
        """
        limiter = target.limiter
        while True:
            self._check(target)
            try:
                permit = limiter.acquire_blocking(weight=weight)
            except PauseTooLong as error:
                raise self._explained(error, target) from None
            if limiter.paused_for() <= 0:
                return permit
            permit.release_unused()

    def resume(self, limiter: RateLimiter | None) -> None:
        """End the pause of this limiter, or those of all limiters that this client has paused."""
        with _lock:
            limiters = list(self._paused) if limiter is None else [limiter]
            for each in limiters:
                self._paused.discard(each)
                _record(each).asked = None
        for each in limiters:
            each.resume()

    def _begin(self, limiter: RateLimiter, wait: _Wait) -> None:
        with _lock:
            _record(limiter).waits.add(wait)

    def _end(self, limiter: RateLimiter, wait: _Wait) -> None:
        with _lock:
            _record(limiter).waits.discard(wait)

    def _explained(self, error: PauseTooLong, target: Target) -> PauseTooLong:
        """The limiter's own error, with what the server has asked for if it has."""
        with _lock:
            record = _records.get(target.limiter)
            asked = None if record is None else record.asked
        if asked is None:
            return error
        return PauseTooLong(asked.wait, error.left, asked.header, target.host)

    def _check(self, target: Target) -> None:
        with _lock:
            record = _records.get(target.limiter)
            asked = None if record is None else record.asked
            if record is None or asked is None or asked.wait <= self.max_pause:
                return
            left = target.limiter.paused_for()
            if left <= 0:
                record.asked = None
        if left > self.max_pause:
            raise PauseTooLong(asked.wait, left, asked.header, target.host)


class _Wait:
    """A block of a task that others can end, as the end of time does with `asyncio.timeout` (which
    3.9 lacks).

    Ended, the block raises nothing, and `was_ended` is true.
    """

    was_ended = False

    def __init__(self, max_pause: float) -> None:
        self.max_pause = max_pause

    def __enter__(self) -> _Wait:
        task = asyncio.current_task()
        assert task is not None, "requests are sent by tasks"
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[object] | None = task
        # From 3.11, a task counts how many have cancelled it.
        self._others = task.cancelling() if hasattr(task, "cancelling") else 0
        return self

    def end(self) -> None:
        """End the block, from any thread."""
        # A loop that is closed has no tasks.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self._task is not None and not self.was_ended:
            self.was_ended = True
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        task, self._task = self._task, None
        if not self.was_ended or task is None:
            return False
        if hasattr(task, "uncancel") and task.uncancel() > self._others:
            return False  # Somebody else has cancelled the task as well.
        return kind is not None and issubclass(kind, asyncio.CancelledError)


def to_seconds(time: float | timedelta) -> float:
    """Seconds, of a number of them or a timedelta."""
    return time.total_seconds() if isinstance(time, timedelta) else float(time)


def _wall_clock_in(seconds: float) -> datetime | None:
    try:
        return datetime.now(timezone.utc) + timedelta(seconds=seconds)
    except OverflowError:
        return None
