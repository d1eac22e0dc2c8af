"""The engine as the window sees it: a process that answers, survives nonsense, and never outlives its owner."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from engine.errors import ProtocolError
from engine.protocol.messages import (
    AnalysePortrait,
    Hello,
    ListDevices,
    Noticed,
    Ping,
    PortraitAnalysed,
    PreviewOpened,
    RecordingChanged,
    Reply,
    SessionState,
    SetCamera,
    SetCanvas,
    SetMuted,
    SetPortrait,
    Start,
    StartRecording,
    StateChanged,
    Stats,
    Stop,
    StopRecording,
    StoreHandles,
    TakeSnapshot,
)
from engine.protocol.shared_memory import FrameReader
from engine.settings import CameraSettings, CanvasSettings, FileSource, SessionSettings

SETTINGS = SessionSettings(portrait="sample:", has_preview=True, canvas=CanvasSettings(width=640, height=360))


def _live(process) -> FrameReader:
    assert process.ask(Start, settings=SETTINGS).error is None
    opened = process.wait(lambda e: isinstance(e, PreviewOpened))
    return FrameReader(opened.memory_name)


def _next(reader, count: int = 1, until=lambda picture: True) -> np.ndarray:
    """The picture with which `count` new ones have come that `until` accepts."""
    seen, end = 0, time.monotonic() + 30
    while True:
        taken = reader.newest()
        seen += taken is not None and bool(until(taken[1]))
        if taken is not None and seen == count:
            return taken[1]
        assert time.monotonic() < end, "such pictures did not come"
        time.sleep(0.005)


def test_first_word_and_last_word(engine):
    process = engine()
    hello = process.wait(lambda e: isinstance(e, Hello))
    assert (hello.protocol_version, hello.pid) == (1, process.process.pid) and "puppet" in hello.generators
    assert process.ask(Ping).error is None
    assert process.close() == 0
    assert type(process.events[-1]).__name__ == "Goodbye"


def test_preview_session_blinks_and_stops_cleanly(engine):
    process = engine()
    reader = _live(process)
    first = _next(reader).astype(int)
    _next(reader, 60)
    _next(reader, until=lambda picture: np.abs(picture - first).max() > 30)  # the portrait is alive
    stats = process.wait(lambda e: isinstance(e, Stats) and e.ticks > 60)
    # Before the first picture there is nothing to hold; a busy computer loses some, and counts them.
    assert stats.presented + stats.held + stats.late <= stats.ticks and stats.presented + stats.held > stats.ticks // 2
    assert stats.latency_ms < stats.delay_ms + 40
    assert process.ask(Stop).error is None
    states = [e.state for e in process.events if isinstance(e, StateChanged)]
    assert states[:2] == [SessionState.PREPARING, SessionState.LIVE] and states[-1] is SessionState.IDLE
    reader.close()
    with pytest.raises(ProtocolError):
        FrameReader(process.wait(lambda e: isinstance(e, PreviewOpened)).memory_name)


def test_live_changes_and_their_errors(engine, tmp_path):
    process = engine()
    reader = _live(process)
    before = _next(reader).astype(int)
    assert process.ask(SetPortrait, portrait="sample:theo").error is None
    _next(reader, until=lambda picture: np.abs(picture - before).mean() > 10)
    error = process.ask(SetPortrait, portrait=str(tmp_path / "no.png")).error
    assert error.code == "portrait.missing"
    _next(reader, 6)  # the old portrait goes on
    assert process.ask(SetMuted, is_muted=True).error is None
    mirrored = CanvasSettings(width=640, height=360, is_mirrored=True)
    assert process.ask(SetCanvas, canvas=mirrored).error is None
    assert process.ask(SetCanvas, canvas=CanvasSettings()).error.code == "usage"
    error = process.ask(SetCamera, camera=CameraSettings(device="/dev/video99")).error
    assert error.code.startswith("camera.") and error.message
    picture = tmp_path / "shot.png"
    assert process.ask(TakeSnapshot, path=str(picture)).error is None and picture.stat().st_size > 10_000
    assert process.ask(TakeSnapshot, path=str(picture)).error.code == "output.exists"
    reader.close()


def test_recording_on_and_off(engine, tmp_path):
    process = engine()
    reader = _live(process)
    clip = tmp_path / "clip.mp4"
    began_s = time.monotonic()
    assert process.ask(StartRecording, path=str(clip)).error is None
    assert process.ask(StartRecording, path=str(tmp_path / "b.mp4")).error is not None
    _next(reader, 30)
    assert process.ask(StopRecording).error is None
    took_s = time.monotonic() - began_s
    changes = [e.is_recording for e in process.events if isinstance(e, RecordingChanged)]
    assert changes == [True, False]
    import av

    with av.open(str(clip)) as file:
        assert 25 <= sum(1 for _ in file.decode(video=0)) <= 25 * took_s + 2
    assert process.ask(StopRecording).error is not None
    reader.close()


def test_file_ends_its_session_by_itself(engine, tmp_path):
    import soundfile

    soundfile.write(tmp_path / "short.wav", np.zeros(16_000, np.float32), 16_000)
    process = engine()
    settings = SessionSettings(portrait="sample:", source=FileSource(path=str(tmp_path / "short.wav")))
    assert process.ask(Start, settings=settings).error is None
    process.wait(lambda e: isinstance(e, StateChanged) and e.state is SessionState.IDLE)
    assert process.ask(Start, settings=settings).error is None, "and another can begin"


def test_failed_start_says_why_and_leaves_the_engine_usable(engine, tmp_path):
    process = engine()
    (tmp_path / "text.jpg").write_text("no picture")
    for portrait, code in (
        (str(tmp_path / "text.jpg"), "portrait.not_an_image"),
        ("sample:nobody", "portrait.no_such_sample"),
    ):
        error = process.ask(Start, settings=SessionSettings(portrait=portrait)).error
        assert error.code == code and error.message.endswith(".")
    error = process.ask(Start, settings=SessionSettings(portrait="sample:", recording="/nowhere/a.mp4")).error
    assert error.code == "output.no_folder"
    assert process.ask(Stop).error is None
    _live(process).close()


def test_garbage_is_answered_and_survived(engine):
    process = engine()
    process.write(b"this is not JSON\n\xff\xfe\n[]\n{}\n")
    process.write(b'{"type": "ping", "id": 77, "surprise": 1}\n')
    process.write(b'{"type": "start", "id": 78, "settings": {"portrait": "sample:", "fps": 7}}\n')
    process.write(b"x" * (2 << 20) + b"\n")
    for number, code in ((77, "protocol"), (78, "usage")):
        reply = process.wait(lambda e, n=number: isinstance(e, Reply) and e.id == n)
        assert reply.error.code == code
    assert sum(isinstance(e, Noticed) for e in process.events) >= 4
    assert process.ask(Ping).error is None


def test_devices_and_portraits_are_described(engine, tmp_path, monkeypatch):
    process = engine(XDG_DATA_HOME=str(tmp_path))
    assert process.ask(ListDevices).error is None
    assert process.ask(AnalysePortrait, portrait="sample:maya").error is None
    found = process.wait(lambda e: isinstance(e, PortraitAnalysed))
    assert found.has_face and {"left_eye", "chin", "mouth_left"} <= set(found.handles)
    moved = {name: tuple(value) for name, value in found.handles.items()}
    moved["chin"] = (moved["chin"][0], moved["chin"][1] + 20)
    assert process.ask(StoreHandles, portrait="sample:maya", handles=moved).error is None
    process.events.clear()
    assert process.ask(AnalysePortrait, portrait="sample:maya").error is None
    again = process.wait(lambda e: isinstance(e, PortraitAnalysed))
    assert again.handles["chin"][1] == pytest.approx(moved["chin"][1], abs=0.01)
    error = process.ask(StoreHandles, portrait="sample:maya", handles={"chin": (1.0, 2.0)}).error
    assert error.code == "portrait.bad_handles"
    assert process.ask(StoreHandles, portrait="sample:maya", handles={}).error is None


def test_the_engine_ends_within_two_seconds_of_its_owner(engine, fixture_module):
    def measure(spare) -> float:
        process = engine()
        _live(process).close()
        with spare:
            started = time.monotonic()
            process.process.stdin.close()
            process.process.wait(60)
            took_s = time.monotonic() - started
        children = [p for p in psutil.process_iter(["cmdline", "ppid"]) if p.info["ppid"] == process.process.pid]
        assert children == []
        process.close()
        return took_s

    def judge(took_s: float) -> None:
        assert took_s < 3.5  # two seconds, and some for Python's own end

    fixture_module("spare_time").judge_when_free(measure, judge)


def test_killed_engine_leaves_no_shared_memory(engine):
    process = engine()
    reader = _live(process)
    name = process.wait(lambda e: isinstance(e, PreviewOpened)).memory_name
    os.kill(process.process.pid, signal.SIGKILL)
    process.process.wait(30)
    deadline = time.monotonic() + 30
    while Path("/dev/shm", name).exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    reader.close()


def test_two_engines_side_by_side(engine):
    first, second = engine(), engine()
    readers = [_live(first), _live(second)]
    for reader in readers:
        _next(reader, 11)
        assert reader.extra > 0, "its own tick"
    for reader in readers:
        reader.close()
