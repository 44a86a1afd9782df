"""Transports that keep an httpx client within a limit. They need the extra `httpx`.

    client = httpx.AsyncClient(transport=AsyncRateLimitTransport(limiter))
    client = httpx.Client(transport=RateLimitTransport(limiter))

Settings of connections (`verify`, `http2`, `limits`) are those of the transport that sends: pass
`httpx.AsyncHTTPTransport(http2=True)` as the second argument. What the client's own `proxy` or
`mounts` send takes no permit.

Each request on the wire takes one permit, and so does each redirect that the client follows. See
`_http` for when a permit completes, and for what answers do to the limiter.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    AsyncIterator,
    Callable,
    Collection,
    Generic,
    Iterable,
    Iterator,
    TypeVar,
)

import httpx

from ._http import Correction, Flight, Hint, Limiters, Rules
from ._pauses import PauseTooLong

if TYPE_CHECKING:
    from datetime import timedelta

    from typing_extensions import Literal

    from ._http import _Count

__all__ = ["AsyncRateLimitTransport", "Correction", "Hint", "PauseTooLong", "RateLimitTransport"]


_Transport = TypeVar("_Transport", httpx.AsyncBaseTransport, httpx.BaseTransport)


class _RateLimit(Generic[_Transport]):
    """The settings.

    `limiter` is a RateLimiter, a KeyedRateLimiter (then each host has its own limiter, by name and
    port as in "api.example.com:443"), or a function of the request that returns a limiter.
    `transport` sends the requests: httpx's own by default.

    * `weight`: of each request, or a function of it.
    * `actual`: a function of the response that returns the weight which the request turned out to
      have, or None if it does not tell. The whole body is read before, under the permit.
    * `complete_on`: "response" completes the permit when the head of the response has arrived,
      "body" when its body has been read to the end. A body that is closed before its end is a
      cancelled request.
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

    _default: Callable[[], _Transport]
    _transport: _Transport

    def __init__(
        self,
        limiter: Limiters[httpx.Request],
        transport: _Transport | None = None,
        *,
        weight: int | Callable[[httpx.Request], int] = 1,
        actual: Callable[[httpx.Response], int | None] | None = None,
        complete_on: Literal["response", "body"] = "response",
        max_pause: float | timedelta = 3600,
        statuses: Collection[int] | None = None,
        used_up: bool = True,
        corrected_by: Iterable[Correction | tuple[str, str] | tuple[str, str, _Count]] = (),
        hook: Callable[[httpx.Response], Hint | None] | None = None,
    ) -> None:
        self._actual = actual
        self._rules = Rules[httpx.Request, httpx.Response](
            limiter,
            weight=weight,
            complete_on=complete_on,
            max_pause=max_pause,
            statuses=statuses,
            used_up=used_up,
            corrected_by=corrected_by,
            hook=hook,
        )
        self._transport = self._default() if transport is None else transport

    def resume(self) -> None:
        """End the limiter's pause or, with several limiters, the pauses that servers asked for."""
        self._rules.resume()

    def _obey(self, flight: Flight, request: httpx.Request, response: httpx.Response) -> None:
        response.request = request
        headers = response.headers.multi_items()
        self._rules.obey(flight, response.status_code, headers, response)

    def _settled(
        self, flight: Flight, request: httpx.Request, response: httpx.Response, body: bytes
    ) -> httpx.Response:
        """Complete the permit by the whole response, and return one whose body is still to be
        read.
        """
        assert self._actual is not None
        read, unread = (
            httpx.Response(
                response.status_code,
                headers=response.headers,
                stream=httpx.ByteStream(body),
                request=request,
                extensions=response.extensions,
            )
            for _ in range(2)
        )
        read.read()
        flight.complete(self._actual(read))
        return unread


def _is_timeout(error: BaseException) -> bool:
    return isinstance(error, httpx.TimeoutException)


def _is_empty(request: httpx.Request, response: httpx.Response) -> bool:
    """Whether the body has ended with the head."""
    is_empty = response.headers.get("content-length") == "0" or response.status_code in (204, 304)
    return is_empty or request.method == "HEAD"


class AsyncRateLimitTransport(_RateLimit[httpx.AsyncBaseTransport], httpx.AsyncBaseTransport):
    __doc__ = f"""Sends each request of an `httpx.AsyncClient` under a permit.

    A request that is cancelled while it waits leaves no trace.

    {_RateLimit.__doc__}"""

    _default = httpx.AsyncHTTPTransport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for a permit, then send the request. Raises PauseTooLong, Closed, and what the
        transport raises.
        """
        url = request.url
        flight = await self._rules.acquire(request, url.scheme, url.host, url.port)
        try:
            response = await self._transport.handle_async_request(request)
        except BaseException as error:
            flight.fail(error, _is_timeout(error))
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        try:
            self._obey(flight, request, response)
            if self._actual is not None:
                body = b"".join([part async for part in response.stream])
                await response.stream.aclose()
                return self._settled(flight, request, response, body)
        except BaseException as error:
            flight.fail(error, _is_timeout(error))
            await response.stream.aclose()
            raise
        if self._rules.completes_on_body and not _is_empty(request, response):
            response.stream = _AsyncBody(response.stream, flight)
        else:
            flight.complete()
        return response

    async def aclose(self) -> None:
        """Close the transport that sends the requests. The limiter stays open."""
        await self._transport.aclose()


class _AsyncBody(httpx.AsyncByteStream):
    """A body that holds the permit of its request until it has ended."""

    def __init__(self, stream: httpx.AsyncByteStream, flight: Flight) -> None:
        self._stream = stream
        self._flight = flight

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for part in self._stream:
                yield part
        except Exception as error:
            self._flight.fail(error, _is_timeout(error))
            raise
        self._flight.complete()

    async def aclose(self) -> None:
        await self._stream.aclose()
        self._flight.abandon()


class RateLimitTransport(_RateLimit[httpx.BaseTransport], httpx.BaseTransport):
    __doc__ = f"""Sends each request of an `httpx.Client` under a permit, from any thread.

    A thread that waits for a permit already is not told of a pause longer than `max_pause`: it
    waits for its end.

    {_RateLimit.__doc__}"""

    _default = httpx.HTTPTransport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for a permit, then send the request. Raises PauseTooLong, Closed, and what the
        transport raises.
        """
        url = request.url
        flight = self._rules.acquire_blocking(request, url.scheme, url.host, url.port)
        try:
            response = self._transport.handle_request(request)
        except BaseException as error:
            flight.fail(error, _is_timeout(error))
            raise
        assert isinstance(response.stream, httpx.SyncByteStream)
        try:
            self._obey(flight, request, response)
            if self._actual is not None:
                body = b"".join(response.stream)
                response.stream.close()
                return self._settled(flight, request, response, body)
        except BaseException as error:
            flight.fail(error, _is_timeout(error))
            response.stream.close()
            raise
        if self._rules.completes_on_body and not _is_empty(request, response):
            response.stream = _Body(response.stream, flight)
        else:
            flight.complete()
        return response

    def close(self) -> None:
        """Close the transport that sends the requests. The limiter stays open."""
        self._transport.close()


class _Body(httpx.SyncByteStream):
    """A body that holds the permit of its request until it has ended."""

    def __init__(self, stream: httpx.SyncByteStream, flight: Flight) -> None:
        self._stream = stream
        self._flight = flight

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._stream
        except Exception as error:
            self._flight.fail(error, _is_timeout(error))
            raise
        self._flight.complete()

    def close(self) -> None:
        self._stream.close()
        self._flight.abandon()
