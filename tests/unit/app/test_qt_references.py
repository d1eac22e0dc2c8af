"""The Qt binding keeps the interpreter's constants alive: one that does not ends the process."""

from __future__ import annotations

import sys

import pytest
from PySide6.QtCore import QObject, Signal
from PySide6.QtWidgets import QWidget


class Sender(QObject):
    sent = Signal(object)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="None and True are immortal from Python 3.12 on")
def test_calls_and_signals_do_not_take_references_to_constants(qtbot):
    widget, sender = QWidget(), Sender()
    qtbot.addWidget(widget)
    sender.sent.connect(lambda value: None)
    before = sys.getrefcount(None), sys.getrefcount(True)
    for _ in range(500):
        widget.update()
        sender.sent.emit(1)
    after = sys.getrefcount(None), sys.getrefcount(True)
    assert after[0] - before[0] > -250 and after[1] - before[1] > -250
