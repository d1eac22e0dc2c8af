"""A real engine process whose standard input is given damaged control lines."""

from __future__ import annotations

import json
import os
import queue
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
from mutations import nested
from targets import ROOT, control_corpus, damaged_json

_ANSWER_S = 30.0
_MEMORY_BYTES = 1 << 30
_BATCH = 25
_PING = 7_000_000


class _Engine:
    """`standin serve` with a home of its own, so that nothing of the user's is touched."""

    def __init__(self, home: Path) -> None:
        names = ("HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **dict.fromkeys(names, str(home))}
        self.errors = (home / "stderr.txt").open("wb")
        command = [sys.executable, "-m", "engine", "serve"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, cwd=home, env=environment
        )
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.put(json.loads(line))
        self.events.put(None)

    def exchange(self, lines: list[bytes], ping: int) -> list[dict[str, Any]]:
        """What is said until `stop` after these lines is answered. Raises `AssertionError` if the engine falls silent
        or ends."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(line.replace(b"\n", b" ") + b"\n" for line in lines))
        self.process.stdin.write(b'{"type": "stop", "id": %d}\n' % ping)
        self.process.stdin.flush()
        said: list[dict[str, Any]] = []
        end_s = time.monotonic() + _ANSWER_S
        while True:
            try:
                event = self.events.get(timeout=max(0.0, end_s - time.monotonic()))
            except queue.Empty:
                raise AssertionError("hangs") from None
            assert event is not None, f"ended with {self.process.wait()}"
            said.append(event)
            if event["type"] == "reply" and event["id"] == ping:
                return said

    def close(self) -> None:
        """End of input, then by force."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()


def fuzz_control(seconds: float, seed: int, *, is_replay: bool) -> int:
    """Batches until the time is over; 1 if anything was found."""
    rng = random.Random(seed)
    seeds = Path(__file__).parent / "seeds" / "control"
    corpus = control_corpus()
    kept = [path.read_bytes() for path in sorted(seeds.glob("*"))]
    kept += [b'{"id": 1, "type": "ping", "x": "%s"}' % (b"a" * size) for size in (900_000, 1 << 20, 5 << 20)]
    kept += [b'{"id": 1, "type": "start", "settings": %s}' % nested(9000, is_list=False).encode()]
    end_s, count, findings, ping = time.monotonic() + seconds, 0, 0, _PING
    with tempfile.TemporaryDirectory(prefix="standin-fuzz-") as folder:
        engine = _Engine(Path(folder))
        batch = [line for line in corpus + kept if not _is_refused_here(line)]
        while True:
            ping += 1
            count += len(batch)
            problem = _problem(engine, batch, ping)
            if problem:
                findings += 1
                name = _keep(batch)
                print(f"FINDING {name}: {problem}", file=sys.stderr, flush=True)
                engine.close()
                engine = _Engine(Path(folder))
            if is_replay or time.monotonic() > end_s:
                break
            drawn = [damaged_json(rng, rng.choice(corpus)) for _ in range(_BATCH)]
            batch = [line for line in drawn if not _is_refused_here(line)]
        engine.close()
    print(f"control: {count} lines, {findings} findings, seed {seed}")
    return 1 if findings else 0


def _problem(engine: _Engine, batch: list[bytes], ping: int) -> str:
    try:
        said = engine.exchange(batch, ping)
        _check_answers(batch, said, ping)
        assert psutil.Process(engine.process.pid).memory_info().rss < _MEMORY_BYTES, "takes more than 1 GB"
    except (AssertionError, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _check_answers(batch: list[bytes], said: list[dict[str, Any]], ping: int) -> None:
    """As many answers as lines: a reply to each, or a notice where a line has no usable id."""
    replies = [event for event in said if event["type"] == "reply" and not _PING < event["id"] <= ping]
    odd = [event for event in replies if (event["error"] or {}).get("code") == "internal"]
    assert not odd, f"internal error: {odd[0]['error']['message'][:300]}"
    unanswered = sum(
        1 for event in said if event["type"] == "noticed" and event["reason"]["code"] in ("protocol", "usage")
    )
    expected = sum(1 for line in batch if line.replace(b"\n", b" ").strip())
    ids = Counter(event["id"] for event in replies)
    assert len(replies) + unanswered == expected, f"{len(replies)} + {unanswered} answers to {expected} lines: {ids}"


def _is_refused_here(line: bytes) -> bool:
    """Lines that rightly end the engine, or write outside the folder of the run."""
    return b"shutdown" in line or b'"path": "/' in line or b".." in line


def _keep(batch: list[bytes]) -> Path:
    path = Path(tempfile.mkdtemp(prefix="standin-fuzz-control-"))
    for number, line in enumerate(batch):
        (path / f"{number:02d}").write_bytes(line)
    return path
