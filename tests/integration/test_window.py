"""The window with the real engine, driven as a user would."""

import os
import signal

import numpy as np
import pytest

pytest.importorskip("PySide6", reason="the window needs the gui extra")


@pytest.fixture
def application(qtbot, tmp_path):
    from app.bootstrap import Application

    settings = tmp_path / "window.toml"
    settings.write_text("version = 1\nhas_consented = true\nhas_microphone = false\n", encoding="utf-8")
    application = Application(settings_path=settings, library_folder=tmp_path / "portraits")
    qtbot.addWidget(application.window)
    application.open()
    yield application
    application.finish()


def _wait_for_pictures(qtbot, application, count=3):
    start = application.window.preview.frames
    qtbot.waitUntil(lambda: application.window.preview.frames >= start + count, timeout=30_000)


def _spread(widget) -> float:
    image = widget.grab().toImage().convertToFormat(widget.grab().toImage().Format.Format_Grayscale8)
    return float(np.frombuffer(image.constBits(), np.uint8).std())


def test_shows_a_picture_and_ends_its_engine(qtbot, application, tmp_path):
    _wait_for_pictures(qtbot, application)
    assert _spread(application.window.preview) > 10
    application.window.grab().save(str(tmp_path / "window.png"))
    pid = application.client.pid
    application.finish()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_bad_file_is_one_sentence_and_no_portrait(qtbot, application, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    before = application.window.gallery.refs()
    with qtbot.waitSignal(application.library.refused, timeout=10_000):
        application.presenter.add_files([str(bad)])
    assert application.window.banner.message.text() == "bad.png is not a picture that can be read."
    assert application.window.gallery.refs() == before


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_killed_engine_is_told_and_started_again(qtbot, application):
    _wait_for_pictures(qtbot, application)
    first = application.client.pid
    with qtbot.waitSignal(application.client.lost, timeout=10_000):
        os.kill(first, signal.SIGKILL)
    assert application.window.banner.message.text() == "The engine ended unexpectedly."
    _wait_for_pictures(qtbot, application)
    assert application.client.pid not in (0, first)


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs a process that can be frozen")
def test_frozen_engine_does_not_hold_the_window_open(qtbot, application):
    _wait_for_pictures(qtbot, application)
    pid = application.client.pid
    os.kill(pid, signal.SIGSTOP)
    with qtbot.waitSignal(application.closed, timeout=20_000):
        application.window.close()
        assert not application.window.isVisible()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
