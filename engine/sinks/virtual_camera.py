"""The virtual camera as a sink: finds the device, keeps its process alive, and names the true cause when it cannot."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import time

from engine.camera import v4l2
from engine.camera.linux_devices import list_linux_cameras
from engine.camera.other_devices import list_other_cameras
from engine.camera.pipewire_system import pipewire_camera
from engine.errors import CameraError
from engine.media import CanvasFormat
from engine.protocol.messages import CameraDevice, Reason
from engine.protocol.shared_memory import FrameWriterMemory
from engine.settings import CameraSettings
from engine.sinks.base import PresentedFrame

logger = logging.getLogger(__name__)

_START_TIMEOUT_S, _OPEN_TIMEOUT_S = 30.0, 15.0
"""For the process itself, which is slow to start where other programs take the computer, and then for the driver."""
_HANGS_AFTER_S = 3.0
_CLOSE_TIMEOUT_S = 2.0
_PAUSE_S = 1.0
_LAST_WORDS_S = 3.0
_RESTART_AFTER_S = (0.2, 1.0, 3.0)
_STEADY_S = 30.0
"""After this long without trouble, earlier restarts are forgotten."""


def list_cameras() -> tuple[list[CameraDevice], Reason | None]:
    """Virtual cameras of this system in order of preference, and why none can be used, if so."""
    if not sys.platform.startswith("linux"):
        return list_other_cameras()
    cameras, reason = list_linux_cameras()
    published = pipewire_camera(kernel_reason=reason)
    return [*cameras, published], reason if published.problem is not None else None


def open_camera(settings: CameraSettings) -> VirtualCamera:
    """The camera that `settings` mean, probed but not opened yet. Raises `CameraError` with cause and remedy."""
    if settings.backend not in ("", "v4l2", "pipewire") and not settings.backend.startswith("pyvirtualcam"):
        return VirtualCamera(settings.device, settings.device, settings.backend)
    cameras, reason = list_cameras()
    if settings.backend:
        cameras = [camera for camera in cameras if (camera.backend == "pipewire") == (settings.backend == "pipewire")]
        reason = reason or (list_linux_cameras()[1] if sys.platform.startswith("linux") else None)
    if settings.device:
        cameras = [camera for camera in cameras if settings.device in (camera.device, camera.label)]
        if not cameras:
            raise CameraError(
                f'There is no virtual camera "{settings.device}".',
                code="camera.missing",
                hint=reason.hint if reason is not None else "standin devices lists what there is.",
            )
    usable = [camera for camera in cameras if camera.problem is None or camera.problem.code == "camera.no_output"]
    if not usable:
        # Without a kernel camera, its driver is what is missing; PipeWire's own trouble matters to who asked for it.
        is_asked_for = bool(settings.backend or settings.device)
        problem = cameras[0].problem if cameras and (is_asked_for or reason is None) else reason
        assert problem is not None
        raise CameraError(problem.message, code=problem.code, hint=problem.hint)
    chosen = usable[0]
    if chosen.note is not None:
        logger.warning("%s: %s %s", chosen.label, chosen.note.message, chosen.note.hint)
    if chosen.problem is not None:
        v4l2.repair_loopback(chosen.device)
    return VirtualCamera(chosen.device, chosen.label, settings.backend or chosen.backend)


class VirtualCamera:
    """A `VideoSink` that hands frames to a camera process. A process that hangs or dies is replaced, with growing
    patience; when the third replacement fails too, `send` raises what the process said."""

    name = "camera"
    is_real_time = True  # what it does takes a millisecond, and others watch
    open_timeout_s = _START_TIMEOUT_S + _OPEN_TIMEOUT_S + 5.0  # more than its own limits, which name the cause

    def __init__(self, device: str, label: str, backend: str) -> None:
        self.device: str = device
        self.label: str = label
        self.backend: str = backend
        self.restarts = 0
        self._lost = 0
        self._memory: FrameWriterMemory | None = None
        self._child: _CameraChild | None = None
        self._attempt = 0
        self._next_try_s = 0.0
        self._good_since_s = 0.0

    @property
    def lost(self) -> int:
        """Pictures that did not get from here to the camera, as far as its process has told (twice a second)."""
        child = self._child
        return self._lost + (child.lost if child is not None else 0)

    def open(self, canvas: CanvasFormat) -> None:
        """Start the process and wait until it has the device."""
        self._canvas = canvas
        self._memory = FrameWriterMemory(canvas.width, canvas.height)
        self._child = self._started()
        opened = self._child.wait_opened()
        if self.backend.startswith("pyvirtualcam"):
            self.device = opened.get("device", self.device)
            self.label = self.label or opened.get("label", "")

    def send(self, frame: PresentedFrame) -> None:
        """Publish the frame; replaces the process where it is needed."""
        assert self._memory is not None
        sequence = self._memory.write(frame.image, extra=frame.tick)
        now_s = time.monotonic()
        if self._child is not None:
            self._child.notify(sequence)
            trouble = self._child.trouble(now_s)
            if trouble is None:
                if self._attempt and now_s - self._good_since_s > _STEADY_S:
                    self._attempt = 0
                return
            self._give_up_on(trouble, now_s)
            return
        self._lost += 1
        if now_s >= self._next_try_s:
            self._restart(now_s)

    def close(self) -> None:
        """End the process and remove the memory."""
        child, self._child = self._child, None
        if child is not None:
            child.end()
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()

    def _started(self) -> _CameraChild:
        assert self._memory is not None
        return _CameraChild(
            {
                "memory": self._memory.name,
                "backend": self.backend,
                "device": self.device,
                "width": self._canvas.width,
                "height": self._canvas.height,
                "fps": self._canvas.fps,
            }
        )

    def _give_up_on(self, trouble: CameraError, now_s: float) -> None:
        logger.warning("the camera process is replaced: %s %s", trouble, trouble.detail)
        assert self._child is not None
        self._child.end(at_once=True)
        self._lost += self._child.lost
        self._child = None
        if self._attempt >= len(_RESTART_AFTER_S):
            raise trouble
        self._next_try_s = now_s + _RESTART_AFTER_S[self._attempt]
        self._attempt += 1
        self.restarts += 1

    def _restart(self, now_s: float) -> None:
        if sys.platform.startswith("linux") and self.backend == "v4l2":
            v4l2.repair_loopback(self.device)
        self._child = self._started()
        self._good_since_s = now_s


class _CameraChild:
    """One camera process: notified by a byte per frame, heard through its reports."""

    def __init__(self, config: dict) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engine.camera.process", json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self._process.stdin is not None
        if sys.platform != "win32":  # there, a full pipe would need 4096 unread notices to block
            os.set_blocking(self._process.stdin.fileno(), False)
        self._started, self._opened = threading.Event(), threading.Event()
        self._label: dict = {}
        self.lost = 0
        """Pictures that the process did not get, or the camera not from it."""
        self._error: CameraError | None = None
        # Since when a report is due: at first from the start, then from the oldest notice that none came after. Time in
        # which no notices came (an engine that was stopped for a while) does not count.
        self._notified_s = time.monotonic()
        self._asked_s: float | None = self._notified_s
        self._listener = threading.Thread(target=self._listen, name="camera-reports", daemon=True)
        self._listener.start()

    def wait_opened(self) -> dict:
        """What the process opened; raises what it said, or that it does not start, or that the driver hangs."""
        if not self._started.wait(_START_TIMEOUT_S):
            self.end(at_once=True)
            raise _too_slow()
        if not self._opened.wait(_OPEN_TIMEOUT_S):
            self.end(at_once=True)
            raise CameraError(
                f"The camera did not open within {_OPEN_TIMEOUT_S:g} seconds.",
                code="camera.hangs",
                hint="Reload its driver, or restart the computer.",
            )
        if self._error is not None:
            self.end(at_once=True)
            raise self._error
        return self._label

    def notify(self, sequence: int) -> None:
        """Say that a frame is there; never waits."""
        assert self._process.stdin is not None
        now_s = time.monotonic()
        if self._asked_s is None or now_s - self._notified_s > _PAUSE_S:
            self._asked_s = now_s
        self._notified_s = now_s
        try:
            self._process.stdin.write(b"\n")
        except BlockingIOError:
            pass  # it has thousands of notices already; the newest picture is what it will find
        except OSError:
            pass  # gone; `trouble` tells

    def trouble(self, now_s: float) -> CameraError | None:
        """Why this process is of no more use, if so."""
        if self._error is not None:
            return self._error
        if self._process.poll() is not None:
            self._listener.join(_LAST_WORDS_S)  # what it said may still be on its way
            return self._error or CameraError(
                "The camera process ended unexpectedly.",
                code="camera.died",
                hint="Start the camera again.",
                detail=f"exit status {self._process.returncode}",
            )
        asked_s = self._asked_s
        if not self._started.is_set():
            return _too_slow() if asked_s is not None and now_s - asked_s > _START_TIMEOUT_S else None
        limit_s = _HANGS_AFTER_S if self._opened.is_set() else _OPEN_TIMEOUT_S
        if asked_s is not None and now_s - asked_s > limit_s:
            return CameraError(
                "The camera driver does not answer.",
                code="camera.hangs",
                hint="Reload its driver, or restart the computer.",
            )
        return None

    def end(self, *, at_once: bool = False) -> None:
        """Ask, wait, terminate, kill; the process gives its device back when asked."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        for stop in (lambda: None, process.terminate, process.kill) if not at_once else (process.kill,):
            stop()
            try:
                process.wait(_CLOSE_TIMEOUT_S)
                break
            except subprocess.TimeoutExpired:
                continue
        self._listener.join(_CLOSE_TIMEOUT_S)
        process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._asked_s = None
            try:
                message = json.loads(line)
            except ValueError:
                logger.warning("the camera process said %r", line[:200])
                continue
            self.lost = message.get("lost", self.lost)
            if "started" in message:
                self._asked_s = time.monotonic()  # to open the camera
                self._started.set()
            elif "opened" in message:
                self._label = message["opened"]
                self._opened.set()
            elif "error" in message:
                said = message["error"]
                self._error = CameraError(
                    said["message"], code=said["code"], hint=said["hint"], detail=said.get("detail", "")
                )
                self._opened.set()
        if not self._opened.is_set():
            self._error = self._error or CameraError(
                "The camera process ended before it had the camera.", code="camera.died", hint="Run standin doctor."
            )
            self._opened.set()
        self._started.set()


def _too_slow() -> CameraError:
    return CameraError(
        f"The camera process did not start within {_START_TIMEOUT_S:g} seconds.",
        code="camera.hangs",
        hint="Close programs that keep this computer busy, and start the camera again.",
    )
