"""The page of the download: what is fetched from whom, under which licence, and how far it is."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QDialog, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout

from app.controllers.model_download import ModelDownload, Stage
from app.windows.model_words import part_text, problem_words, progress_words, room_words

_STEPS = 1000
_EXPLAINED = (
    "FlashTalk makes a photographic picture on a large NVIDIA GPU, with a model that is not part of Standin. It is "
    "fetched once from its publisher, checked, and used from this computer from then on. Nothing about you is sent. "
    "The puppet goes on meanwhile."
)
_STATUS = {
    Stage.LOOKING: "Asking the server what there is...",
    Stage.NOT_PLANNED: "The server could not be asked.",
    Stage.PLANNED: "It begins when you agree to the licences above.",
    Stage.STOPPING: "Stopping...",
    Stage.STOPPED: "Stopped. What has arrived is kept.",
    Stage.FAILED: "The download has ended before it was complete.",
    Stage.THERE: "FlashTalk is on this computer.",
}
_ACTIONS = {
    Stage.NOTHING: "Agree and download", Stage.LOOKING: "Agree and download", Stage.PLANNED: "Agree and download",
    Stage.NOT_PLANNED: "Ask again", Stage.DOWNLOADING: "Stop download", Stage.STOPPING: "Stop download",
    Stage.STOPPED: "Go on", Stage.FAILED: "Try again", Stage.THERE: "Use it now",
}  # fmt: skip


class ModelDialog(QDialog):
    """Shows a `ModelDownload` and does with it what is asked. Closing the page leaves a download going."""

    def __init__(self, download: ModelDownload, parent) -> None:
        super().__init__(parent)
        self.setWindowTitle("Download FlashTalk")
        self.resize(560, 500)
        self._download = download
        title = QLabel("Download FlashTalk")
        title.setObjectName("title")
        self.parts, self.room = _text("", "card"), _text("", "dim")
        self.parts.setTextFormat(Qt.TextFormat.RichText)
        self.parts.setOpenExternalLinks(True)
        self.parts.setMargin(10)
        self.parts.setTextInteractionFlags(Qt.TextInteractionFlag.TextBrowserInteraction)
        self.parts.setAccessibleName("What is fetched, and under which licence")
        self.room.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.bar = QProgressBar()
        self.bar.setRange(0, _STEPS)
        self.bar.setTextVisible(False)
        self.bar.setAccessibleName("How far the download is")
        self.status, self.detail = _text("", "label"), _text("", "dim")
        self.status.setAccessibleName("State of the download")
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 24, 24, 24)
        column.setSpacing(12)
        for widget in (title, _text(_EXPLAINED, "dim"), self.parts, self.room, self.bar, self.status, self.detail):
            column.addWidget(widget)
        column.addStretch(1)
        column.addLayout(self._buttons())
        download.changed.connect(self._show)
        self.finished.connect(lambda _result: download.changed.disconnect(self._show))
        if download.stage in (Stage.NOTHING, Stage.PLANNED, Stage.NOT_PLANNED, Stage.THERE):
            download.look_up()
        self._show()

    def _buttons(self) -> QHBoxLayout:
        self.close_button, self.action_button = QPushButton("Close"), QPushButton()
        self.close_button.setAutoDefault(False)
        self.close_button.clicked.connect(self.accept)
        self.action_button.setDefault(True)
        self.action_button.clicked.connect(self._on_action)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(self.close_button)
        row.addWidget(self.action_button)
        return row

    def _show(self) -> None:
        now = self._download
        parts = now.plan.parts if now.plan is not None and now.stage is not Stage.THERE else []
        self.parts.setText("<br><br>".join(part_text(part) for part in parts))
        self.parts.setVisible(bool(parts))
        has_room = now.plan is not None and now.stage in (Stage.PLANNED, Stage.FAILED)
        self.room.setText(room_words(now.plan) if now.plan is not None else "")
        self.room.setVisible(has_room)
        self._show_progress()
        self.action_button.setText(_ACTIONS[now.stage])
        self.action_button.setEnabled(now.stage not in (Stage.NOTHING, Stage.LOOKING, Stage.STOPPING))
        self.action_button.setVisible(now.stage is not Stage.THERE or now.missing is not None)

    def _show_progress(self) -> None:
        now = self._download
        has_begun = now.progress is not None and now.progress.total_bytes > 0
        self.bar.setVisible(now.is_downloading or now.stage in (Stage.STOPPED, Stage.FAILED))
        if now.progress is not None and has_begun:
            self.bar.setValue(round(_STEPS * now.progress.done_bytes / now.progress.total_bytes))
        elif not has_begun:
            self.bar.setValue(0)
        words = progress_words(now)
        if now.stage is Stage.DOWNLOADING:
            self.status.setText(words[0])
            self.detail.setText(f"{words[1]} It goes on when you close this page.".strip())
        else:
            self.status.setText(now.problem.message if now.problem else _STATUS.get(now.stage, ""))
            self.detail.setText(problem_words(now.problem) if now.problem else words[1])
        self.detail.setVisible(bool(self.detail.text()))

    def _on_action(self) -> None:
        now = self._download
        if now.stage is Stage.DOWNLOADING:
            now.stop()
        elif now.stage is Stage.NOT_PLANNED:
            now.look_up()
        elif now.stage is Stage.THERE:
            now.take_up()
            self.accept()
        else:
            now.begin()


def _text(text: str, name: str) -> QLabel:
    label = QLabel(text)
    label.setObjectName(name)
    label.setWordWrap(True)
    return label
