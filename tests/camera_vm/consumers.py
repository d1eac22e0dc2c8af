"""Programs that watch a camera, and what they saw of numbered pictures."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SETTLED = 8
"""The first pictures that a program gets are left out: it catches up with what waits in the driver's two buffers, which
meanwhile are written to again, so that they may come twice, torn or in another order."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The pictures that a program got. `numbers` in order of arrival, None for a torn one; `times_s` monotonic."""

    numbers: list[int | None]
    times_s: list[float]
    width: int
    height: int
    colour_error: int
    notes: dict = field(default_factory=dict)

    @property
    def new_numbers(self) -> list[int]:
        """Without torn pictures and without a number that is there twice in a row."""
        whole = [number for number in self.numbers if number is not None]
        return [number for index, number in enumerate(whole) if index == 0 or number != whole[index - 1]]

    @property
    def torn(self) -> int:
        return self.numbers.count(None)

    @property
    def sent_fps(self) -> float:
        """How fast the numbers ran, which is the producer's rate as seen from here."""
        pairs = [(n, t) for n, t in zip(self.numbers, self.times_s, strict=True) if n is not None]
        return (pairs[-1][0] - pairs[0][0]) / (pairs[-1][1] - pairs[0][1])

    @property
    def seen_fps(self) -> float:
        """How many different pictures arrived in a second."""
        return (len(self.new_numbers) - 1) / (self.times_s[-1] - self.times_s[0])

    @property
    def share(self) -> float:
        """Of the pictures that were sent between the first and the last one seen, how many were seen."""
        new = self.new_numbers
        return len(new) / (new[-1] - new[0] + 1)

    def figures(self) -> dict:
        return {
            "pictures": len(self.numbers), "torn": self.torn, "sent_fps": round(self.sent_fps, 2),
            "seen_fps": round(self.seen_fps, 2), "share": round(self.share, 3), "size": [self.width, self.height],
            "colour_error": self.colour_error, **self.notes,
        }  # fmt: skip


class FfmpegReader:
    """ffmpeg reading a camera; pictures are taken from its output as they come, as I420."""

    def __init__(self, device: str, width: int, height: int) -> None:
        self.size = (width, height)
        self._left_out = 0
        self._said: str | None = None
        self._process = subprocess.Popen(
            ["ffmpeg", "-hide_banner", "-nostdin", "-nostats", "-f", "v4l2", "-i", device, "-fps_mode", "passthrough",
             "-f", "rawvideo", "-pix_fmt", "yuv420p", "pipe:1"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    def read(self, count: int) -> Seen:
        """The next `count` pictures."""
        import cv2
        import pictures

        width, height = self.size
        while self._left_out < SETTLED:
            self.picture()
            self._left_out += 1
        numbers, times_s = [], []
        for _ in range(count):
            last = self.picture()
            numbers.append(pictures.read_number(last[:height]))
            times_s.append(time.monotonic())
        error = pictures.worst_colour_error(cv2.cvtColor(last, cv2.COLOR_YUV2RGB_I420))
        return Seen(numbers=numbers, times_s=times_s, width=width, height=height, colour_error=error)

    def picture(self) -> np.ndarray:
        """The next picture as I420, uint8 (height * 3 / 2, width)."""
        width, height = self.size
        data = self._process.stdout.read(width * height * 3 // 2)
        if len(data) < width * height * 3 // 2:
            raise AssertionError(f"ffmpeg saw too little: {self.close()}")
        return np.frombuffer(data, np.uint8).reshape(height * 3 // 2, width)

    def close(self) -> str:
        """End it; returns what it said."""
        if self._said is None:
            self._process.kill()
            _, said = self._process.communicate()
            self._said = said.decode(errors="replace")
        return self._said

    def kill(self) -> None:
        """Let whoever waits for a picture see its end."""
        self._process.kill()

    def __enter__(self) -> FfmpegReader:
        return self

    def __exit__(self, *_) -> None:
        self.close()


def watch_with_ffmpeg(device: str, count: int, width: int = 640, height: int = 360) -> Seen:
    with FfmpegReader(device, width, height) as reader:
        seen = reader.read(count)
        said = reader.close()
    line = next(line for line in said.splitlines() if "Video:" in line)
    assert f"{width}x{height}" in line, line
    return Seen(**{**seen.__dict__, "notes": {"stream": line.split("Video:")[1].strip()}})


def watch_with_opencv(device: str, count: int) -> Seen:
    """OpenCV's own V4L2 reader, in this process."""
    import cv2
    import pictures

    capture = cv2.VideoCapture(device, cv2.CAP_V4L2)
    try:
        assert capture.isOpened()
        numbers, times_s, picture = [], [], None
        for index in range(SETTLED + count):
            ok, picture = capture.read()
            assert ok and picture is not None
            if index < SETTLED:
                continue
            numbers.append(pictures.read_number(picture[:, :, 1]))
            times_s.append(time.monotonic())
        height, width = picture.shape[:2]
        error = pictures.worst_colour_error(picture[:, :, ::-1])
        notes = {"told_fps": capture.get(cv2.CAP_PROP_FPS)}
    finally:
        capture.release()
    return Seen(numbers=numbers, times_s=times_s, width=width, height=height, colour_error=error, notes=notes)


def watch_with_v4l2_ctl(device: str, count: int, folder: Path, width: int = 640, height: int = 360) -> Seen:
    """v4l2-ctl into a file. It has no times for pictures: they are spread over its run."""
    import cv2
    import pictures

    file = folder / "v4l2-ctl.yuv"
    started_s = time.monotonic()
    done = subprocess.run(
        ["v4l2-ctl", "-d", device, "--stream-mmap", f"--stream-count={SETTLED + count}", f"--stream-to={file}"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    ended_s = time.monotonic()
    assert done.returncode == 0, done.stdout + done.stderr
    data = np.fromfile(file, np.uint8)
    file.unlink()
    frames = data.reshape(-1, height * 3 // 2, width)[SETTLED:]
    numbers = [pictures.read_number(frame[:height]) for frame in frames]
    error = pictures.worst_colour_error(cv2.cvtColor(frames[-1], cv2.COLOR_YUV2RGB_I420))
    times_s = list(np.linspace(started_s, ended_s, len(frames)))
    return Seen(numbers=numbers, times_s=times_s, width=width, height=height, colour_error=error)


def ask_v4l2_ctl(device: str, *questions: str) -> str:
    """What v4l2-ctl answers."""
    return subprocess.run(
        ["v4l2-ctl", "-d", device, *questions], capture_output=True, text=True, timeout=30, check=True
    ).stdout


def wait_for_pictures(device: str, timeout_s: float = 20.0) -> None:
    """Until the driver says that there is something to watch."""
    node = Path("/sys/class/video4linux") / Path(device).name
    end_s = time.monotonic() + timeout_s
    while True:
        state = node / "state"
        if state.read_text().strip() == "capture" if state.exists() else (node / "format").read_text().strip():
            return
        assert time.monotonic() < end_s, f"no picture came to {device}"
        time.sleep(0.02)


class Producer:
    """producer.py in a process of its own."""

    def __init__(self, through: str, device: str, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "producer.py"), through, device, *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def said(self) -> dict:
        """Its next line; empty when it has ended."""
        line = self.process.stdout.readline()
        return json.loads(line) if line else {}

    def opened(self) -> dict:
        """What it opened, once its first picture is there; fails if it was refused."""
        said = self.said()
        assert "opened" in said, said
        wait_for_pictures(said["opened"]["device"])
        return said["opened"]

    def refused(self) -> dict:
        """Why it could not open the camera; fails if it could."""
        said = self.said()
        assert "refused" in said, said
        self.close()
        return said["refused"]

    def stop(self) -> dict:
        """End it as the product ends; its last words."""
        self.process.stdin.close()
        said = self.said()
        self.process.wait(20)
        self.close()
        return said

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            pipe.close()
