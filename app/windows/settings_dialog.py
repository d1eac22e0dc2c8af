"""The settings that exist now, on one page; every change takes effect at once."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QColor
from PySide6.QtWidgets import (
    QCheckBox,
    QColorDialog,
    QComboBox,
    QDialog,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from app.settings.schema import CHOICES, AppSettings
from app.settings.uses import Offer

_WORDS = {
    "blur": "Blurred portrait", "solid": "One colour", "crop": "Fill and crop",
    "system": "As the system", "light": "Light", "dark": "Dark", 25: "25 per second", 30: "30 per second",
    "1280x720": "1280 x 720 (recommended)",
}  # fmt: skip

_SWITCHES = (
    (
        "Lower the quality while the computer is too slow", "is_adaptive",
        "The window says when it does, and why. Otherwise frames are left out.",
    ),
    ("Noise suppression for the lips", "has_noise_suppression", ""),
    ("Push-to-talk: silent unless Space is held", "is_push_to_talk", ""),
    (
        "Mirror what others see", "is_output_mirrored",
        "Call programs mirror only your own view of yourself; others see you the right way round.",
    ),
)  # fmt: skip
_BARS_PX = 60
"""Room on the screen for what systems put around a window."""
_INDENT_PX = 34
"""A note stands below its switch's text."""


class SettingsDialog(QDialog):
    """`changed` carries fields of `AppSettings` with their new values."""

    changed = Signal(dict)
    doctor_asked = Signal()
    measurement_asked = Signal()
    model_asked = Signal()

    def __init__(self, settings: AppSettings, cameras: list, offers: list[Offer], parent) -> None:
        super().__init__(parent)
        self.setWindowTitle("Settings")
        self._boxes: dict[str, QComboBox] = {}
        self._use = settings.use
        self.resize(560, min(780, self.screen().availableGeometry().height() - _BARS_PX))
        title = QLabel("Settings")
        title.setObjectName("title")
        inside = QWidget()
        inside.setObjectName("root")
        rows = QVBoxLayout(inside)
        rows.setContentsMargins(0, 0, 8, 0)
        rows.setSpacing(16)
        rows.addLayout(self._form(settings, cameras))
        rows.addLayout(self._switches(settings))
        rows.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.setWidget(inside)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 24, 16, 24)
        column.setSpacing(16)
        column.addWidget(title)
        column.addWidget(scroll, 1)
        column.addLayout(self._buttons())
        self.show_offers(offers)

    def _form(self, settings: AppSettings, cameras: list) -> QFormLayout:
        form = QFormLayout()
        form.setSpacing(12)
        form.addRow("Appearance", self._choice("theme", settings.theme))
        self.use_box = QComboBox()
        self.use_box.setAccessibleName("Made for")
        self.use_box.activated.connect(self._on_use)
        self.use_note = _note("")
        self.measure_button = QPushButton("Measure this computer...")
        self.measure_button.setAutoDefault(False)
        self.measure_button.setToolTip("Finds the best settings for each use; up to two minutes, the picture pauses")
        self.measure_button.clicked.connect(self._on_measure)
        self.model_button = QPushButton("Download FlashTalk...")
        self.model_button.setAutoDefault(False)
        self.model_button.clicked.connect(self.model_asked)
        self.model_button.hide()
        form.addRow("Made for", self.use_box)
        form.addRow("", self.use_note)
        form.addRow("", self.model_button)
        form.addRow("", self.measure_button)
        form.addRow("Picture size", self._choice("canvas", settings.canvas))
        form.addRow("Frame rate", self._choice("fps", settings.fps))
        form.addRow("Around the portrait", self._choice("fill", settings.fill))
        self.colour_button = QPushButton(settings.colour)
        self.colour_button.setAccessibleName("Background colour")
        self.colour_button.setAutoDefault(False)
        self.colour_button.clicked.connect(self._on_colour)
        form.addRow("Colour", self.colour_button)
        form.addRow("Virtual camera", self._cameras(settings, cameras))
        form.addRow("Noise gate", self._gate(settings))
        return form

    def _switches(self, settings: AppSettings) -> QVBoxLayout:
        """What is on or off, each with what it means where that is not plain."""
        column = QVBoxLayout()
        column.setSpacing(4)
        for text, field, note in _SWITCHES:
            column.addWidget(self._box(text, field, getattr(settings, field)))
            if note:
                label = _note(note)
                label.setContentsMargins(_INDENT_PX, 0, 0, 6)
                column.addWidget(label)
        return column

    def _buttons(self) -> QHBoxLayout:
        self.doctor_button = QPushButton("Check this computer...")
        self.doctor_button.setAutoDefault(False)
        self.doctor_button.clicked.connect(self.doctor_asked)
        close = QPushButton("Close")
        close.setDefault(True)
        close.clicked.connect(self.accept)
        row = QHBoxLayout()
        row.addWidget(self.doctor_button)
        row.addStretch(1)
        row.addWidget(close)
        return row

    def _choice(self, field: str, value: object) -> QComboBox:
        box = QComboBox()
        for choice in CHOICES[field]:
            box.addItem(_WORDS.get(choice, str(choice).replace("x", " x ")), choice)
        box.setCurrentIndex(box.findData(value))
        box.activated.connect(lambda i: self._on_choice(field, box.itemData(i)))
        self._boxes[field] = box
        return box

    def _on_choice(self, field: str, value: object) -> None:
        changes = {field: value}
        if field in ("canvas", "fps") and self._use:
            self._use, changes["use"] = "", ""
            self._show_use()
        self.changed.emit(changes)

    def show_offers(self, offers: list[Offer]) -> None:
        """What was found to be best for each use; nothing as long as nobody has measured."""
        self._offers = {offer.use: offer for offer in offers}
        self.use_box.clear()
        self.use_box.addItem("My own choice", "")
        for offer in offers:
            self.use_box.addItem(offer.title, offer.use)
        self.use_box.setEnabled(bool(offers))
        self.set_measuring(False)
        self._show_use()

    def show_model(self, action: str) -> None:
        """What can be done about a model that FlashTalk lacks; empty for nothing."""
        self.model_button.setVisible(bool(action))
        if action:
            self.model_button.setText(action)

    def set_measuring(self, is_measuring: bool) -> None:
        """While it is found out."""
        self.measure_button.setEnabled(not is_measuring)
        self.measure_button.setText("Measuring..." if is_measuring else "Measure this computer...")
        if is_measuring:
            self.use_note.setText("Up to two minutes. The picture pauses until it is done.")
        else:
            self._show_use()

    def show_problem(self, sentence: str) -> None:
        """Why nothing was found."""
        self.set_measuring(False)
        self.use_note.setText(sentence)

    def _show_use(self) -> None:
        self.use_box.setCurrentIndex(max(0, self.use_box.findData(self._use)))
        offer = self._offers.get(self._use)
        nothing = "Choose the picture yourself, or what it is for." if self._offers else "Nothing was measured yet."
        self.use_note.setText(offer.words if offer else nothing)

    def _on_use(self, index: int) -> None:
        self._use = self.use_box.itemData(index)
        offer = self._offers.get(self._use)
        self._show_use()
        changes = offer.changes if offer else {"use": "", "generator": "puppet", "generator_options": "{}"}
        for field in ("canvas", "fps"):
            if field in changes:
                self._boxes[field].setCurrentIndex(self._boxes[field].findData(changes[field]))
        self.changed.emit(dict(changes))

    def _on_measure(self) -> None:
        self.set_measuring(True)
        self.measurement_asked.emit()

    def _box(self, text: str, field: str, is_on: bool) -> QCheckBox:
        box = QCheckBox(text)
        box.setChecked(is_on)
        box.toggled.connect(lambda on: self.changed.emit({field: on}))
        return box

    def _gate(self, settings: AppSettings) -> QComboBox:
        """The lips rest below it; others hear the voice as it is."""
        box = QComboBox()
        box.setAccessibleName("Noise gate")
        box.setToolTip("Below it the portrait rests. Others hear your voice as it is.")
        box.addItem("Automatic (recommended)", {"gate": "auto"})
        for level in CHOICES["gate_dbfs"]:
            box.addItem(f"Above {level} dBFS", {"gate": "level", "gate_dbfs": level})
        box.addItem("Off", {"gate": "off"})
        now = {"auto": "Automatic (recommended)", "off": "Off"}.get(settings.gate, f"Above {settings.gate_dbfs} dBFS")
        box.setCurrentIndex(box.findText(now))
        box.activated.connect(lambda i: self.changed.emit(box.itemData(i)))
        return box

    def _cameras(self, settings: AppSettings, cameras: list) -> QComboBox:
        box = QComboBox()
        box.addItem("The first that can be used", ("", ""))
        for camera in cameras:
            note = "" if camera.problem is None else " (cannot be used now)"
            box.addItem(f"{camera.label} {camera.device}{note}", (camera.device, camera.backend))
        for index in range(box.count()):
            if tuple(box.itemData(index)) == (settings.camera_device, settings.camera_backend):
                box.setCurrentIndex(index)
        box.activated.connect(lambda i: self._on_camera(*box.itemData(i)))
        return box

    def _on_camera(self, device: str, backend: str) -> None:
        self.changed.emit({"camera_device": device, "camera_backend": backend})

    def _on_colour(self) -> None:
        colour = QColorDialog.getColor(QColor(self.colour_button.text()), self)
        if colour.isValid():
            self.colour_button.setText(colour.name())
            self.changed.emit({"colour": colour.name()})


def _note(text: str) -> QLabel:
    label = QLabel(text)
    label.setObjectName("dim")
    label.setWordWrap(True)
    return label
