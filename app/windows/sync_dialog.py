"""The page of the sync test: are voice and picture together on these devices?"""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QDialog, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout

from app.widgets.device_picker import NONE, DevicePicker
from engine.protocol import messages as m
from engine.protocol.sync_words import told
from engine.settings import VIRTUAL_MICROPHONE, MicrophoneSource

_STEPS = 100
_LISTENING = "Listening to the clicks..."


class SyncDialog(QDialog):
    """Asks for a test and shows what it found; tests nothing itself. All on the GUI thread."""

    test_asked = Signal(object)
    """What is to hear the clicks: `MicrophoneSource`, or None for the virtual microphone's own other end."""
    stop_asked = Signal()

    def __init__(self, voice_out: str, voice_out_label: str, microphones: list[tuple[str, str, bool]], parent) -> None:
        super().__init__(parent)
        self.setWindowTitle("Test lip sync")
        self.resize(520, 300)
        self._is_running = False
        title = QLabel("Test lip sync")
        title.setObjectName("title")
        self.microphone = DevicePicker("Microphone that hears the test", "Choose a microphone", "System default")
        self.microphone.set_devices(microphones)
        self.microphone.choose(("", ""))
        self.heard_by = QLabel("Heard by")
        self.heard_by.setBuddy(self.microphone)
        is_virtual = voice_out == VIRTUAL_MICROPHONE
        for widget in (self.heard_by, self.microphone):
            widget.setVisible(not is_virtual)
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.bar.setAccessibleName("How far the test is")
        self.bar.hide()
        self.verdict = _text("", "label")
        self.verdict.setAccessibleName("Result of the test")
        self.detail = _text("", "dim")
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 24, 24, 24)
        column.setSpacing(12)
        for widget in (title, _text(_explained(voice_out_label, is_virtual), "dim"), self.heard_by, self.microphone):
            column.addWidget(widget)
        for widget in (self.bar, self.verdict, self.detail):
            column.addWidget(widget)
        column.addStretch(1)
        column.addLayout(self._buttons())
        self.finished.connect(self._on_finished)

    def _buttons(self) -> QHBoxLayout:
        self.test_button = QPushButton("Start test")
        self.test_button.setDefault(True)
        self.test_button.clicked.connect(self._on_test)
        self.close_button = QPushButton("Close")
        self.close_button.setAutoDefault(False)
        self.close_button.clicked.connect(self.accept)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(self.close_button)
        row.addWidget(self.test_button)
        return row

    def show_progress(self, done: float, total: float) -> None:
        """`done` of `total` seconds have passed."""
        self.bar.setValue(round(_STEPS * done / max(total, 1e-9)))

    def show_measured(self, measured: m.SyncMeasured) -> None:
        """What was found, and what follows from it."""
        result, _, detail = told(measured).partition("\n")
        self._show(result, detail)

    def show_failed(self, reason: m.Reason) -> None:
        """Why nothing can be said."""
        self._show(reason.message, reason.hint)

    def show_ended(self) -> None:
        """The test is over, whatever it found."""
        self._is_running = False
        if self.verdict.text() == _LISTENING:
            self._show("Stopped before anything was found.", "")
        self.bar.hide()
        self.microphone.setEnabled(True)
        self.test_button.setEnabled(True)
        self.test_button.setText("Test again")

    def _show(self, result: str, detail: str) -> None:
        self.verdict.setText(result)
        self.detail.setText(detail)

    def _on_test(self) -> None:
        if self._is_running:
            self.test_button.setEnabled(False)
            self.test_button.setText("Stopping...")
            self.stop_asked.emit()
            return
        microphone = None
        if self.microphone.isVisibleTo(self):
            if self.microphone.choice == NONE:
                self._show("Choose the microphone that hears the clicks.", "")
                return
            name, host = self.microphone.choice
            microphone = MicrophoneSource(name=name, host_api=host)
        self._is_running = True
        self._show(_LISTENING, "")
        self.bar.setValue(0)
        self.bar.show()
        self.microphone.setEnabled(False)
        self.test_button.setText("Stop test")
        self.test_asked.emit(microphone)

    def _on_finished(self, _result: int) -> None:
        if self._is_running:
            self.stop_asked.emit()


def _explained(label: str, is_virtual: bool) -> str:
    where = f"\u201c{label}\u201d"
    heard = "and heard at its other end" if is_virtual else "and heard by a microphone near it"
    return (
        f"For eight seconds clicks are played through {where} {heard}, and compared with the picture. What is found is "
        "made good from then on. Your camera pauses meanwhile, and a call that listens hears the clicks."
    )


def _text(text: str, name: str) -> QLabel:
    label = QLabel(text)
    label.setObjectName(name)
    label.setWordWrap(True)
    return label
