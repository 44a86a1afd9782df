"""What every HTTP client of this package does with a request and its answer.

Requests queue first in, first out, and each is sent under a permit. The permit completes when the
head of the response has arrived or, with `complete_on="body"`, when its body has ended. A failed
request completes its permit. A request that times out, or is cancelled, counts from then on and for
the limiter's `abandon_grace` longer.

An answer pauses and corrects the limiter while its request still holds the permit, so no request is
sent before. The rules are those of the Rust middleware: `read_answer` has them. Nothing is ever
sent twice: retries belong outside, so that each try is a task under the limit. The clients follow
redirects themselves, also those with a `Retry-After`: that is about the one resource and pauses
nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import (
    TYPE_CHECKING,
    Callable,
    Collection,
    Generic,
    Iterable,
    Mapping,
    NamedTuple,
    TypeVar,
    Union,
    cast,
)

from ._keyed import KeyedRateLimiter
from ._native import Permit, RateLimiter, read_answer, used_before
from ._pauses import Pauses, PauseTooLong, Target, to_seconds

if TYPE_CHECKING:
    from typing_extensions import Literal

    #: The meaning of numbers without a name.
    _Count = Literal["used", "remaining"]
    # Of the forms of a correction, the longest: to the type checkers, a default is none.
    _Given = tuple[str, str, _Count]

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

#: One limiter for all requests, one for each host (by name and port: "api.example.com:443"), or a
#: function that chooses the limiter of a request.
Limiters = Union[RateLimiter, "KeyedRateLimiter[str]", Callable[[_Request], RateLimiter]]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Correction(NamedTuple):
    """A header that reports the server's count of a limit, as in
    `Correction("x-ratelimit-remaining", "60/1m")`.

    `counts` is the meaning of numbers without a name, "remaining" or "used". Remaining units are
    subtracted from this limit's rate. If the header reports several windows, the one with the
    length of the limit's period counts. A correction can only tighten the limit.
    """

    header: str
    limit: str
    counts: _Count = "remaining"


@dataclass(frozen=True)
class Hint:
    """The effect of a response on the limiter, beyond the well-known headers. Returned by a
    hook.
    """

    #: Seconds, or a timedelta, for which the limiter is paused.
    pause: float | timedelta | None = None
    #: The units of each limit, by its text as in "60/1m", that the server has counted, this request
    #: included.
    used: Mapping[str, int] = field(default_factory=dict)


class Rules(Generic[_Request, _Response]):
    """The limiters of a client's requests, and what answers do to them."""

    def __init__(
        self,
        limiter: Limiters[_Request],
        *,
        weight: int | Callable[[_Request], int],
        complete_on: str,
        max_pause: float | timedelta,
        statuses: Collection[int] | None,
        used_up: bool,
        corrected_by: Iterable[Correction | tuple[str, str] | tuple[str, str, _Count]],
        hook: Callable[[_Response], Hint | None] | None,
    ) -> None:
        if not isinstance(limiter, (RateLimiter, KeyedRateLimiter)) and not callable(limiter):
            raise TypeError(f"limiter has to be a limiter, or a function of it, not {limiter!r}")
        if complete_on not in ("response", "body"):
            raise ValueError(f'complete_on is "response" or "body", not {complete_on!r}')
        self.limiter = limiter
        self.weight = weight
        self.completes_on_body = complete_on == "body"
        self.statuses = None if statuses is None else list(statuses)
        self.used_up = used_up
        self.hook = hook
        self.pauses = Pauses(max_pause)
        self.corrections = [
            self._checked(Correction(*cast("_Given", given))) for given in corrected_by
        ]

    def _checked(self, correction: Correction) -> Correction:
        if not _HEADER_NAME.fullmatch(correction.header):
            raise ValueError(f"`{correction.header}` is no name of a header")
        if correction.counts not in ("used", "remaining"):
            raise ValueError(f'a count is "used" or "remaining", not {correction.counts!r}')
        # As limiters write it: "60/60s" is "60/1m".
        limit = RateLimiter(limits=[correction.limit]).limits[0]
        if isinstance(self.limiter, (RateLimiter, KeyedRateLimiter)):
            known = self.limiter.limits
            if limit not in known:
                are = "is" if len(known) == 1 else "are"
                raise ValueError(
                    f"no limiter here has the limit {limit}; there {are} {', '.join(known)}"
                )
        return correction._replace(limit=limit)

    # --- A request

    async def acquire(self, request: _Request, scheme: str, host: str, port: int | None) -> Flight:
        """Wait for the permit of a request. Raises PauseTooLong, Closed, and ValueError for a
        weight over a limit.
        """
        target, weight = self._target(request, scheme, host, port), self._weight(request)
        return Flight(target.limiter, weight, await self.pauses.acquire(target, weight))

    def acquire_blocking(
        self, request: _Request, scheme: str, host: str, port: int | None
    ) -> Flight:
        """The same, in this thread."""
        target, weight = self._target(request, scheme, host, port), self._weight(request)
        return Flight(target.limiter, weight, self.pauses.acquire_blocking(target, weight))

    def _weight(self, request: _Request) -> int:
        return self.weight(request) if callable(self.weight) else self.weight

    def _target(self, request: _Request, scheme: str, host: str, port: int | None) -> Target:
        if isinstance(self.limiter, RateLimiter):
            return Target(self.limiter, None)
        if isinstance(self.limiter, KeyedRateLimiter):
            port = port or _DEFAULT_PORTS.get(scheme)
            host = host if port is None else f"{host}:{port}"
            return Target(self.limiter[host], host)
        return Target(self.limiter(request), None)

    # --- Its answer

    def obey(
        self,
        flight: Flight,
        status: int,
        headers: Iterable[tuple[str, str]],
        response: _Response,
    ) -> None:
        """Apply the answer's hints, while its request still holds the permit."""
        limiter, weight = flight.limiter, flight.weight
        answer = read_answer(status, headers, time.time(), self.statuses, self.used_up)
        pause = answer.pause(lambda: limiter.backoff())
        # Pause first, so that a hook that raises does not prevent it.
        if pause is not None:
            self.pauses.pause(limiter, *pause)
        for header, limit, counts in self.corrections:
            used = answer.used_before(header, counts, limit, weight)
            if used is not None and limit in limiter.limits:
                limiter.reconcile(limit, used)
        hint = self.hook(response) if self.hook is not None else None
        if hint is not None:
            for limit, used in hint.used.items():
                limit = RateLimiter(limits=[limit]).limits[0]
                if limit in limiter.limits:
                    limiter.reconcile(limit, used_before(limit, used, weight))
            if hint.pause is not None:
                self.pauses.pause(limiter, to_seconds(hint.pause), "hint")

    def resume(self) -> None:
        """End the pauses of the limiters."""
        one = self.limiter if isinstance(self.limiter, RateLimiter) else None
        self.pauses.resume(one)


class Flight:
    """A request under its permit."""

    def __init__(self, limiter: RateLimiter, weight: int, permit: Permit) -> None:
        self.limiter = limiter
        self.weight = weight
        self._permit: Permit | None = permit

    def complete(self, actual: int | None = None) -> None:
        """The request has ended, with this weight if that is known. Does nothing the second
        time.
        """
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.complete(actual)

    def abandon(self) -> None:
        """The request was given up, and may still be on its way."""
        permit, self._permit = self._permit, None
        if permit is None:
            return
        with contextlib.suppress(asyncio.CancelledError), permit:
            raise asyncio.CancelledError

    def fail(self, error: BaseException, timed_out: bool) -> None:
        """The request has failed. After a time-out or a cancellation it may still be on its way."""
        if timed_out or not isinstance(error, Exception):
            self.abandon()
        else:
            self.complete()

    def __del__(self) -> None:
        self.abandon()


__all__ = ["Correction", "Flight", "Hint", "Limiters", "PauseTooLong", "Rules"]
