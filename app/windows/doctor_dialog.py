"""The doctor's page: what works on this computer, what does not, and one thing to do about each."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import (
    QDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from app.theme import Palette, icon
from engine.protocol import messages as m

_ICON_PX = 20
_ORDER = {"bad": 0, "limited": 1, "good": 2}
_WORDS = {"bad": "Will not work", "limited": "Works with less", "good": "Works"}


class DoctorDialog(QDialog):
    """Shows findings and asks for nothing itself. All on the GUI thread."""

    examination_asked = Signal()
    fix_asked = Signal(str)
    """A finding's code, after the user has said yes by pressing its button."""

    def __init__(self, colours: Palette, parent: QWidget | None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Check this computer")
        self.resize(620, 560)
        self._colours = colours
        self._findings: list[m.Examination] = []
        title = QLabel("Check this computer")
        title.setObjectName("title")
        self.summary = QLabel()
        self.summary.setObjectName("dim")
        self.summary.setWordWrap(True)
        self._list = QVBoxLayout()
        self._list.setSpacing(8)
        inside = QWidget()
        inside.setObjectName("root")
        inside.setLayout(self._list)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QFrame.Shape.NoFrame)
        self._scroll.setWidget(inside)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 24, 24, 24)
        column.setSpacing(16)
        column.addWidget(title)
        column.addWidget(self.summary)
        column.addWidget(self._scroll, 1)
        column.addLayout(self._buttons())
        self.set_waiting()

    def _buttons(self) -> QHBoxLayout:
        self.again_button = QPushButton("Check again")
        self.again_button.clicked.connect(self._on_again)
        self.copy_button = QPushButton("Copy report")
        self.copy_button.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.report()))
        close = QPushButton("Close")
        close.setDefault(True)
        close.clicked.connect(self.accept)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.again_button)
        row.addWidget(self.copy_button)
        row.addStretch(1)
        row.addWidget(close)
        return row

    def set_waiting(self) -> None:
        """An examination is under way."""
        self.summary.setText("Looking at microphone, camera, models and disk...")
        self.again_button.setEnabled(False)
        self.copy_button.setEnabled(False)

    def show_failed(self, reason: m.Reason) -> None:
        """The engine could not be asked."""
        self.summary.setText(f"{reason.message} {reason.hint}".strip())
        self.again_button.setEnabled(True)

    def show_findings(self, findings: list[m.Examination]) -> None:
        """The worst first."""
        self._findings = sorted(findings, key=lambda finding: _ORDER.get(finding.state, 0))
        while (item := self._list.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.deleteLater()
        for finding in self._findings:
            self._list.addWidget(self._row(finding))
        self._list.addStretch(1)
        count = sum(finding.state != "good" for finding in findings)
        things = "One thing is" if count == 1 else f"{count} things are"
        self.summary.setText(f"{things} not as they should be." if count else "Everything works.")
        self.again_button.setEnabled(True)
        self.copy_button.setEnabled(True)

    def report(self) -> str:
        """All findings as text, to ask somebody for help with."""
        lines = []
        for finding in self._findings:
            code = f" ({finding.code})" if finding.code else ""
            lines.append(f"{finding.state}: {finding.name}: {finding.message}{code}")
            if finding.hint and finding.state != "good":
                lines.append(f"    {finding.hint}")
        return "\n".join(lines)

    def _row(self, finding: m.Examination) -> QFrame:
        card = QFrame()
        card.setObjectName("card")
        card.setAccessibleName(f"{_WORDS.get(finding.state, '')}: {finding.title}. {finding.message} {finding.hint}")
        row = QHBoxLayout(card)
        row.setContentsMargins(12, 10, 12, 10)
        row.setSpacing(12)
        mark = QLabel()
        is_good = finding.state == "good"
        colour = {"bad": self._colours.on_air, "limited": self._colours.warn}.get(finding.state, self._colours.good)
        mark.setPixmap(icon("check" if is_good else "warning", colour).pixmap(_ICON_PX, _ICON_PX))
        mark.setToolTip(_WORDS.get(finding.state, ""))
        row.addWidget(mark, 0, Qt.AlignmentFlag.AlignTop)
        texts = QVBoxLayout()
        texts.setSpacing(2)
        texts.addWidget(_label(finding.title or finding.name, "label"))
        texts.addWidget(_label(finding.message, ""))
        if finding.hint and not is_good:
            texts.addWidget(_label(finding.hint, "dim"))
        row.addLayout(texts, 1)
        button = self._button(finding)
        if button is not None:
            row.addWidget(button, 0, Qt.AlignmentFlag.AlignTop)
        return card

    def _button(self, finding: m.Examination) -> QPushButton | None:
        if finding.fix == "automatic":
            button = QPushButton("Do it")
            button.setAccessibleName(f"Do it: {finding.hint}")
            button.clicked.connect(lambda: self._on_fix(finding.code))
        elif finding.fix == "command":
            button = QPushButton("Copy command")
            button.setAccessibleName(f"Copy the command {finding.command}")
            button.setToolTip(finding.command)
            button.clicked.connect(lambda: QGuiApplication.clipboard().setText(finding.command))
        else:
            return None
        button.setAutoDefault(False)
        return button

    def _on_again(self) -> None:
        self.set_waiting()
        self.examination_asked.emit()

    def _on_fix(self, code: str) -> None:
        self.set_waiting()
        self.summary.setText("Working on it...")
        self.fix_asked.emit(code)


def _label(text: str, name: str) -> QLabel:
    label = QLabel(text)
    label.setObjectName(name)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label
