"""A threaded Flask app whose requests share one limit of an API that bans for good at the first
call too many.

Each thread waits for its permit by `with limiter:`. The queue is first in, first out over all
threads. Needs Flask. Everything happens on this machine.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from urllib.request import urlopen

from async_rate_limiter import RateLimiter
from flask import Flask
from werkzeug.serving import make_server

RATE = 10
PER = 0.1
CALLS = 40

limiter = RateLimiter(RATE, timedelta(seconds=PER), concurrency=4)
app = Flask(__name__)
logging.getLogger("werkzeug").setLevel(logging.ERROR)


class Api:
    """Counts each call at a moment of its own choosing, and has no mercy."""

    def __init__(self) -> None:
        self.seen: deque[float] = deque()
        self.banned = False
        self.lock = threading.Lock()

    def call(self) -> bool:
        time.sleep(random.uniform(0, 0.004))
        with self.lock:
            now = time.monotonic()
            self.seen.append(now)
            while self.seen[0] < now - PER:
                self.seen.popleft()
            self.banned |= len(self.seen) > RATE
        time.sleep(random.uniform(0, 0.002))
        return not self.banned


api = Api()


@app.get("/")
def page() -> tuple[str, int]:
    with limiter:
        is_answered = api.call()
    return ("answered", 200) if is_answered else ("banned", 502)


def main() -> None:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def visit(_: int) -> str:
        with urlopen(f"http://127.0.0.1:{server.server_port}/") as response:
            text: str = response.read().decode()
            return text

    begin = time.monotonic()
    with ThreadPoolExecutor(16) as visitors:
        pages = list(visitors.map(visit, range(CALLS)))
    took = time.monotonic() - begin
    server.shutdown()
    thread.join()
    server.server_close()
    print(f"{CALLS} pages in {took:.2f} s, {pages.count('banned')} of them banned")
    assert pages == ["answered"] * CALLS


main()
