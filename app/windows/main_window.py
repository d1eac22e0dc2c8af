"""The one window: portraits, what others see, sound, and the button that puts it on air."""

from __future__ import annotations

from PySide6.QtCore import QSize, Signal
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import (
    QCheckBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.theme import Palette, icon
from app.widgets.banner import Banner
from app.widgets.cards import card, heading, scrolling_card
from app.widgets.device_picker import DevicePicker
from app.widgets.level_meter import LevelMeter
from app.widgets.portrait_gallery import PortraitGallery
from app.widgets.preview_view import PreviewView
from app.widgets.status_note import StatusNote

_SYMBOL_PX, _LARGE_SYMBOL_PX, _GAP_PX = 18, 22, 5


class MainWindow(QMainWindow):
    """Lays out the widgets and names them; the controller of the window fills them."""

    closing = Signal()

    def __init__(self, colours: Palette) -> None:
        super().__init__()
        self.setWindowTitle("Standin")
        self.setMinimumSize(960, 600)
        self.resize(1280, 760)
        self._colours = colours
        self._icons: list[tuple[QPushButton, str]] = []
        self._build_widgets(colours)
        root = QWidget()
        root.setObjectName("root")
        self.setCentralWidget(root)
        column = QVBoxLayout(root)
        column.setContentsMargins(16, 12, 16, 16)
        column.setSpacing(12)
        column.addLayout(self._header())
        column.addWidget(self.banner)
        middle = QHBoxLayout()
        middle.setSpacing(16)
        middle.addWidget(self._portraits())
        middle.addLayout(self._centre(), 1)
        middle.addWidget(self._sound())
        column.addLayout(middle, 1)
        column.addWidget(self._bottom())
        self._add_shortcuts()
        self.set_colours(colours)
        self.gallery.setFocus()

    def _build_widgets(self, colours: Palette) -> None:
        self.banner = Banner(colours)
        self.gallery = PortraitGallery(colours)
        self.preview = PreviewView(colours)
        self.meter = LevelMeter(colours)
        self.microphone = DevicePicker("Microphone", "No microphone", "System default")
        self.voice_out = DevicePicker("Delayed voice to", "Nowhere", "System default")
        self.air_label = QLabel("Off air")
        self.air_label.setObjectName("offAir")
        self.settings_button = self._button("", "settings", "Settings", "Settings (Ctrl+,)")
        self.settings_button.setObjectName("quiet")
        self.add_button = self._button("Add", "plus", "Add portrait", "Add a picture (Ctrl+O)")
        self.remove_button = self._button("", "trash", "Remove portrait", "Remove the chosen picture (Delete)")
        self.paste_button = self._button("", "paste", "Paste portrait", "Paste a picture (Ctrl+V)")
        self.adjust_button = self._button(
            "Adjust face...", "image", "Adjust face", "Place the marks of the face by hand"
        )
        self.mirror_box = QCheckBox("Mirror my preview")
        self.mirror_box.setToolTip("Only your own view; others see it the right way round")
        self.mute_button = self._button("Mute", "mic", "Mute microphone", "Mute (Ctrl+M)")
        self.mute_button.setCheckable(True)
        self.record_button = self._button("Record", "record", "Record", "Record a clip (Ctrl+R)")
        self.record_button.setCheckable(True)
        self.snapshot_button = self._button("Snapshot", "snapshot", "Take snapshot", "Keep a picture (Ctrl+Shift+S)")
        self.microphone_hint = self._dim("")
        self.microphone_hint.hide()
        self.speaking_label = self._dim("Quiet")
        self.talk_label = QLabel()
        self.talk_label.setObjectName("offAir")
        self.talk_label.hide()
        self.voice_label = self._dim("")
        self.sync_button = QPushButton("Test lip sync...")
        self.sync_button.setToolTip("Play clicks, hear them again, and compare them with the picture")
        self.sync_button.setEnabled(False)
        self.start_button = QPushButton("Start virtual camera")
        self.start_button.setObjectName("primary")
        self.start_button.setAccessibleName("Start virtual camera")
        self.start_button.setIconSize(_icon_size("Start", _LARGE_SYMBOL_PX))
        self.state_label = QLabel("Starting...")
        self.state_label.setObjectName("label")
        self.stats_label = self._dim("")
        self.quality_note, self.model_note = StatusNote(colours), StatusNote(colours)

    def _button(self, text: str, symbol: str, name: str, tip: str) -> QPushButton:
        button = QPushButton(text)
        button.setIconSize(_icon_size(text, _SYMBOL_PX))
        button.setAccessibleName(name)
        button.setToolTip(tip)
        self._icons.append((button, symbol))
        return button

    def _dim(self, text: str) -> QLabel:
        label = QLabel(text)
        label.setObjectName("dim")
        label.setWordWrap(True)
        return label

    def _header(self) -> QHBoxLayout:
        title = QLabel("Standin")
        title.setObjectName("title")
        row = QHBoxLayout()
        row.addWidget(title)
        row.addSpacing(12)
        row.addWidget(self.air_label)
        row.addWidget(self.talk_label)
        row.addStretch(1)
        row.addWidget(self.settings_button)
        return row

    def _portraits(self) -> QFrame:
        frame, column = card(248)
        column.addWidget(heading("Portraits"))
        column.addWidget(self.gallery, 1)
        column.addWidget(self._dim("Drop pictures here, or paste them."))
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.add_button, 1)
        row.addWidget(self.paste_button)
        row.addWidget(self.remove_button)
        column.addLayout(row)
        return frame

    def _centre(self) -> QVBoxLayout:
        column = QVBoxLayout()
        column.setSpacing(8)
        column.addWidget(self.preview, 1)
        row = QHBoxLayout()
        row.addWidget(self.mirror_box)
        row.addStretch(1)
        row.addWidget(self.adjust_button)
        column.addLayout(row)
        return column

    def _sound(self) -> QFrame:
        frame, column = scrolling_card(284)
        column.addWidget(heading("Microphone"))
        column.addWidget(self.microphone)
        column.addWidget(self.microphone_hint)
        column.addWidget(self.meter)
        row = QHBoxLayout()
        row.addWidget(self.speaking_label, 1)
        row.addWidget(self.mute_button)
        column.addLayout(row)
        column.addSpacing(8)
        column.addWidget(heading("Delayed voice to"))
        column.addWidget(self.voice_out)
        column.addWidget(self.voice_label)
        column.addWidget(self.sync_button)
        column.addStretch(1)
        column.addWidget(heading("Keep"))
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.record_button, 1)
        row.addWidget(self.snapshot_button, 1)
        column.addLayout(row)
        return frame

    def _bottom(self) -> QFrame:
        frame = QFrame()
        frame.setObjectName("card")
        row = QHBoxLayout(frame)
        row.setContentsMargins(16, 12, 16, 12)
        row.setSpacing(16)
        texts = QVBoxLayout()
        texts.setSpacing(2)
        texts.addWidget(self.state_label)
        texts.addWidget(self.stats_label)
        texts.addWidget(self.quality_note)
        texts.addWidget(self.model_note)
        row.addLayout(texts, 1)
        row.addWidget(self.start_button)
        return frame

    def _add_shortcuts(self) -> None:
        for keys, button in (
            ("Ctrl+M", self.mute_button), ("Ctrl+R", self.record_button), ("Ctrl+O", self.add_button),
            ("Ctrl+Shift+S", self.snapshot_button), ("Ctrl+,", self.settings_button),
            ("Ctrl+Return", self.start_button), ("Ctrl+V", self.paste_button),
        ):  # fmt: skip
            QShortcut(QKeySequence(keys), self, button.click)

    def set_colours(self, colours: Palette) -> None:
        """Follow the theme."""
        self._colours = colours
        for widget in (self.banner, self.gallery, self.preview, self.meter, self.quality_note, self.model_note):
            widget.set_colours(colours)
        for button, symbol in self._icons:
            self._set_icon(button, symbol, colours.text)
        self._paint_start()

    def set_available(self, *, is_ready: bool, is_live: bool, is_camera_wanted: bool) -> None:
        """What can be done now: without an engine little, without a session nothing can be kept."""
        self.start_button.setEnabled(is_ready or is_camera_wanted)
        self._paint_start()
        self.adjust_button.setEnabled(is_ready)
        self.record_button.setEnabled(is_live)
        self.snapshot_button.setEnabled(is_live)

    def set_camera_wanted(self, is_on: bool) -> None:
        """The big button says what it will do."""
        self.start_button.setText("Stop virtual camera" if is_on else "Start virtual camera")
        self.start_button.setAccessibleName(self.start_button.text())
        self.start_button.setProperty("isLive", is_on)
        self._paint_start()

    def set_on_air(self, is_on_air: bool) -> None:
        """Whether the camera is open: a frame, a word."""
        self.air_label.setText("\u25cf On air" if is_on_air else "Off air")
        self.air_label.setObjectName("onAir" if is_on_air else "offAir")
        self.air_label.style().unpolish(self.air_label)
        self.air_label.style().polish(self.air_label)
        self.preview.set_on_air(is_on_air)

    def set_microphone_hint(self, text: str) -> None:
        """A calm word under the microphone; empty for none."""
        self.microphone_hint.setText(text)
        self.microphone_hint.setVisible(bool(text))
        self.microphone.setAccessibleDescription(text)

    def set_muted(self, is_muted: bool) -> None:
        """The mute button says what is the case."""
        self.mute_button.setChecked(is_muted)
        self.mute_button.setText("Muted" if is_muted else "Mute")
        self._set_icon(self.mute_button, "mic-off" if is_muted else "mic", self._colours.text)

    def set_talking(self, is_talking: bool | None) -> None:
        """Push-to-talk: whether the key is down; None without push-to-talk."""
        self.talk_label.setVisible(is_talking is not None)
        self.talk_label.setText("\u25cf Talking" if is_talking else "Silent: hold Space to talk")
        self.talk_label.setAccessibleName("Talking" if is_talking else "Silent, hold Space to talk")
        self.talk_label.setObjectName("onAir" if is_talking else "offAir")
        self.talk_label.style().unpolish(self.talk_label)
        self.talk_label.style().polish(self.talk_label)

    def set_recording(self, is_recording: bool) -> None:
        """The record button says what is the case."""
        self.record_button.setChecked(is_recording)
        self.record_button.setText("Stop" if is_recording else "Record")
        self._set_icon(self.record_button, "stop" if is_recording else "record", self._colours.text)

    def closeEvent(self, event) -> None:
        self.closing.emit()
        super().closeEvent(event)

    def _set_icon(self, button: QPushButton, symbol: str, colour: str, size_px: int = _SYMBOL_PX) -> None:
        gap_px = _icon_size(button.text(), size_px).width() - size_px
        button.setIcon(icon(symbol, colour, size_px, gap_px))

    def _paint_start(self) -> None:
        is_live = bool(self.start_button.property("isLive"))
        dark_on_red = "#1a0508" if self._colours.is_dark else "#ffffff"
        colour = dark_on_red if is_live else self._colours.on_accent
        colour = colour if self.start_button.isEnabled() else self._colours.dim
        self._set_icon(self.start_button, "camera-off" if is_live else "camera", colour, _LARGE_SYMBOL_PX)
        self.start_button.style().unpolish(self.start_button)
        self.start_button.style().polish(self.start_button)


def _icon_size(text: str, size_px: int) -> QSize:
    return QSize(size_px + (_GAP_PX if text else 0), size_px)
