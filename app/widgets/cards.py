"""The cards that the window is made of."""

from __future__ import annotations

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFrame, QLabel, QScrollArea, QVBoxLayout, QWidget


def card(width_px: int) -> tuple[QFrame, QVBoxLayout]:
    """A frame of that width, and the column to fill."""
    frame = QFrame()
    frame.setObjectName("card")
    frame.setFixedWidth(width_px)
    column = QVBoxLayout(frame)
    column.setContentsMargins(16, 16, 16, 16)
    column.setSpacing(10)
    return frame, column


def scrolling_card(width_px: int) -> tuple[QFrame, QVBoxLayout]:
    """A card whose content may be higher than the window has room for."""
    frame, around = card(width_px)
    around.setContentsMargins(1, 1, 1, 1)
    inside = QWidget()
    inside.setObjectName("plain")
    scroll = QScrollArea()
    scroll.setWidgetResizable(True)
    scroll.setFrameShape(QFrame.Shape.NoFrame)
    scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
    scroll.setObjectName("plain")
    scroll.setWidget(inside)
    around.addWidget(scroll)
    column = QVBoxLayout(inside)
    column.setContentsMargins(15, 15, 15, 15)
    column.setSpacing(10)
    return frame, column


def heading(text: str) -> QLabel:
    """The title of a part of a card."""
    label = QLabel(text)
    label.setObjectName("heading")
    label.setAlignment(Qt.AlignmentFlag.AlignLeft)
    return label
