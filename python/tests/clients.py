"""The HTTP clients under test, each behind the same few calls. A client that is not installed is
left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import unittest
from typing import Any, AsyncIterator, Awaitable, Callable, NamedTuple

from async_rate_limiter import RateLimiter

from .server import Server


class Reply(NamedTuple):
    """A response whose body was read."""

    status: int
    text: str


class Client:
    """One client with a limiter. It sends from the loop or, if it is blocking, from threads."""

    blocks = False
    #: What the client raises if there is no server, and if the server does not answer in time.
    no_server: type[BaseException]
    timeout: type[BaseException]

    def __init__(self, limiter: Any, **options: Any) -> None:
        raise NotImplementedError

    async def get(self, url: str, method: str = "GET", **options: Any) -> Reply:
        """Send a request and read the whole response."""
        raise NotImplementedError

    async def open(self, url: str) -> Any:
        """Send a request and read the head of the response."""
        raise NotImplementedError

    async def read(self, response: Any) -> str:
        """Read the rest of an opened response."""
        raise NotImplementedError

    async def drop(self, response: Any) -> None:
        """Close an opened response whose body was not read."""
        raise NotImplementedError

    def resume(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


def is_installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) is not None for name in names)


class Blocking(Client):
    """Calls a blocking client in a thread for each call."""

    blocks = True

    async def get(self, url: str, method: str = "GET", **options: Any) -> Reply:
        return await asyncio.to_thread(self._get, url, method, **options)

    async def open(self, url: str) -> Any:
        return await asyncio.to_thread(self._open, url)

    async def read(self, response: Any) -> str:
        return await asyncio.to_thread(self._read, response)

    async def drop(self, response: Any) -> None:
        response.close()

    _get: Callable[..., Reply]
    _open: Callable[[str], Any]
    _read: Callable[[Any], str]


CLIENTS: list[type[Client]] = []

if is_installed("httpx"):
    import httpx
    from async_rate_limiter.httpx import AsyncRateLimitTransport, RateLimitTransport

    class AsyncHttpx(Client):
        no_server, timeout = httpx.ConnectError, httpx.TimeoutException

        def __init__(self, limiter: Any, **options: Any) -> None:
            self.transport = AsyncRateLimitTransport(limiter, **options)
            self.client = httpx.AsyncClient(
                transport=self.transport, follow_redirects=True, timeout=60
            )

        async def get(self, url: str, method: str = "GET", **options: Any) -> Reply:
            response = await self.client.request(method, url, **options)
            return Reply(response.status_code, response.text)

        async def open(self, url: str) -> Any:
            return await self.client.send(self.client.build_request("GET", url), stream=True)

        async def read(self, response: Any) -> str:
            await response.aread()
            text: str = response.text
            return text

        async def drop(self, response: Any) -> None:
            await response.aclose()

        def resume(self) -> None:
            self.transport.resume()

        async def close(self) -> None:
            await self.client.aclose()

    class Httpx(Blocking):
        no_server, timeout = httpx.ConnectError, httpx.TimeoutException

        def __init__(self, limiter: Any, **options: Any) -> None:
            self.transport = RateLimitTransport(limiter, **options)
            self.client = httpx.Client(transport=self.transport, follow_redirects=True, timeout=60)

        def _get(self, url: str, method: str = "GET", **options: Any) -> Reply:
            response = self.client.request(method, url, **options)
            return Reply(response.status_code, response.text)

        def _open(self, url: str) -> Any:
            return self.client.send(self.client.build_request("GET", url), stream=True)

        def _read(self, response: Any) -> str:
            response.read()
            text: str = response.text
            return text

        def resume(self) -> None:
            self.transport.resume()

        async def close(self) -> None:
            self.client.close()

    CLIENTS += [AsyncHttpx, Httpx]

if is_installed("aiohttp"):
    import aiohttp
    from async_rate_limiter.aiohttp import RateLimitMiddleware

    class Aiohttp(Client):
        no_server, timeout = aiohttp.ClientConnectorError, asyncio.TimeoutError

        def __init__(self, limiter: Any, **options: Any) -> None:
            self.middleware = RateLimitMiddleware(limiter, **options)
            self.session = aiohttp.ClientSession(middlewares=[self.middleware])

        async def get(self, url: str, method: str = "GET", **options: Any) -> Reply:
            if "timeout" in options:
                options["timeout"] = aiohttp.ClientTimeout(options["timeout"])
            if "content" in options:
                options["data"] = options.pop("content")
            async with self.session.request(method, url, **options) as response:
                return Reply(response.status, await response.text())

        async def open(self, url: str) -> Any:
            return await self.session.get(url)

        async def read(self, response: Any) -> str:
            text: str = await response.text()
            return text

        async def drop(self, response: Any) -> None:
            response.close()

        def resume(self) -> None:
            self.middleware.resume()

        async def close(self) -> None:
            await self.session.close()

    CLIENTS.append(Aiohttp)

if is_installed("requests"):
    import requests
    from async_rate_limiter.requests import RateLimitAdapter

    class Requests(Blocking):
        no_server, timeout = requests.ConnectionError, requests.Timeout

        def __init__(self, limiter: Any, **options: Any) -> None:
            self.adapter = RateLimitAdapter(limiter, **options)
            self.session = self.adapter.session()
            self.session.trust_env = False

        def _get(self, url: str, method: str = "GET", **options: Any) -> Reply:
            if "content" in options:
                options["data"] = options.pop("content")
            response = self.session.request(method, url, **options)
            return Reply(response.status_code, response.text)

        def _open(self, url: str) -> Any:
            return self.session.get(url, stream=True)

        def _read(self, response: Any) -> str:
            text: str = response.text
            return text

        def resume(self) -> None:
            self.adapter.resume()

        async def close(self) -> None:
            self.session.close()

    CLIENTS.append(Requests)


def for_each_client(test: Callable[[Any, type[Client]], Awaitable[None]]) -> Callable[[Any], None]:
    """A test method, run with every client that is installed."""

    def method(self: Any) -> None:
        if not CLIENTS:
            self.skipTest("needs httpx, aiohttp or requests")
        for client in CLIENTS:
            with self.subTest(client.__name__):
                asyncio.run(_within(test(self, client)))

    method.__name__ = test.__name__
    method.__doc__ = test.__doc__
    return method


async def _within(test: Awaitable[None]) -> None:
    """What has not ended after a minute never will."""
    await asyncio.wait_for(test, 60)


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


async def until(is_so: Any) -> None:
    while not is_so():
        await asyncio.sleep(0.001)


class Clients(unittest.TestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.addCleanup(self.server.close)
        self.clock = Clock()

    def limiter(self, *limits: str, **settings: Any) -> RateLimiter:
        return RateLimiter(limits=limits, clock=self.clock, **{"concurrency": 4, **settings})

    @contextlib.asynccontextmanager
    async def client(
        self, kind: type[Client], limiter: Any, **options: Any
    ) -> AsyncIterator[Client]:
        client = kind(limiter, **options)
        try:
            yield client
        finally:
            await client.close()
