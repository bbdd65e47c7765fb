"""Serves the example page and passes its requests on to a running service.

    npm install
    onelook serve &
    python examples/embedding/serve.py --service http://127.0.0.1:8000

It stands for the backend of a page of your own: the service's key (ONELOOK_API_KEY) stays here, and
the page asks only its own address. The viewer's script comes from node_modules. Standard library
only; for the internet, do the same in the server you already have.
"""

from __future__ import annotations

import argparse
import http.client
import http.server
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGES = {
    "/": (HERE / "index.html", "text/html; charset=utf-8"),
    "/embedding.js": (HERE / "embedding.js", "text/javascript"),
    "/vendor/onelook.mjs": (ROOT / "clients" / "javascript" / "onelook.mjs", "text/javascript"),
    "/vendor/model-viewer.js": (
        ROOT / "node_modules" / "@google" / "model-viewer" / "dist" / "model-viewer.min.js",
        "text/javascript",
    ),
}
PASSED_ON = "/api/v1/"
MOST_BYTES = 32 * 2**20
REQUEST_HEADERS = ("content-type", "prefer", "range", "if-none-match", "accept")
ANSWER_HEADERS = (
    "content-type", "content-length", "content-range", "accept-ranges", "etag", "location",
    "cache-control", "retry-after", "x-content-type-options", "preference-applied",
)  # fmt: skip


class Handler(http.server.BaseHTTPRequestHandler):
    """service: the address behind; demo: that of a demo page to frame, or None."""

    service: str
    demo: str | None = None
    api_key: str | None = None

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path in PAGES:
            file, kind = PAGES[path]
            self._answer(200, kind, file.read_bytes())
        elif path == "/settings.json":
            self._answer(200, "application/json", json.dumps({"demo": self.demo}).encode())
        else:
            self._pass_on()

    def do_POST(self) -> None:
        self._pass_on()

    do_HEAD = do_DELETE = do_POST

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if not self.path.startswith(PASSED_ON):
            self._answer(404, "text/plain", b"There is no such page.")
        elif length > MOST_BYTES:
            self.close_connection = True
            self._answer(413, "text/plain", b"The picture is too large.")
        else:
            self._forward(self.rfile.read(length) if length else None)

    def _forward(self, body: bytes | None) -> None:
        place = urlsplit(self.service)
        secure = place.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kind(place.netloc, timeout=600)
        headers = {name: self.headers[name] for name in REQUEST_HEADERS if name in self.headers}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        try:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
        except OSError:
            connection.close()
            self._answer(502, "application/json", b'{"detail": "The service does not answer."}')
            return
        self.send_response(answer.status)
        for name in ANSWER_HEADERS:
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        self.send_header("Connection", "close")
        self.end_headers()
        try:
            while piece := answer.read1(65536):  # events as they come
                self.wfile.write(piece)
        except OSError:
            pass  # the visitor has gone
        finally:
            connection.close()

    def _answer(self, code: int, kind: str, content: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the example page.")
    parser.add_argument(
        "--service", default="http://127.0.0.1:8000", help="a running onelook serve"
    )
    parser.add_argument("--demo", help="address of a running onelook demo, to be shown in a frame")
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    Handler.service, Handler.demo = arguments.service, arguments.demo
    Handler.api_key = os.environ.get("ONELOOK_API_KEY")
    with http.server.ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
