"""A server on loopback, in threads of its own, that answers as the query of a request says.

`status` is the status and `body` the body; every other word is a header. `wait` waits for
`server.leave`, `then` sends a body that comes piece by piece from `server.pieces`, and `hang` never
answers.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit


class Server:
    """Counts what it sees and, with a `rate` in `per` seconds, bans for good at the first request
    too many.
    """

    def __init__(self, rate: int | None = None, per: float = 0.0) -> None:
        self.rate = rate
        self.per = per
        self.seen: list[str] = []
        self.most = 0
        self.banned = False
        self.leave = threading.Semaphore(0)
        self.pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._window: deque[float] = deque()
        self._lock = threading.Lock()
        self._http = _Http(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def host(self) -> str:
        """Its name and port, as the key of its limiter."""
        return f"127.0.0.1:{self._http.server_address[1]}"

    def url(self, query: dict[str, Any] | None = None, path: str = "/") -> str:
        return f"http://{self.host}{path}?{urlencode(query or {})}"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def count(self, request: str) -> bool:
        """Whether the request is within the limit, and always was."""
        with self._lock:
            now = time.monotonic()
            self.seen.append(request)
            self._window.append(now)
            while self._window[0] < now - self.per:
                self._window.popleft()
            self.most = max(self.most, len(self._window))
            self.banned |= self.rate is not None and len(self._window) > self.rate
            return not self.banned


class _Http(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client has closed its connection."""


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # A head and a body in two packets otherwise wait for each other.
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            query = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
            content = self.rfile.read(int(self.headers.get("content-length", 0)))
            path = urlsplit(self.path).path
            is_counted = server.count(f"{self.command} {path} {content.decode()}".strip())
            status = int(query.pop("status", 200)) if is_counted else 429
            if query.pop("wait", None) is not None:
                server.leave.acquire(timeout=60)
            if query.pop("hang", None) is not None:
                time.sleep(0.5)
                return
            comes_in_pieces = query.pop("then", None) is not None
            body = query.pop("body", "answer").encode()
            # As `send_response` does, without a Date.
            self.send_response_only(status)
            for name, value in query.items():
                self.send_header(name, value)
            if comes_in_pieces:
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                self._send_pieces()
                return
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_POST = do_HEAD = do_GET

        def _send_pieces(self) -> None:
            while (piece := server.pieces.get(timeout=60)) is not None:
                if piece == b"fail":
                    self.close_connection = True
                    return
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
