"""A real microphone and a real output (PulseAudio null sinks): the whole way, and how well it keeps together."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from engine.audio.pulse_stream import PulseRecording
from engine.protocol.messages import DevicesListed, ListDevices, SetSource, SetVoiceOut, Start, Stats, Stop
from engine.settings import CanvasSettings, MicrophoneSource, SessionSettings, VoiceOutSettings

RATE_HZ = 48_000


@pytest.fixture
def bursts(tmp_path):
    """Ten seconds: a vowel-like sound of 200 ms at every second, silence between; easy for lips and for a detector."""
    t = np.arange(10 * RATE_HZ) / RATE_HZ
    voice = sum(np.sin(2 * np.pi * 140 * n * t) / n * (1.0 if n * 140 < 900 else 0.25) for n in range(1, 25))
    gate = ((t % 1.0) < 0.2) & (t > 0.9) & (t < 9.9)
    path = tmp_path / "bursts.wav"
    soundfile.write(path, (0.12 * voice * gate).astype(np.float32), RATE_HZ)
    return path


def _onsets(envelope: np.ndarray, rate_hz: float, threshold: float) -> np.ndarray:
    """Times in s at which the envelope rises above the threshold after at least 0.4 s below it."""
    above = envelope > threshold
    starts = np.flatnonzero(above[1:] & ~above[:-1]) + 1
    kept, quiet = [], int(0.4 * rate_hz)
    for start in starts:
        if not above[max(0, start - quiet) : start].any():
            kept.append(start / rate_hz)
    return np.array(kept)


def _sound_of(path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])


def _mouth_of(path) -> np.ndarray:
    """Per frame: how much the region of the mouth has changed since the frame before."""
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="gray").astype(float) for frame in file.decode(video=0)]
    height, width = frames[0].shape
    mouth = np.s_[int(0.55 * height) : int(0.75 * height), int(0.42 * width) : int(0.58 * width)]
    stack = np.stack([frame[mouth] for frame in frames])
    return np.abs(np.diff(stack, axis=0, prepend=stack[:1])).mean(axis=(1, 2))


def test_devices_are_listed_by_name(sound_server, engine):
    process = engine()
    assert process.ask(ListDevices).error is None
    found = process.wait(lambda e: isinstance(e, DevicesListed))
    assert "fakemic" in [device.name for device in found.microphones]
    assert "fakeout" in [device.name for device in found.voice_outs]
    assert all(device.rate_hz >= 8000 and device.host_api for device in found.microphones)


def _settings(**more) -> SessionSettings:
    return SessionSettings(
        portrait="sample:maya",
        source=MicrophoneSource(name="fakemic"),
        voice_out=VoiceOutSettings(name="fakeout"),
        canvas=CanvasSettings(width=640, height=360),
        **more,
    )


def _last_stats(process) -> Stats:
    return [event for event in process.events if isinstance(event, Stats)][-1]


def test_voice_and_lips_arrive_together(sound_server, engine, bursts, tmp_path, fixture_module):
    """Speech into the microphone; voice out recorded from the other sink, the picture by the recorder.

    The recording holds the sound at its capture time and the picture at its presentation tick, so lips must open
    within a frame or two of the sound in it.
    """

    def measure(spare) -> tuple[Stats, np.ndarray, Path]:
        process, folder = engine(), Path(tempfile.mkdtemp(dir=tmp_path))
        clip, heard = folder / "clip.mp4", folder / "heard.wav"
        assert process.ask(Start, settings=_settings(recording=str(clip), adaptive=False)).error is None
        listening = sound_server.record(heard)
        time.sleep(1.0)
        with spare:
            sound_server.speak(bursts).wait(20)
            time.sleep(1.0)
        stats = _last_stats(process)
        assert process.ask(Stop).error is None
        assert process.close() == 0
        listening.terminate()
        listening.wait(5)
        assert stats.overflows == 0 and stats.av_offset_ms is not None
        voice, rate_hz = soundfile.read(heard)
        return stats, _onsets(np.abs(voice), rate_hz, 0.02), clip

    def judge(measured: tuple[Stats, np.ndarray, Path]) -> None:
        """Of single moments, mostly: one in which the computer does something else is enough to fail."""
        stats, voice_starts, clip = measured
        _check_lips(clip)
        assert stats.latency_ms < 200 and stats.delay_ms == pytest.approx(stats.latency_ms, abs=40)
        assert abs(stats.av_offset_ms) < 20
        assert stats.late <= 10
        assert len(voice_starts) >= 7
        intervals = np.diff(voice_starts)
        assert np.abs(intervals - np.round(intervals)).max() < 0.010, "the voice comes out even, without jumps"

    fixture_module("spare_time").judge_when_free(measure, judge)


def _check_lips(clip: Path) -> None:
    sound_starts = _onsets(np.abs(_sound_of(clip)), RATE_HZ, 0.03)
    lips_start = _onsets(_mouth_of(clip), 25.0, 3.0)
    assert 7 <= len(sound_starts) <= 9
    offsets = [float(lips_start[np.abs(lips_start - s).argmin()] - s) for s in sound_starts]
    assert abs(np.median(offsets)) <= 0.060 and np.mean(np.abs(offsets) <= 0.125) >= 0.8, offsets


class Tape(threading.Thread):
    """What a source delivers, and when it began."""

    def __init__(self, source: str) -> None:
        super().__init__(daemon=True)
        self.stopping, self.begins_s = threading.Event(), math.inf
        self._recording = PulseRecording(source, RATE_HZ)
        self._blocks: list[np.ndarray] = []
        self._count = 0

    def run(self) -> None:
        while not self.stopping.is_set():
            samples, at_s = self._recording.read()
            # The promptest block places all of them; later ones waited for this thread.
            self.begins_s = min(self.begins_s, at_s - self._count / RATE_HZ)
            self._count += len(samples)
            self._blocks.append(samples[:, 0])
        self._recording.close()

    def stop(self) -> None:
        self.stopping.set()
        self.join(10)

    def since(self, time_s: float) -> np.ndarray:
        return np.concatenate(self._blocks)[round((time_s - self.begins_s) * RATE_HZ) :]


def _lag_ms(inside: np.ndarray, outside: np.ndarray) -> float:
    """How much later than `inside` the same sound is in `outside`: less than half a second."""
    length = min(len(inside), len(outside))
    inside, outside = (np.fft.rfft(np.abs(sound[:length]), 2 * length) for sound in (inside, outside))
    return 1000 * float(np.fft.irfft(outside * np.conj(inside))[: RATE_HZ // 2].argmax()) / RATE_HZ


def test_voice_out_is_as_late_as_promised(sound_server, engine, bursts):
    """Both sinks recorded side by side: what goes in, and what comes out."""
    process = engine()
    assert process.ask(Start, settings=_settings()).error is None
    time.sleep(1.0)
    given, heard = Tape("fakemic"), Tape("fakeout.monitor")
    for tape in (given, heard):
        tape.start()
    sound_server.speak(bursts).wait(20)
    time.sleep(1.0)
    stats = _last_stats(process)
    for tape in (given, heard):
        tape.stop()
    both_s = max(given.begins_s, heard.begins_s)
    lag_ms = _lag_ms(given.since(both_s), heard.since(both_s))
    print(f"{lag_ms:.1f} ms late, promised {stats.delay_ms:.1f} ms")
    # The devices' own buffers are only known to PortAudio's accuracy.
    assert lag_ms == pytest.approx(stats.delay_ms, abs=40)


def test_unknown_microphone_and_output_are_one_sentence(sound_server, engine):
    process = engine()
    assert process.ask(Start, settings=SessionSettings(portrait="sample:")).error is None
    error = process.ask(SetSource, source=MicrophoneSource(name="No Such Microphone")).error
    assert error.code == "microphone.missing" and "No Such Microphone" in error.message
    error = process.ask(SetVoiceOut, voice_out=VoiceOutSettings(name="No Such Output")).error
    assert error.code == "voice_out.missing"


def test_microphone_that_disappears_leaves_a_resting_portrait(sound_server, engine):
    process = engine()
    settings = SessionSettings(portrait="sample:", source=MicrophoneSource(name="fakemic"))
    assert process.ask(Start, settings=settings).error is None
    time.sleep(1.0)
    sound_server.stop()
    notice = process.wait(lambda e: type(e).__name__ == "Noticed" and e.reason.code == "microphone.lost", 15)
    assert "fakemic" in notice.reason.message
    before = _last_stats(process).ticks
    process.wait(lambda e: isinstance(e, Stats) and e.ticks > before + 20)  # the picture goes on
    assert process.ask(Stop).error is None


def _until(condition) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def _pictures_in(clip: Path) -> int:
    """Of a recording, also while it is being made."""
    try:
        with av.open(str(clip)) as file:
            return sum(packet.size > 0 for packet in file.demux(video=0))
    except (av.FFmpegError, IndexError):
        return 0  # nothing has been written yet


def test_live_command_from_a_real_microphone(sound_server, tmp_path):
    """The command line does the same as the engine process, and ends cleanly on Ctrl-C."""
    clip, figures, told = tmp_path / "live.mp4", tmp_path / "stats.json", tmp_path / "told"
    command = [sys.executable, "-m", "engine", "live", "--portrait", "sample:", "--mic", "fakemic", "--no-camera"]
    command += ["--record", str(clip), "--canvas", "640x360", "--stats", str(figures)]
    with told.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        _until(lambda: "Live. Ctrl-C ends it." in told.read_text() or child.poll() is not None)
        _until(lambda: _pictures_in(clip) >= 50 or child.poll() is not None)
        assert child.poll() is None, told.read_text()
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0, told.read_text()
    finally:
        child.kill()
        child.wait()
    assert "Recorded" in told.read_text()
    stats = json.loads(figures.read_text())
    given = stats["presented"] + stats["held"] - stats["sinks"]["recorder"]["dropped"]
    with av.open(str(clip)) as file:
        recorded = sum(1 for _ in file.decode(video=0))
    print(f"{stats['presented']} presented, {given} given to the recorder by then, {recorded} recorded")
    # It goes on for a moment after the figures have been taken.
    assert stats["presented"] > 20 and -2 <= recorded - given <= 25
