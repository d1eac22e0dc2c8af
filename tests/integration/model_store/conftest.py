"""A hub on this machine: as much of the Hugging Face protocol as downloads use, and ways to misbehave."""

from __future__ import annotations

import hashlib
import http.server
import json
import random
import re
import threading
import time
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field

import pytest

LARGE_BYTES = 10_000
"""From this size on a file is kept in large file storage: it has a SHA-256, and is served from elsewhere."""


@dataclass
class Repository:
    """One commit, which `main` means."""

    files: dict[str, bytes]
    commit: str = "a1" * 20
    licence: str = "apache-2.0"


@dataclass
class Fault:
    """What goes wrong with the next `times` requests whose path contains `path` (and method GET). Nothing from byte
    `gate_at` of the file on is sent before `gate` is set."""

    path: str
    times: int = 1
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    page: bytes = b""
    cut_after: int | None = None
    wrong_at: int | None = None
    extra_bytes: int = 0
    stall_s: float = 0.0
    pause_s: float = 0.0
    piece_bytes: int = 1 << 16
    gate_at: int | None = None
    gate: threading.Event = field(default_factory=threading.Event)


class Hub:
    """Thread-safe enough: tests set it up before and read it after. `served` counts the bytes sent per path."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.served: Counter[str] = Counter()
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.has_ranges = True
        self.lists_sizes = True
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        # Another name of the same machine, so that a redirect leads to another host, as the real one's do.
        self.storage_address = f"http://localhost:{self._server.server_port}"

    def fault_for(self, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.path in path and fault.times > 0:
                fault.times -= 1
                return fault
        return None

    def served_of(self, name: str) -> int:
        return sum(count for path, count in self.served.items() if path.endswith(name))

    def listing(self, repository: Repository) -> list[dict]:
        return [_description(path, content, with_size=self.lists_sizes) for path, content in repository.files.items()]

    def stop(self) -> None:
        for fault in self.faults:
            fault.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def _description(path: str, content: bytes, *, with_size: bool) -> dict:
    entry: dict = {"rfilename": path, "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()}
    if len(content) >= LARGE_BYTES:
        entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        entry["blobId"] = "0" * 40
    if with_size:
        entry["size"] = len(content)
    else:
        entry = {"rfilename": path}
    return entry


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_request) -> None:
        """Clients that go away are what is tested here."""


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    # Otherwise every answer waits 40 ms for an acknowledgement.
    disable_nagle_algorithm = True

    def log_message(self, *_arguments) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(parts.path)
        self.hub.requests.append((self.command, path, {key.lower(): value for key, value in self.headers.items()}))
        fault = self.hub.fault_for(path) if self.command == "GET" else None
        if fault is not None and fault.status:
            self._json({"error": "as asked"}, fault.status, fault.headers)
        elif fault is not None and fault.page:
            self._send(fault.page, path, {"Content-Type": "text/html"}, None)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", path):
            self._list(*match.groups())
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(*match.groups(), fault)
        elif match := re.fullmatch(r"/storage/([^/]+/[^/]+)/(.+)", path):
            self._send(self.hub.repositories[match[1]].files[match[2]], path, {}, fault)
        else:
            self._json({}, 404, {})

    def _repository(self, name: str, revision: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            # The real one answers so, to keep private names private.
            self._json({}, 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif revision not in ("main", repository.commit):
            self._json({}, 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
            return None
        return repository

    def _list(self, name: str, kind: str, revision: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        if kind == "tree":
            entries = [_description(path, data, with_size=True) for path, data in repository.files.items()]
            tree = [{"type": "file", "path": e["rfilename"], "oid": e["blobId"], "size": e["size"]} for e in entries]
            for described, entry in zip(tree, entries, strict=True):
                if "lfs" in entry:
                    described["lfs"] = {**entry["lfs"], "oid": entry["lfs"]["sha256"]}
            self._json([{"type": "directory", "path": "some", "oid": "1" * 40}, *tree], 200, {})
            return
        card = {"cardData": {"license": repository.licence}} if repository.licence else {}
        answer = {"id": name, "sha": repository.commit, "siblings": self.hub.listing(repository), "tags": [], **card}
        self._json(answer, 200, {})

    def _resolve(self, name: str, revision: str, path: str, fault: Fault | None) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        if path not in repository.files:
            self._json({}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        content = repository.files[path]
        digest = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{digest}"'}
        if len(content) < LARGE_BYTES:
            self._send(content, self.path, headers, fault)
            return
        if fault is not None:
            # It is meant for where the bytes come from.
            fault.times += 1
        headers |= {
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": f'"{digest}"',
            "Location": f"{self.hub.storage_address}/storage/{name}/{urllib.parse.quote(path)}",
        }
        self._json({}, 302, headers)

    def _send(self, content: bytes, path: str, headers: dict[str, str], fault: Fault | None) -> None:
        fault = fault or Fault(path="")
        if fault.wrong_at is not None:
            changed = bytearray(content)
            changed[fault.wrong_at] ^= 1
            content = bytes(changed)
        content += bytes(fault.extra_bytes)
        status, start = 200, 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and self.hub.has_ranges:
            status, start = 206, int(asked[1])
            if start >= len(content):
                self._json({}, 416, {"Content-Range": f"bytes */{len(content)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content) - start)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        time.sleep(fault.stall_s)
        end = len(content) if fault.cut_after is None else fault.cut_after
        for begin in range(start, end, fault.piece_bytes):
            if fault.gate_at is not None and begin >= fault.gate_at:
                fault.gate.wait()
            piece = content[begin : min(begin + fault.piece_bytes, end)]
            self.hub.served[path] += len(piece)  # before it is sent: whoever has the file looks at once
            try:
                self.wfile.write(piece)
            except OSError:
                self.close_connection = True
                return
            if fault.pause_s:
                time.sleep(fault.pause_s)
        if end < len(content):
            self.close_connection = True

    def _json(self, content: object, status: int, headers: dict[str, str]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for key, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def fault():
    """Makes a `Fault`."""
    return Fault


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub with the two repositories of the catalogue, as laid out there, their large files some 100 kB."""
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is in the extra gpu")
    for name in ("HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    numbers = random.Random(1)
    server = Hub()
    server.repositories["Soul-AILab/SoulX-FlashTalk-14B"] = Repository(
        files={
            ".gitattributes": b"*.pth filter=lfs",
            "README.md": b"# a model",
            "LICENSE": b"the licence",
            "assets/picture 1.png": numbers.randbytes(20_000),
            "config.json": b'{"model_type": "i2v"}',
            "diffusion_pytorch_model-00001-of-00002.safetensors": numbers.randbytes(200_000),
            "diffusion_pytorch_model-00002-of-00002.safetensors": numbers.randbytes(150_000),
            "diffusion_pytorch_model.safetensors.index.json": b'{"weight_map": {}}',
            "models_t5_umt5-xxl-enc-bf16.pth": numbers.randbytes(120_000),
            "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth": numbers.randbytes(90_000),
            "Wan2.1_VAE.pth": numbers.randbytes(50_000),
            "google/umt5-xxl/tokenizer.json": b"{}" * 100,
            "google/umt5-xxl/tokenizer_config.json": b"{}",
            "xlm-roberta-large/tokenizer.json": b"{}",
        }
    )
    server.repositories["TencentGameMate/chinese-wav2vec2-base"] = Repository(
        files={
            "config.json": b'{"model_type": "wav2vec2"}',
            "preprocessor_config.json": b"{}",
            "pytorch_model.bin": numbers.randbytes(60_000),
            "chinese-wav2vec2-base-fairseq-ckpt.pt": numbers.randbytes(30_000),
        },
        commit="3991242c806928916fff4a8c0e4f76acf661b743",
        licence="mit",
    )
    yield server
    server.stop()
