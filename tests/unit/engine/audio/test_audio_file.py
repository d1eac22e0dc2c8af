"""Sound files of every kind; ffmpeg and soundfile write them, so the decoder is judged by others."""

from __future__ import annotations

import os
import shutil
import subprocess
import wave

import numpy as np
import pytest
import soundfile

from engine.audio.audio_file import AudioFile, to_mono
from engine.errors import AudioFileError

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def _tone(rate_hz: int, channels: int, seconds: float = 0.5) -> np.ndarray:
    t = np.arange(int(rate_hz * seconds)) / rate_hz
    return np.stack([0.4 * np.sin(2 * np.pi * (300 + 50 * c) * t) for c in range(channels)], axis=1).astype(np.float32)


def _code(path) -> str:
    with pytest.raises(AudioFileError) as caught:
        AudioFile(path).read_all()
    assert caught.value.message.endswith(".") and "\n" not in caught.value.message
    return caught.value.code


@pytest.mark.parametrize("rate_hz", [8000, 11025, 16000, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("channels", [1, 2])
def test_wav_of_any_rate_comes_back_sample_for_sample(tmp_path, rate_hz, channels):
    tone = _tone(rate_hz, channels)
    soundfile.write(tmp_path / "a.wav", tone, rate_hz, subtype="FLOAT")
    file = AudioFile(tmp_path / "a.wav")
    assert (file.rate_hz, file.channels) == (rate_hz, channels)
    assert file.duration_s == pytest.approx(0.5, abs=1e-3)
    assert np.array_equal(file.read_all(), tone)
    assert np.array_equal(file.read_all(), tone), "a second pass starts at the beginning"
    assert file.notices() == []


@pytest.mark.parametrize("channels", [3, 4, 6, 8])
def test_many_channels_are_averaged(tmp_path, channels):
    tone = np.repeat(_tone(16000, 1), channels, axis=1)
    soundfile.write(tmp_path / "a.wav", tone, 16000, subtype="FLOAT")
    mixed = AudioFile(tmp_path / "a.wav").read_all()
    assert mixed.shape == (len(tone), 1)
    assert np.allclose(to_mono(mixed), tone[:, 0], atol=1e-6)


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["mp3", "flac", "ogg", "m4a", "opus", "aiff"])
def test_common_formats(tmp_path, suffix):
    tone = _tone(48000, 1, 1.0)
    soundfile.write(tmp_path / "a.wav", tone, 48000)
    target = tmp_path / f"b.{suffix}"
    subprocess.run(["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", target], check=True)
    decoded = to_mono(AudioFile(target).read_all())
    assert abs(len(decoded) - 48000) < 4000
    spectrum = np.abs(np.fft.rfft(decoded[4000:44000]))
    assert spectrum.argmax() * 48000 / 40000 == pytest.approx(300, abs=2)


def test_missing_empty_folder_garbage(tmp_path):
    (tmp_path / "zero.wav").touch()
    (tmp_path / "text.mp3").write_text("this is not sound\n" * 50)
    soundfile.write(tmp_path / "none.wav", np.zeros((0, 1), np.float32), 16000)
    assert _code(tmp_path / "nothing.wav") == "audio_file.missing"
    assert _code(tmp_path / "zero.wav") == "audio_file.empty"
    assert _code(tmp_path) == "audio_file.folder"
    assert _code(tmp_path / "text.mp3") == "audio_file.not_audio"
    assert _code(tmp_path / "none.wav") == "audio_file.empty"


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "DOUBLE"])
def test_sample_formats(tmp_path, subtype):
    tone = _tone(16000, 2)
    soundfile.write(tmp_path / "a.wav", tone, 16000, subtype=subtype)
    step = 1 / 128 if subtype == "PCM_U8" else 1 / 32768
    assert np.abs(AudioFile(tmp_path / "a.wav").read_all() - tone).max() <= step


@needs_ffmpeg
def test_surround_in_a_compressed_file(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.repeat(_tone(48000, 1), 6, axis=1), 48000)
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-c:a", "aac", tmp_path / "a.m4a"]
    subprocess.run(command, check=True)
    assert AudioFile(tmp_path / "a.m4a").read_all().shape[1] == 1


@needs_ffmpeg
def test_video_without_sound(tmp_path):
    source = ["-f", "lavfi", "-i", "color=size=64x64:duration=0.2"]
    subprocess.run(["ffmpeg", "-v", "error", *source, tmp_path / "mute.mp4"], check=True)
    assert _code(tmp_path / "mute.mp4") == "audio_file.no_audio"


def test_not_a_number_becomes_silence_and_is_told(tmp_path):
    tone = _tone(16000, 1)
    tone[100:200] = np.nan
    tone[300] = np.inf
    soundfile.write(tmp_path / "nan.wav", tone, 16000, subtype="FLOAT")
    file = AudioFile(tmp_path / "nan.wav")
    samples = file.read_all()
    assert np.isfinite(samples).all() and not samples[100:200].any()
    assert [notice.code for notice in file.notices()] == ["audio_file.not_a_number"]
    assert "101 samples" in file.notices()[0].message


def test_clipping_and_silence_are_told(tmp_path):
    soundfile.write(tmp_path / "loud.wav", np.clip(8 * _tone(16000, 1), -1, 1), 16000)
    soundfile.write(tmp_path / "still.wav", np.zeros((16000, 1), np.float32), 16000)
    for name, code in (("loud.wav", "audio_file.clipped"), ("still.wav", "audio_file.silent")):
        file = AudioFile(tmp_path / name)
        file.read_all()
        assert [notice.code for notice in file.notices()] == [code]


def test_overloaded_float_samples_are_limited(tmp_path):
    soundfile.write(tmp_path / "hot.wav", 4 * _tone(16000, 1), 16000, subtype="FLOAT")
    assert np.abs(AudioFile(tmp_path / "hot.wav").read_all()).max() == 1.0


def test_truncated_file_gives_what_there_is(tmp_path):
    soundfile.write(tmp_path / "a.flac", _tone(16000, 1, 3.0), 16000)
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: len(data) // 2])
    assert 8000 < len(AudioFile(tmp_path / "a.flac").read_all()) < 40000


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile 'other.wav'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.wav\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    ],
    ids=["concat", "hls", "sdp"],
)
def test_a_file_that_names_others_opens_none(tmp_path, text):
    with wave.open(str(tmp_path / "other.wav"), "wb") as other:
        other.setparams((1, 2, 16000, 0, "NONE", ""))
        other.writeframes(bytes(32000))
    for name in ("list.wav", "list.m3u8", "list.ffconcat", "list.sdp"):
        (tmp_path / name).write_text(text)
        with pytest.raises(AudioFileError) as caught:
            AudioFile(tmp_path / name)
        assert caught.value.code == "audio_file.not_audio"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes in folders are POSIX's")
def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioFileError) as caught:
        AudioFile(tmp_path / "pipe.wav")
    assert caught.value.code == "audio_file.device"


@pytest.mark.skipif(os.name == "nt", reason="no name may hold a colon there")
def test_a_name_that_ffmpeg_would_obey_is_only_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with wave.open("subfile,,start,0,end,9,,:a.wav", "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes(bytes(3200))
    assert AudioFile("subfile,,start,0,end,9,,:a.wav").read_all().shape == (1600, 1)
