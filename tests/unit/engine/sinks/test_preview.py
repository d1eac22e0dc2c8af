"""The preview as a sink: what the pacer presents is what a reader sees."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import ProtocolError
from engine.media import CanvasFormat
from engine.protocol.shared_memory import FrameReader
from engine.sinks.base import PresentedFrame
from engine.sinks.preview import PreviewSink

CANVAS = CanvasFormat(width=64, height=36, fps=25)


def _frame(tick: int) -> PresentedFrame:
    return PresentedFrame(image=np.full((36, 64, 3), tick, np.uint8), tick=tick, frame=tick, due_s=0.0)


@pytest.fixture
def preview():
    sink = PreviewSink()
    sink.open(CANVAS)
    yield sink
    sink.close()


def test_newest_picture_and_its_tick_are_read(preview):
    reader = FrameReader(preview.memory_name)
    assert (reader.width, reader.height) == (64, 36) and reader.newest() is None
    for tick in (7, 8):
        preview.send(_frame(tick))
    _, image = reader.newest()
    assert (image == 8).all() and reader.extra == 8
    reader.close()


def test_picture_is_copied_before_send_returns(preview):
    frame = _frame(7)
    preview.send(frame)
    frame.image[:] = 99
    reader = FrameReader(preview.memory_name)
    assert (reader.newest()[1] == 7).all()
    reader.close()


def test_closed_memory_is_gone(preview):
    name = preview.memory_name
    preview.close()
    preview.close()
    with pytest.raises(ProtocolError):
        FrameReader(name)


def test_closing_what_was_never_opened_is_nothing():
    preview = PreviewSink()
    preview.close()
    assert preview.memory_name == ""


def test_two_previews_are_apart(preview):
    other = PreviewSink()
    other.open(CANVAS)
    assert other.memory_name != preview.memory_name
    other.send(_frame(1))
    reader = FrameReader(preview.memory_name)
    assert reader.newest() is None
    reader.close()
    other.close()
