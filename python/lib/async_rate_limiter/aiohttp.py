"""A middleware that keeps an aiohttp client within a limit. It needs the extra `aiohttp` (3.12).

    session = aiohttp.ClientSession(middlewares=[RateLimitMiddleware(limiter)])

Each request on the wire takes one permit, and so does each redirect that the client follows, and
each request that it repeats on a new connection. Put it last among the middlewares, so that what
the others send takes permits as well. See `_http` for when a permit completes, and for what answers
do to the limiter.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Awaitable, Callable, Collection, Iterable

from aiohttp import ClientRequest, ClientResponse

from ._http import Correction, Hint, Limiters, Rules
from ._pauses import PauseTooLong

if TYPE_CHECKING:
    from datetime import timedelta

    from typing_extensions import Literal

    from ._http import _Count

__all__ = ["Correction", "Hint", "PauseTooLong", "RateLimitMiddleware"]


class RateLimitMiddleware:
    """Sends each request of an `aiohttp.ClientSession` under a permit.

    A request that is cancelled while it waits leaves no trace. The time-outs of the session include
    the wait.

    `limiter` is a RateLimiter, a KeyedRateLimiter (then each host has its own limiter, by name and
    port as in "api.example.com:443"), or a function of the request that returns a limiter.

    * `weight`: of each request, or a function of it.
    * `actual`: a function of the response, sync or async, that returns the weight which the request
      turned out to have, or None if it does not tell. The whole body is read before, under the
      permit.
    * `complete_on`: "response" completes the permit when the head of the response has arrived,
      "body" when the end of its body has arrived. A body that fails or is released before its end
      is a cancelled request.
    * `max_pause`: a request that would have to wait longer than this (seconds or a timedelta; an
      hour by default) for a pause of the server raises PauseTooLong at once. The pause itself is
      not cut.
    * `statuses`: those on which `Retry-After` is read; all from 400 up by default.
    * `used_up`: whether a window of the server without units left pauses until its reset, on any
      status.
    * `corrected_by`: headers with the server's counts, each a Correction or a tuple `(header,
      limit[, counts])`.
    * `hook`: a function of the response, called while the request holds its permit, that returns a
      Hint or None.
    """

    def __init__(
        self,
        limiter: Limiters[ClientRequest],
        *,
        weight: int | Callable[[ClientRequest], int] = 1,
        actual: Callable[[ClientResponse], Awaitable[int | None] | int | None] | None = None,
        complete_on: Literal["response", "body"] = "response",
        max_pause: float | timedelta = 3600,
        statuses: Collection[int] | None = None,
        used_up: bool = True,
        corrected_by: Iterable[Correction | tuple[str, str] | tuple[str, str, _Count]] = (),
        hook: Callable[[ClientResponse], Hint | None] | None = None,
    ) -> None:
        self._actual = actual
        self._rules = Rules[ClientRequest, ClientResponse](
            limiter,
            weight=weight,
            complete_on=complete_on,
            max_pause=max_pause,
            statuses=statuses,
            used_up=used_up,
            corrected_by=corrected_by,
            hook=hook,
        )

    async def __call__(
        self,
        request: ClientRequest,
        handler: Callable[[ClientRequest], Awaitable[ClientResponse]],
    ) -> ClientResponse:
        """Wait for a permit, then send the request. Raises PauseTooLong, Closed, and what the
        handler raises.
        """
        url = request.url
        flight = await self._rules.acquire(request, url.scheme, url.host or "", url.port)
        try:
            response = await handler(request)
        except BaseException as error:
            flight.fail(error, isinstance(error, asyncio.TimeoutError))
            raise
        try:
            self._rules.obey(flight, response.status, response.headers.items(), response)
            if self._actual is not None:
                await response.read()
                flight.complete(await self._settle(response))
        except BaseException as error:
            flight.fail(error, isinstance(error, asyncio.TimeoutError))
            response.close()
            raise
        if self._rules.completes_on_body:
            # The content forgets it if the body fails or is given up; then the flight ends as
            # abandoned.
            response.content.on_eof(flight.complete)
        else:
            flight.complete()
        return response

    async def _settle(self, response: ClientResponse) -> int | None:
        assert self._actual is not None
        actual = self._actual(response)
        return await actual if inspect.isawaitable(actual) else actual

    def resume(self) -> None:
        """End the limiter's pause or, with several limiters, the pauses that servers asked for."""
        self._rules.resume()
