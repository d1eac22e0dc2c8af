"""Where a session's pictures go: preview, camera, recording and snapshot, each with its mailbox."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import StandinError, UsageError
from engine.media import CanvasFormat
from engine.protocol.codec import reason_of
from engine.protocol.messages import CameraChanged, PreviewOpened, Reason, RecordingChanged, SinkStats
from engine.settings import CameraSettings
from engine.sinks.base import PresentedFrame, VideoSink
from engine.sinks.mailbox import Mailbox
from engine.sinks.recorder import Recorder
from engine.sinks.snapshot import write_snapshot
from engine.stream.reporter import Reporter

if TYPE_CHECKING:
    from engine.sinks.virtual_camera import VirtualCamera

_OPEN_TIMEOUT_S = 10.0
_SNAPSHOT_TIMEOUT_S = 2.0
_RECORDER_SLOTS = 25
"""A second: encoders stall for a moment now and then, and a recording should lack nothing."""

_COMPLETE_S, _COMPLETE_AT_END_S = 5.0, 60.0
"""A file on a slow disk takes a while to be completed. The session goes on after the first; at its end, a recording is
waited for longer, because nobody else would complete it."""


class Outputs:
    """Methods are called by the session's thread, except `present` (the pacer's) and `drop_failed` (statistics).

    `let_record` is told which recorder is to be given the sound from now on, None for none.
    """

    def __init__(self, canvas: CanvasFormat, reporter: Reporter, let_record: Callable[[Recorder | None], None]) -> None:
        self._canvas, self._reporter, self._let_record = canvas, reporter, let_record
        self._boxes: dict[str, Mailbox] = {}  # replaced whole, so that the pacer may go through it at any time
        self._camera_names: tuple[str, ...] = ()
        self._completing: Mailbox | None = None
        self._wanted_snapshot: threading.Event | None = None
        self._snapshot: np.ndarray | None = None

    @property
    def camera_devices(self) -> frozenset[str]:
        """Devices that this session feeds."""
        return frozenset(name for name in self._camera_names if name) if "camera" in self._boxes else frozenset()

    def present(self, frame: PresentedFrame) -> None:
        """Hand a picture to everybody; never waits for any of them."""
        for box in self._boxes.values():
            box.put(frame)
        wanted = self._wanted_snapshot
        if wanted is not None:
            self._wanted_snapshot = None
            self._snapshot = np.array(frame.image)
            wanted.set()

    def stats(self) -> dict[str, SinkStats]:
        """Counters of each sink."""
        return {name: box.stats() for name, box in self._boxes.items()}

    def open_preview(self) -> None:
        """Let others read the picture from shared memory."""
        from engine.sinks.preview import PreviewSink

        sink = PreviewSink()
        self._open("preview", sink)
        canvas = self._canvas
        self._reporter.emit(PreviewOpened(memory_name=sink.memory_name, width=canvas.width, height=canvas.height))

    def open_camera(self, sink: VirtualCamera) -> None:
        """Feed a virtual camera."""
        self._open("camera", sink)
        self._camera_names = ("", sink.device, sink.label)
        self._reporter.emit(CameraChanged(is_open=True, label=sink.label, device=sink.device, backend=sink.backend))

    def change_camera(self, camera: CameraSettings | None) -> None:
        """Feed another camera, or none; the one in use goes on where there is no such other one."""
        if camera is None or camera.device in self._camera_names:
            self._close("camera")  # the same one again would find itself busy
        if camera is not None:
            sink = find_camera(camera)
            self._close("camera")
            self.open_camera(sink)

    def open_recorder(self, recorder: Recorder) -> None:
        """Record from now on."""
        self._open("recorder", recorder, slots=_RECORDER_SLOTS)
        self._let_record(recorder)
        self._reporter.emit(RecordingChanged(is_recording=True, path=str(recorder.path)))

    def start_recording(self, path: str, *, may_replace: bool) -> None:
        """Begin a file. Raises `UsageError` while another one is made."""
        if "recorder" in self._boxes:
            raise UsageError("A recording is under way already.", hint="Stop it first.")
        if self._completing is not None and not self._completing.is_closed:
            raise UsageError("The last recording is still being completed.", hint="Try again in a moment.")
        self.open_recorder(Recorder(path, may_replace=may_replace))

    def stop_recording(self) -> None:
        """Complete the file. Raises `UsageError` if there is none."""
        if "recorder" not in self._boxes:
            raise UsageError("Nothing is being recorded.")
        self._close("recorder")

    def take_snapshot(self, path: str) -> Path:
        """Write the picture that is shown next as PNG."""
        wanted = threading.Event()
        self._wanted_snapshot = wanted
        if not wanted.wait(_SNAPSHOT_TIMEOUT_S) or self._snapshot is None:
            raise UsageError("There is no picture to keep yet.", hint="Try again in a moment.")
        image, self._snapshot = self._snapshot, None
        return write_snapshot(image, path)

    def drop_failed(self) -> None:
        """Take away sinks that have failed; the picture goes on without them."""
        for name, box in list(self._boxes.items()):
            if box.error is not None:
                self._close(name)

    def close(self) -> None:
        """Complete all of them."""
        for name in list(self._boxes):
            self._close(name, _COMPLETE_AT_END_S)

    def _open(self, name: str, sink: VideoSink, slots: int = 1) -> None:
        box = Mailbox(
            sink,
            self._canvas,
            slots=slots,
            on_error=lambda error: self._on_error(name, error),
            on_closed=self._on_closed,
        )
        try:
            box.wait_opened(getattr(sink, "open_timeout_s", _OPEN_TIMEOUT_S))
        except StandinError:
            box.close()
            raise
        self._boxes = {**self._boxes, name: box}

    def _close(self, name: str, complete_s: float | None = None) -> None:
        box = self._boxes.get(name)
        if box is None:
            return
        self._boxes = {key: value for key, value in self._boxes.items() if key != name}
        if name == "recorder":
            self._let_record(None)
        if not isinstance(box.sink, Recorder):
            box.close()
        elif not box.close(_COMPLETE_S if complete_s is None else complete_s):
            self._completing = box
            self._reporter.note(
                Reason(
                    code="output.completing",
                    message=f"{box.sink.path.name} is still being completed.",
                    hint="Leave the disk connected; you are told when it is done.",
                )
            )
        if name == "camera":
            self._reporter.emit(CameraChanged(is_open=False))

    def _on_closed(self, box: Mailbox) -> None:
        """From the sink's own thread: a recording is told of when it is complete, and not before."""
        if isinstance(box.sink, Recorder) and box.has_opened:
            reason = reason_of(box.error) if box.error is not None else None
            self._reporter.emit(RecordingChanged(is_recording=False, path=str(box.sink.path), reason=reason))

    def _on_error(self, name: str, error: StandinError) -> None:
        """From the sink's own thread: tell, and let `drop_failed` take it away."""
        if name in self._boxes:
            self._reporter.fail(error)


def find_camera(settings: CameraSettings) -> VirtualCamera:
    """The camera that the settings name, not yet open. Raises `CameraError`."""
    from engine.sinks.virtual_camera import open_camera

    return open_camera(settings)
