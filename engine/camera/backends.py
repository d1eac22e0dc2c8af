"""What runs inside the camera process: one class per way to feed a camera, each with `send` and `close`."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from engine.camera import v4l2
from engine.camera.linux_devices import LinuxSystem, busy_reason, programs_using
from engine.errors import CameraError

_REOPEN_AFTER = 5


class CameraBackend(Protocol):
    """An open camera. Calls may block or crash: that is why they happen in a process of their own."""

    label: str
    device: str

    def send(self, image: np.ndarray) -> None:
        """Show RGB uint8 (height, width, 3). Raises `CameraError`."""
        ...

    def close(self) -> None:
        """Give the device back."""
        ...


class V4l2Camera:
    """Writes I420 straight into a Linux V4L2 output device.

    Five writes that fail in a row reopen the device; if that fails too, `CameraError` with the kernel's reason.
    """

    def __init__(self, device: str, width: int, height: int, fps: int) -> None:
        self.device = device
        self.label = device
        self._size = (width, height)
        self._fps = fps
        self._yuv = np.empty((height * 3 // 2, width), np.uint8)
        self._failures = 0
        self._descriptor = -1
        self._open()

    def send(self, image: np.ndarray) -> None:
        cv2.cvtColor(image, cv2.COLOR_RGB2YUV_I420, dst=self._yuv)
        try:
            written = os.write(self._descriptor, self._yuv.data)
            if written != self._yuv.nbytes:
                raise OSError(errno.EIO, f"{written} of {self._yuv.nbytes} bytes written")
            self._failures = 0
        except OSError as error:
            self._failures += 1
            if self._failures >= _REOPEN_AFTER:
                self._reopen(error)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
            v4l2.repair_loopback(self.device)

    def _open(self) -> None:
        width, height = self._size
        try:
            self._descriptor = os.open(self.device, os.O_RDWR)
            capability = v4l2.query_capability(self._descriptor)
            self.label = capability.card
            if not capability.takes_output:
                raise OSError(errno.EBUSY, "capture only: somebody feeds it")
            taken = v4l2.set_format(self._descriptor, width, height, v4l2.YUV420, self._yuv.nbytes)
        except OSError as error:
            self._drop()
            raise open_error(self.device, error) from error
        if taken != (width, height, v4l2.YUV420):
            self._drop()
            raise format_error(self.device, taken[0], taken[1])
        with contextlib.suppress(OSError):
            # The rate is advice to readers; old drivers refuse it, and the picture is the same.
            v4l2.set_rate(self._descriptor, self._fps)

    def _reopen(self, cause: OSError) -> None:
        self._drop()
        time.sleep(0.2)
        try:
            self._open()
            self._failures = 0
        except CameraError as error:
            raise CameraError(
                f"The camera {self.device} stopped accepting frames ({cause.strerror}).",
                code="camera.write",
                hint=error.hint or "Start the camera again.",
                detail=str(error),
            ) from cause

    def _drop(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class PyvirtualcamCamera:
    """A camera through the library pyvirtualcam (GPLv2; loaded in this process and nowhere else)."""

    def __init__(self, backend: str, device: str, width: int, height: int, fps: int) -> None:
        import pyvirtualcam

        try:
            self._camera = pyvirtualcam.Camera(
                width, height, fps, fmt=pyvirtualcam.PixelFormat.RGB, device=device or None, backend=backend or None
            )
        except (RuntimeError, KeyError) as error:
            raise CameraError(
                "The virtual camera could not be opened.",
                code="camera.open",
                hint="Run standin doctor: it names the cause.",
                detail=str(error),
            ) from error
        self.device = self.label = str(self._camera.device)

    def send(self, image: np.ndarray) -> None:
        self._camera.send(image)

    def close(self) -> None:
        self._camera.close()


def open_backend(backend: str, device: str, width: int, height: int, fps: int) -> CameraBackend:
    """`backend` is "v4l2", "pipewire", "pyvirtualcam", "pyvirtualcam:NAME", or "MODULE:CLASS" of a backend of your own,
    which is called with (device, width, height, fps). Raises `CameraError`."""
    if backend == "v4l2":
        return V4l2Camera(device, width, height, fps)
    if backend == "pipewire":
        from engine.camera.pipewire_camera import PipewireCamera

        return PipewireCamera(device, width, height, fps)
    kind, _, name = backend.partition(":")
    if kind == "pyvirtualcam":
        return PyvirtualcamCamera(name, device, width, height, fps)
    from importlib import import_module

    return getattr(import_module(kind), name)(device, width, height, fps)


def format_error(device: str, width: int, height: int) -> CameraError:
    """The sentence for a device that stays at `width` x `height` whatever is asked of it."""
    watchers = programs_using(LinuxSystem(), Path(device))
    if watchers:
        message = f"{device} stays at {width} x {height} while {' and '.join(watchers)} has it open."
        hint = "Close that program or pick another camera in it, start again, then select this camera there once more."
    else:
        message = f"{device} keeps another picture format ({width} x {height})."
        hint = f"A program of another user has it open, or the driver keeps it: v4l2-ctl -d {device} -c keep_format=0"
    return CameraError(message, code="camera.format", hint=hint)


def open_error(device: str, error: OSError) -> CameraError:
    """The sentence for a device that cannot be opened or set up."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return CameraError(
            f"No permission for {device}.",
            code="camera.permission",
            hint="Run: sudo usermod -aG video $USER, then log out and in.",
        )
    if error.errno == errno.EBUSY:
        reason = busy_reason(LinuxSystem(), Path(device))
        return CameraError(reason.message, code=reason.code, hint=reason.hint)
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return CameraError(
            f"The camera {device} is not there.", code="camera.missing", hint="standin devices lists what there is."
        )
    return CameraError(
        f"The camera {device} could not be set up ({error.strerror or error}).",
        code="camera.setup",
        hint="Run standin doctor: it names the cause.",
    )
