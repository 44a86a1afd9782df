"""An adapter that keeps a requests session within a limit. It needs the extra `requests`.

    session = RateLimitAdapter(limiter).session()

Each request on the wire takes one permit, and so does each redirect that the session follows. See
`_http` for when a permit completes, and for what answers do to the limiter.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Callable, Collection, Iterable, Mapping
from urllib.parse import urlsplit

import requests
from requests.adapters import DEFAULT_POOLBLOCK, DEFAULT_POOLSIZE, HTTPAdapter

from ._http import Correction, Flight, Hint, Limiters, Rules
from ._pauses import PauseTooLong

if TYPE_CHECKING:
    from datetime import timedelta

    from typing_extensions import Literal

    from ._http import _Count

__all__ = ["Correction", "Hint", "PauseTooLong", "RateLimitAdapter"]


class RateLimitAdapter(HTTPAdapter):
    """Sends each request of a `requests.Session` under a permit, from any thread.

    It never sends a request twice: `max_retries` of HTTPAdapter would send requests without
    permits, so it is not a setting here. A thread that waits for a permit already is not told of a
    pause longer than `max_pause`: it waits for its end.

    `limiter` is a RateLimiter, a KeyedRateLimiter (then each host has its own limiter, by name and
    port as in "api.example.com:443"), or a function of the request that returns a limiter.

    * `weight`: of each request, or a function of it.
    * `actual`: a function of the response that returns the weight which the request turned out to
      have, or None if it does not tell. The whole body is read before, under the permit.
    * `complete_on`: "response" completes the permit when the head of the response has arrived,
      "body" when its body has been read to the end. A body that fails or is closed before its end
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
    * `pool_connections`, `pool_maxsize`, `pool_block`: as of HTTPAdapter.
    """

    def __init__(
        self,
        limiter: Limiters[requests.PreparedRequest],
        *,
        weight: int | Callable[[requests.PreparedRequest], int] = 1,
        actual: Callable[[requests.Response], int | None] | None = None,
        complete_on: Literal["response", "body"] = "response",
        max_pause: float | timedelta = 3600,
        statuses: Collection[int] | None = None,
        used_up: bool = True,
        corrected_by: Iterable[Correction | tuple[str, str] | tuple[str, str, _Count]] = (),
        hook: Callable[[requests.Response], Hint | None] | None = None,
        pool_connections: int = DEFAULT_POOLSIZE,
        pool_maxsize: int = DEFAULT_POOLSIZE,
        pool_block: bool = DEFAULT_POOLBLOCK,
    ) -> None:
        self._actual = actual
        self._rules = Rules[requests.PreparedRequest, requests.Response](
            limiter,
            weight=weight,
            complete_on=complete_on,
            max_pause=max_pause,
            statuses=statuses,
            used_up=used_up,
            corrected_by=corrected_by,
            hook=hook,
        )
        super().__init__(pool_connections, pool_maxsize, pool_block=pool_block)

    def session(self) -> requests.Session:
        """A new session that sends every request by this adapter."""
        session = requests.Session()
        session.mount("http://", self)
        session.mount("https://", self)
        return session

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Wait for a permit, then send the request. Raises PauseTooLong, Closed, and what
        HTTPAdapter raises.

        `timeout` does not include the wait.
        """
        url = urlsplit(request.url or "")
        flight = self._rules.acquire_blocking(request, url.scheme, url.hostname or "", url.port)
        try:
            response = super().send(request, stream, timeout, verify, cert, proxies)
        except BaseException as error:
            flight.fail(error, isinstance(error, requests.Timeout))
            raise
        try:
            self._rules.obey(flight, response.status_code, response.raw.headers.items(), response)
            if self._actual is not None:
                _ = response.content  # Reads it.
                flight.complete(self._actual(response))
        except BaseException as error:
            flight.fail(error, isinstance(error, requests.Timeout))
            response.close()
            raise
        if self._rules.completes_on_body and response.raw.length_remaining != 0:
            _hold(response.raw, flight)
        else:
            flight.complete()
        return response

    def resume(self) -> None:
        """End the limiter's pause or, with several limiters, the pauses that servers asked for."""
        self._rules.resume()


def _hold(raw: Any, flight: Flight) -> None:
    """Hold the permit until urllib3 lets go of the connection: by itself at the end of the body, or
    by `close`.
    """
    release, close = raw.release_conn, raw.close

    def release_conn() -> None:
        if sys.exc_info()[0] is None:
            flight.complete()
        else:
            flight.abandon()
        release()

    def close_early() -> None:
        flight.abandon()
        close()

    raw.release_conn, raw.close = release_conn, close_early
