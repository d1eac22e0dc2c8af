"""A real microphone and a real output (PulseAudio null sinks): the whole way, and how well it keeps together."""

from __future__ import annotations

import subprocess
import sys
import time

import av
import numpy as np
import pytest
import soundfile

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


def test_voice_and_lips_arrive_together(sound_server, engine, bursts, tmp_path):
    """Speech into the microphone; voice out recorded from the other sink, the picture by the recorder.

    The recording holds the sound at its capture time and the picture at its presentation tick, so lips must open
    within a frame or two of the sound in it; and the voice out must be as late against the microphone as the session
    says it delays (measured by cross-correlation with what was played).
    """
    process = engine()
    clip, heard = tmp_path / "clip.mp4", tmp_path / "heard.wav"
    settings = SessionSettings(
        portrait="sample:maya",
        source=MicrophoneSource(name="fakemic"),
        voice_out=VoiceOutSettings(name="fakeout"),
        canvas=CanvasSettings(width=640, height=360),
        recording=str(clip),
        adaptive=False,
    )
    assert process.ask(Start, settings=settings).error is None
    listening = sound_server.record(heard)
    time.sleep(1.0)
    sound_server.speak(bursts).wait(20)
    time.sleep(1.0)
    stats = [event for event in process.events if isinstance(event, Stats)][-1]
    assert process.ask(Stop).error is None
    listening.terminate()
    listening.wait(5)

    sound_starts = _onsets(np.abs(_sound_of(clip)), RATE_HZ, 0.03)
    lips_start = _onsets(_mouth_of(clip), 25.0, 3.0)
    assert 7 <= len(sound_starts) <= 9
    offsets = [float(lips_start[np.abs(lips_start - s).argmin()] - s) for s in sound_starts]
    assert abs(np.median(offsets)) <= 0.060 and np.mean(np.abs(offsets) <= 0.125) >= 0.8, offsets

    assert stats.latency_ms < 200 and stats.delay_ms == pytest.approx(stats.latency_ms, abs=40)
    assert stats.av_offset_ms is not None and abs(stats.av_offset_ms) < 20
    assert stats.late <= 10 and stats.overflows == 0
    voice, rate_hz = soundfile.read(heard)
    voice_starts = _onsets(np.abs(voice), rate_hz, 0.02)
    assert len(voice_starts) >= 7
    intervals = np.diff(voice_starts)
    assert np.abs(intervals - np.round(intervals)).max() < 0.010, "the voice comes out even, without jumps"


def test_voice_out_is_as_late_as_promised(sound_server, engine, bursts, tmp_path):
    """Both sinks recorded side by side by the same server clock: what goes in, and what comes out."""
    process = engine()
    settings = SessionSettings(
        portrait="sample:maya",
        source=MicrophoneSource(name="fakemic"),
        voice_out=VoiceOutSettings(name="fakeout"),
        canvas=CanvasSettings(width=640, height=360),
    )
    assert process.ask(Start, settings=settings).error is None
    time.sleep(1.0)
    given, heard = tmp_path / "given.wav", tmp_path / "heard.wav"
    listening = [sound_server.record(heard)]
    listening.append(
        sound_server._start("parec", "-d", "fakemic", "--rate=48000", "--channels=1", "--latency-msec=10",
                            "--file-format=wav", str(given))
    )  # fmt: skip
    sound_server.speak(bursts).wait(20)
    time.sleep(1.0)
    stats = [event for event in process.events if isinstance(event, Stats)][-1]
    for recorder in listening:
        recorder.terminate()
        recorder.wait(5)
    inside, _ = soundfile.read(given)
    outside, _ = soundfile.read(heard)
    length = min(len(inside), len(outside))
    spectrum = np.fft.rfft(np.abs(outside[:length]), 2 * length) * np.conj(
        np.fft.rfft(np.abs(inside[:length]), 2 * length)
    )
    lag_ms = 1000 * float(np.fft.irfft(spectrum)[: RATE_HZ // 2].argmax()) / RATE_HZ
    # The two recorders start some ms apart, and the devices' own buffers are only known to PortAudio's accuracy.
    assert lag_ms == pytest.approx(stats.delay_ms, abs=60)


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
    before = [event for event in process.events if isinstance(event, Stats)][-1].ticks
    time.sleep(1.5)
    stats = [event for event in process.events if isinstance(event, Stats)][-1]
    assert stats.ticks - before > 20, "the picture goes on"
    assert process.ask(Stop).error is None


def test_live_command_from_a_real_microphone(sound_server, bursts, tmp_path):
    """The command line does the same as the engine process, and ends cleanly on Ctrl-C."""
    import signal

    clip = tmp_path / "live.mp4"
    command = [sys.executable, "-m", "engine", "live", "--portrait", "sample:", "--mic", "fakemic", "--no-camera"]
    command += ["--record", str(clip), "--canvas", "640x360", "--stats", str(tmp_path / "stats.json")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(5)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=20)
    assert child.returncode == 0 and "Recorded" in out
    assert (tmp_path / "stats.json").is_file()
    with av.open(str(clip)) as file:
        assert sum(1 for _ in file.decode(video=0)) > 20
