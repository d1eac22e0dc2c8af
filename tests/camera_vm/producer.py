"""Feeds a camera with numbered pictures in real time, through the product's own sink or straight through pyvirtualcam.

    producer.py sink|pyvirtualcam DEVICE [--size WxH] [--fps N] [--backend NAME]

One line of JSON when the camera is open or refused, one for each fault on the way, one with figures when standard
input ends, which ends it. `restarts` are replaced camera processes.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pictures


class SinkFeed:
    """The virtual camera of `standin live`."""

    def __init__(self, arguments: argparse.Namespace, width: int, height: int) -> None:
        from engine.media import CanvasFormat
        from engine.settings import CameraSettings
        from engine.sinks.virtual_camera import open_camera

        self._camera = open_camera(CameraSettings(device=arguments.device, backend=arguments.backend))
        self._camera.open(CanvasFormat(width=width, height=height, fps=arguments.fps))

    @property
    def facts(self) -> dict:
        camera = self._camera
        return {"device": camera.device, "label": camera.label, "backend": camera.backend, "restarts": camera.restarts}

    def send(self, picture, number: int) -> None:
        from engine.sinks.base import PresentedFrame

        self._camera.send(PresentedFrame(image=picture, tick=number, frame=number, due_s=time.monotonic()))

    def close(self) -> None:
        self._camera.close()


class PyvirtualcamFeed:
    """Another program that feeds a camera: pyvirtualcam and nothing of ours."""

    def __init__(self, arguments: argparse.Namespace, width: int, height: int) -> None:
        import pyvirtualcam

        self._camera = pyvirtualcam.Camera(width, height, arguments.fps, device=arguments.device)
        self.facts = {"device": self._camera.device, "backend": self._camera.backend}

    def send(self, picture, number: int) -> None:
        self._camera.send(picture)

    def close(self) -> None:
        self._camera.close()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("through", choices=("sink", "pyvirtualcam"))
    parser.add_argument("device")
    parser.add_argument("--size", default="640x360")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--backend", default="")
    arguments = parser.parse_args()
    width, height = (int(part) for part in arguments.size.split("x"))
    feed_of = SinkFeed if arguments.through == "sink" else PyvirtualcamFeed
    try:
        feed = feed_of(arguments, width, height)
    except Exception as error:  # noqa: BLE001 - told to the test
        say(refused=told(error))
        return 1
    say(opened=feed.facts)
    try:
        sent, late = run(feed, width, height, arguments.fps)
    finally:
        feed.close()
    say(sent=sent, late=late, **feed.facts)
    return 0


def run(feed: SinkFeed | PyvirtualcamFeed, width: int, height: int, fps: int) -> tuple[int, int]:
    """Numbers follow the clock: a picture that could not be sent in time is left out, so gaps show."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    started_s, number, sent, late = time.monotonic(), 0, 0, 0
    picture = pictures.draw(0, width, height)
    while not ended.wait(max(0.0, started_s + number / fps - time.monotonic())):
        try:
            feed.send(picture, number)
            sent += 1
        except Exception as error:  # noqa: BLE001 - told to the test
            say(failed=told(error), number=number)
            return sent, late
        following = max(number + 1, int((time.monotonic() - started_s) * fps))
        late += following - number - 1
        number = following
        picture = pictures.draw(number, width, height)
    return sent, late


def told(error: Exception) -> dict:
    return {name: str(getattr(error, name, "")) for name in ("code", "hint", "detail")} | {"message": str(error)}


def say(**message) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
