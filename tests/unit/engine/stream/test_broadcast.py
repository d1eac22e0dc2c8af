"""A session's life: states, changes while live, everything given back."""

from __future__ import annotations

import threading
from functools import partialmethod

import numpy as np
import pytest
import soundfile

from engine.errors import (
    AudioFileError,
    CameraError,
    Cancelled,
    DeviceError,
    GeneratorError,
    MicrophoneError,
    OutputError,
    PortraitError,
    UsageError,
)
from engine.protocol.messages import SessionState, StateChanged, Stats
from engine.settings import (
    CameraSettings,
    CanvasSettings,
    FileSource,
    SilentSource,
    SoundSettings,
    VoiceOutSettings,
)
from engine.stream import broadcast as broadcast_module
from engine.stream import session_sound as sound_module
from engine.stream.runner import GeneratorRunner


def test_suppression_that_is_not_installed_costs_a_notice_and_no_session(session, monkeypatch):
    def refuse():
        raise UsageError("It is not installed.", code="sound.no_suppression")

    monkeypatch.setattr(broadcast_module, "check_suppression", refuse)
    live = session(sound=SoundSettings(has_noise_suppression=True))
    live.broadcast.start()
    live.until_presented()
    assert live.codes() == ["sound.no_suppression"]


def test_from_start_to_stop_and_nothing_left(session, no_new_threads):
    live = session(has_preview=True)
    live.broadcast.start()
    live.until_presented(5)
    assert live.broadcast.state is SessionState.LIVE
    live.until(lambda: any(isinstance(e, Stats) for e in live.events))
    live.broadcast.stop()
    live.broadcast.stop()
    assert live.states == [SessionState.PREPARING, SessionState.LIVE, SessionState.STOPPING, SessionState.IDLE]
    assert live.generators[0].closed == 1 and no_new_threads()


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"portrait": "/nowhere/x.png"}, PortraitError),
        ({"source": FileSource(path="/nowhere/x.wav")}, AudioFileError),
        ({"recording": "/nowhere/x.mp4"}, OutputError),
        ({"camera": CameraSettings(device="/dev/nowhere")}, CameraError),
        ({"voice_out": VoiceOutSettings(name="Nothing At All")}, DeviceError),
    ],
)
def test_failed_start_gives_everything_back_and_says_why(session, settings, error, no_new_threads):
    live = session(**settings)
    with pytest.raises(error) as caught:
        live.broadcast.start()
    assert live.states[-1] is SessionState.IDLE
    assert live.codes(StateChanged)[-1] == caught.value.code
    assert live.generators == [], "said before anything was prepared"
    assert no_new_threads()


def test_start_that_fails_late_gives_everything_back(session, plain_source, monkeypatch, no_new_threads):
    """A microphone that is busy shows that only when it is started."""
    microphone = plain_source()

    def start(clock):
        raise MicrophoneError("It is in use.", code="microphone.busy")

    microphone.start = start
    monkeypatch.setattr(sound_module, "open_source", lambda _: microphone)
    live = session(has_preview=True)
    with pytest.raises(MicrophoneError):
        live.broadcast.start()
    assert live.codes(StateChanged)[-1] == "microphone.busy" and live.states[-1] is SessionState.IDLE
    assert [g.closed for g in live.generators] == [1] and no_new_threads()


def test_cancelled_start_ends_soon(session):
    live = session()
    live.broadcast.cancel()
    with pytest.raises(Cancelled):
        live.broadcast.start()
    assert live.codes(StateChanged)[-1] == "cancelled" and live.generators[0].closed


def test_changes_need_a_session(session):
    broadcast = session().broadcast
    for change in (
        lambda: broadcast.set_portrait("x.png"),
        lambda: broadcast.set_source(SilentSource()),
        lambda: broadcast.set_muted(True),
        lambda: broadcast.set_camera(None),
        lambda: broadcast.set_voice_out(None),
        lambda: broadcast.start_recording("x.mp4"),
        lambda: broadcast.take_snapshot("x.png"),
    ):
        with pytest.raises(UsageError):
            change()


def test_another_portrait_takes_over_and_the_old_generator_is_closed(session, portraits):
    live = session()
    live.broadcast.start()
    live.until_presented()
    live.broadcast.set_portrait(portraits[1])
    first, second = live.generators
    live.until(lambda: first.closed == 1)  # just after the change has been answered
    assert second.closed == 0 and second.portrait.name == "blue"
    live.until_presented()


def test_portrait_that_cannot_be_used_changes_nothing(session, portraits):
    live = session()
    live.broadcast.start()
    live.until_presented()
    with pytest.raises(PortraitError):
        live.broadcast.set_portrait("/nowhere/x.png")
    live.prepare_error = GeneratorError("It does not fit.")
    with pytest.raises(GeneratorError):
        live.broadcast.set_portrait(portraits[1])
    assert [g.closed for g in live.generators] == [0, 1]
    live.until_presented()
    assert live.broadcast.state is SessionState.LIVE


def test_generator_that_cannot_take_over_in_time_is_closed(session, portraits, monkeypatch):
    monkeypatch.setattr(GeneratorRunner, "swap", partialmethod(GeneratorRunner.swap, timeout_s=0.05))
    live = session()
    live.broadcast.start()
    live.until_presented()
    in_chunk, may_end = threading.Event(), threading.Event()
    live.generators[0].during = lambda: (in_chunk.set(), may_end.wait(20))
    assert in_chunk.wait(20)
    with pytest.raises(GeneratorError, match="take over"):
        live.broadcast.set_portrait(portraits[1])
    may_end.set()
    live.until_presented(3)
    assert [g.closed for g in live.generators] == [0, 1]


def test_late_generator_is_told_of_and_so_is_its_end(session):
    live = session(tells_whether_late=True)
    live.broadcast.start()
    live.until_presented()
    may_end = threading.Event()
    live.generators[0].during = lambda: may_end.wait(60)
    live.until(lambda: live.states[-1] is SessionState.HOLDING)
    assert live.codes(StateChanged)[-1] == "session.holding"
    may_end.set()
    live.until(lambda: live.states[-1] is SessionState.LIVE)


def test_canvas_may_change_its_look_but_not_its_size(session):
    live = session()
    live.broadcast.start()
    live.broadcast.set_canvas(CanvasSettings(width=640, height=360, fill="solid", is_mirrored=True))
    with pytest.raises(UsageError, match="size"):
        live.broadcast.set_canvas(CanvasSettings())


def test_file_spoken_to_its_end_sets_has_ended(session, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(32_000, np.float32), 16_000)
    live = session(source=FileSource(path=str(tmp_path / "a.wav")))
    live.broadcast.start()
    assert live.broadcast.has_ended.wait(20)
    assert live.broadcast.stats().presented >= 5
