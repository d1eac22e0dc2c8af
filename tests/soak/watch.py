"""What others see and hear, noted as it arrives: run beside the product, as programs that know nothing of it.

    watch.py camera FILE WIDTH HEIGHT    "time number brightness" for each picture of the PipeWire camera
    watch.py sound FILE SOURCE           "time" for each click at a source of the sound server
    watch.py play SINK                   clicks into a sink, for ever

Times are monotonic seconds. Each begins again when its server or its camera has gone away.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import marks
import numpy as np

RATE_HZ = 48_000
NODE = "standin-camera"
_PIPE_BYTES = 1 << 20
_GIVE_UP_S = 2.5
_LOUD = 0.2
_QUIET_S = 0.2
_REALTIME = 5


def main() -> None:
    """Until killed. What is measured must not depend on how busy the machine is, where that can be had."""
    kind, *rest = sys.argv[1:]
    if kind != "play":
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_REALTIME))
    if kind == "camera":
        watch_camera(Path(rest[0]), int(rest[1]), int(rest[2]))
    elif kind == "sound":
        hear(Path(rest[0]), rest[1])
    else:
        play(rest[0])


def watch_camera(path: Path, width: int, height: int) -> None:
    """One viewer after another, each until it ends or shows nothing for a while."""
    with path.open("w", buffering=1) as log:
        while True:
            _View(log, path.with_suffix(".pid"), width, height).run()
            time.sleep(0.1)


class _View:
    """GStreamer's viewer of PipeWire cameras, and the row of marks in each picture."""

    def __init__(self, log, pid_file: Path, width: int, height: int) -> None:
        self._log, self._height = log, height
        self._patience = pid_file.with_suffix(".patience")
        self._picture = bytearray(2 * width * height)
        self._seen_s = time.monotonic()
        self._process = subprocess.Popen(
            ["gst-launch-1.0", "-q", "pipewiresrc", f"target-object={NODE}", "!", "video/x-raw,format=YUY2",
             "!", "fdsink", "fd=1"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        with contextlib.suppress(OSError):
            fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        pid_file.write_text(str(self._process.pid))

    def run(self) -> None:
        """Note pictures until there are no more."""
        threading.Thread(target=self._guard, daemon=True).start()
        luma = np.frombuffer(self._picture, np.uint8).reshape(self._height, -1)[self._height // 2, ::2]
        while self._process.stdout.readinto(self._picture) == len(self._picture):
            self._seen_s = time.monotonic()
            found = marks.read(luma) or (-1, 0)
            self._log.write(f"{self._seen_s:.4f} {found[0]} {found[1]}\n")
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def _guard(self) -> None:
        """End a viewer of a camera that is gone; it is let alone where it is stopped from outside, or told to wait."""
        while self._process.poll() is None:
            time.sleep(0.25)
            if _is_stopped(self._process.pid) or self._patience.exists():
                self._seen_s = time.monotonic()
            elif time.monotonic() - self._seen_s > _GIVE_UP_S:
                self._process.kill()


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


def hear(path: Path, source: str) -> None:
    """Note when each click begins."""
    from engine.audio.pulse_stream import PulseError, PulseRecording

    with path.open("w", buffering=1) as log:
        while True:
            try:
                recording = PulseRecording(source, RATE_HZ)
            except PulseError:
                time.sleep(0.1)
                continue
            with contextlib.suppress(PulseError):
                _note_clicks(recording, log)
            recording.close()


def _note_clicks(recording, log) -> None:
    """Until the connection ends, or there are none any more: then the source is another one than was wanted."""
    quiet_s = 0.0
    while quiet_s < _GIVE_UP_S:
        samples, at_s = recording.read()
        loud = np.flatnonzero(np.abs(samples[:, 0]) > _LOUD)
        if len(loud) and quiet_s > _QUIET_S:
            log.write(f"{at_s + loud[0] / RATE_HZ:.4f}\n")
        quiet_s = 0.0 if len(loud) else quiet_s + len(samples) / RATE_HZ


def play(sink: str) -> None:
    """A click of 5 ms every 0.6 to 0.9 s, unevenly, so that none is taken for another."""
    command = ["pacat", "--raw", "-d", sink, "--format=float32le", f"--rate={RATE_HZ}", "--channels=1"]
    click = (0.5 * np.sign(np.sin(2 * np.pi * 1000 * (np.arange(240) + 0.5) / RATE_HZ))).astype(np.float32)
    rng = np.random.default_rng(0)
    while True:
        out = subprocess.Popen(
            [*command, "--latency-msec=20"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        with contextlib.suppress(OSError):
            while True:
                sound = np.zeros(int(rng.uniform(0.6, 0.9) * RATE_HZ), np.float32)
                sound[: len(click)] = click
                _write_all(out.stdin, sound.tobytes())
        out.kill()
        out.wait()
        with contextlib.suppress(OSError):
            out.stdin.close()
        time.sleep(0.2)


def _write_all(pipe, data: bytes) -> None:
    while data:
        data = data[pipe.write(data) :]


if __name__ == "__main__":
    main()
