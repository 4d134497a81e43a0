"""An HTTP proxy before an S3 server that answers some requests itself, or lets them through and loses the answer.

`with FaultyHttpProxy(port, decide) as proxy:` serves at `proxy.endpoint`; `decide(method, path)` names what happens.
"""

import http.client
import threading
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>a fault of the test</Message></Error>'
)
_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}


class Http(StrEnum):
    """What happens to a request."""

    PASS = "pass"
    SLOW_DOWN = "SlowDown"
    INTERNAL = "InternalError"
    LOSE_ANSWER = "lose"  # it is done, and the connection ends without a word
    HALF_ANSWER = "half"  # it is done, and the answer ends in the middle
    HANG_UP = "hang up"  # it is not done, and the connection ends


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients hang up."""


class FaultyHttpProxy:
    """Counts what it did in `done`."""

    def __init__(self, port: int, decide: Callable[[str, str], Http]) -> None:
        self.done: Counter[Http] = Counter()
        guard = threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name above
                pass

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with guard:
                    what = decide(self.command, self.path)
                    proxy.done[what] += 1
                if what is Http.HANG_UP:
                    self.close_connection = True
                    return
                if what in {Http.SLOW_DOWN, Http.INTERNAL}:
                    text = _ERROR.format(code=what.value).encode()
                    self._answer(503 if what is Http.SLOW_DOWN else 500, {}, text)
                    return
                status, headers, data = self._forward(body)
                if what is Http.LOSE_ANSWER:
                    self.close_connection = True
                    return
                self._answer(status, headers, data, cut=what is Http.HALF_ANSWER)

            def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                try:
                    headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
                    connection.request(self.command, self.path, body=body, headers=headers)
                    answer = connection.getresponse()
                    return answer.status, dict(answer.getheaders()), answer.read()
                finally:
                    connection.close()

            def _answer(self, status: int, headers: dict[str, str], data: bytes, *, cut: bool = False) -> None:
                self.send_response_only(status)
                length = headers.get("Content-Length", str(len(data)))
                for name, value in headers.items():
                    if name.lower() not in {*_HOP, "content-length"}:
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(data[: len(data) // 2] if cut else data)
                if cut:
                    self.close_connection = True

            do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _serve  # noqa: N815 - the names that the server calls

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
