"""What every HTTP client does as the server says: pauses, their limit, counts. The limiter's clock
is manual, the network is real.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from unittest import mock

from async_rate_limiter import KeyedRateLimiter, Permit, RateLimiter
from async_rate_limiter._http import Hint

from .clients import Client, Clients, for_each_client, until
from .manual_time import MILLISECOND, SECOND

PER = 10 * MILLISECOND


class PausesOfServers(Clients):
    @for_each_client
    async def test_the_limiter_pauses_for_as_long_as_the_server_says(
        self, kind: type[Client]
    ) -> None:
        date = {"date": "Sun, 06 Nov 1994 08:49:30 GMT"}
        cases: list[tuple[int, dict[str, Any], float]] = [
            (429, {"retry-after": "2"}, 2),
            (429, {"retry-after": "1.732"}, 1.732),
            (429, {"retry-after": "Sun, 06 Nov 1994 08:49:37 GMT", **date}, 8),
            (429, {"retry-after-ms": "2000"}, 2),
            (200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "2"}, 2),
            (503, {"retry-after": "2"}, 2),
            (403, {"retry-after": "2"}, 2),
            # Nothing said, or nothing that is understood: the limit's own period.
            (429, {}, PER / SECOND),
            (503, {"retry-after": "soon"}, PER / SECOND),
            # An answer that refuses nothing, or only might.
            (200, {"retry-after": "2"}, 0),
            (500, {}, 0),
        ]
        for status, headers, pause in cases:
            limiter = self.limiter("5/10ms")
            async with self.client(kind, limiter) as client:
                reply = await client.get(self.server.url({"status": status, **headers}))
            self.assertEqual(reply, (status, "answer"))
            left = limiter.paused_for()
            self.assertAlmostEqual(left, pause, 8, f"{status} {headers}")

    @for_each_client
    async def test_a_refusal_that_says_nothing_pauses_for_the_shortest_used_up_period(
        self, kind: type[Client]
    ) -> None:
        for requests, pause in ((1, 0.01), (3, 1.0)):
            limiter = self.limiter("5/10ms", "3/1s", "10000/1d")
            async with self.client(kind, limiter) as client:
                for _ in range(1, requests):
                    await client.get(self.server.url())
                await client.get(self.server.url({"status": 503}))
            self.assertEqual(limiter.paused_for(), pause)

    @for_each_client
    async def test_the_statuses_that_are_heeded_can_be_named(self, kind: type[Client]) -> None:
        limiter = self.limiter("5/10ms")
        options: dict[str, Any] = {"statuses": {202}, "used_up": False}
        async with self.client(kind, limiter, **options) as client:
            used_up = {"x-ratelimit-remaining": 0, "x-ratelimit-reset": 7}
            await client.get(self.server.url({"status": 429, "retry-after": 7, **used_up}))
            self.assertEqual(limiter.paused_for(), 0)
            await client.get(self.server.url({"status": 202, "retry-after": 7}))
            self.assertEqual(limiter.paused_for(), 7)

    @for_each_client
    async def test_the_pause_holds_before_the_next_is_granted(self, kind: type[Client]) -> None:
        limiter = self.limiter("5/10ms", concurrency=1)
        self.server.seen.clear()
        async with self.client(kind, limiter) as client:
            url = self.server.url({"wait": "", "status": 429, "retry-after": 5})
            first = asyncio.ensure_future(client.get(url))
            await until(lambda: limiter.stats().running == 1)
            second = asyncio.ensure_future(client.get(self.server.url()))
            await asyncio.sleep(0.01)
            self.server.leave.release()
            self.assertEqual((await first).status, 429)
            await asyncio.sleep(0.02)
            self.assertEqual(len(self.server.seen), 1)
            self.clock.now_ns += 5 * SECOND
            limiter.resume()
            self.assertEqual((await second).status, 200)

    @for_each_client
    async def test_a_hook_says_what_no_header_does(self, kind: type[Client]) -> None:
        def hook(response: Any) -> Hint | None:
            if "x-banned" in response.headers:
                return Hint(pause=timedelta(seconds=int(response.headers["x-banned"])))
            if "x-count" in response.headers:
                return Hint(used={"10/10ms": int(response.headers["x-count"]), "1/1h": 1})
            return None

        limiter = self.limiter("10/10ms")
        async with self.client(kind, limiter, hook=hook) as client:
            await client.get(self.server.url({"x-count": 7}))
            self.assertEqual(
                limiter.stats().held[0].units, 7, "a limit that is not there changes nothing"
            )
            await client.get(self.server.url({"status": 429, "retry-after": 2, "x-banned": 7}))
            self.assertEqual(limiter.paused_for(), 7)


class Counts(Clients):
    @for_each_client
    async def test_counts_of_the_server_only_ever_tighten(self, kind: type[Client]) -> None:
        cases = [
            # Somebody else has used 6 of 10 units; ours are 2, of which the server knows.
            ("x-mbx-used-weight-1m", "8", 8),
            ("x-mbx-used-weight-1m", "1", 2),
            ("x-mbx-used-weight-1m", "1000", 10),
            ("x-mbx-used-weight-1m", "nonsense", 2),
            ("ratelimit-left", "0", 10),
            ("ratelimit-left", "3", 7),
            ("ratelimit-left", "500", 2),
            ("another", "1", 2),
        ]
        corrected_by = [
            ("X-MBX-USED-WEIGHT-1M", "10w/10000us", "used"),
            ("RateLimit-Left", "10w/10ms"),
        ]
        for header, text, held in cases:
            limiter = self.limiter("10w/10ms")
            options = {"weight": 2, "corrected_by": corrected_by}
            async with self.client(kind, limiter, **options) as client:
                await client.get(self.server.url({header: text}))
            self.assertEqual(limiter.stats().held[0].units, held, f"{header}: {text}")

    @for_each_client
    async def test_a_host_without_the_limit_is_not_corrected(self, kind: type[Client]) -> None:
        with mock.patch("async_rate_limiter._keyed.RateLimiter", RateLimiter):
            hosts: KeyedRateLimiter[str] = KeyedRateLimiter(
                limits=["40/10s"], overrides={self.server.host: ["20/10s"]}, clock=self.clock
            )
            for limit, held in (("40/10s", 1), ("20/10s", 20)):
                options = {"corrected_by": [("x-left", limit)]}
                async with self.client(kind, hosts, **options) as client:
                    await client.get(self.server.url({"x-left": 0}))
                limiter = hosts[self.server.host]
                self.assertEqual(limiter.stats().held[0].units, held)
                self.clock.now_ns += 20 * SECOND


class PausedAsItGrants(RateLimiter):
    """The first permit comes with a pause, as if another answer had asked for it meanwhile."""

    granted = 0

    def pause_at_first(self) -> None:
        PausedAsItGrants.granted += 1
        if PausedAsItGrants.granted == 1:
            self.pause_for(7)

    async def acquire(self, weight: int = 1, **options: Any) -> Permit:
        permit = await super().acquire(weight, **options)
        self.pause_at_first()
        return permit

    def acquire_blocking(self, weight: int = 1, **options: Any) -> Permit:
        permit = super().acquire_blocking(weight, **options)
        self.pause_at_first()
        return permit


class GrantedBeforeAPause(Clients):
    @for_each_client
    async def test_a_request_that_was_granted_before_the_pause_and_not_sent_is_not_sent(
        self, kind: type[Client]
    ) -> None:
        PausedAsItGrants.granted = 0
        self.server.seen.clear()
        grace = timedelta(seconds=1)
        limiter = PausedAsItGrants(limits=["5/10ms"], clock=self.clock, abandon_grace=grace)
        async with self.client(kind, limiter) as client:
            sent = asyncio.ensure_future(client.get(self.server.url()))
            await until(lambda: PausedAsItGrants.granted == 1)
            await asyncio.sleep(0.02)
            self.assertEqual((len(self.server.seen), limiter.stats().running), (0, 0))
            limiter.resume()
            self.assertEqual((await sent).status, 200)
            self.assertEqual(PausedAsItGrants.granted, 2)
