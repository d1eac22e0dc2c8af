"""Chromium with one page that opens a camera as a call would and tells what it saw."""

from __future__ import annotations

import contextlib
import json
import queue
import shutil
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
START_TIMEOUT_S = 120
PICTURES, WATCH_TIMEOUT_S = 60, 25


class Browser:
    """A Chromium with one page (browser.html) that opens the camera each time it is asked to."""

    def __init__(self, *options: str, environment: dict[str, str] | None = None) -> None:
        self._wishes: queue.Queue[dict] = queue.Queue()
        self._told: queue.Queue[dict] = queue.Queue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [
                CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--use-fake-ui-for-media-stream",
                f"--user-data-dir={self._profile.name}", "--no-first-run", "--disable-background-networking",
                "--autoplay-policy=no-user-gesture-required", *options, f"http://127.0.0.1:{self._server.server_port}/",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip

    def look(self, width: int = 640, height: int = 360) -> dict:
        """What the page says after it has watched the camera for a while, or that it found none."""
        self._wishes.put({"width": width, "height": height, "count": PICTURES, "seconds": WATCH_TIMEOUT_S})
        return self._told.get(timeout=START_TIMEOUT_S)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._server.shutdown()
        self._server.server_close()
        with contextlib.suppress(OSError):
            self._profile.cleanup()

    def _handler(self):
        browser = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/wish":
                    self._answer("application/json", json.dumps(browser._wishes.get()).encode())
                elif self.path == "/":
                    self._answer("text/html", (Path(__file__).parent / "browser.html").read_bytes())
                else:
                    self.send_error(404)

            def do_POST(self) -> None:
                browser._told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer("text/plain", b"")

            def _answer(self, kind: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_) -> None:
                pass

        return Handler
