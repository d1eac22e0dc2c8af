"""Speaks assets/speech/welcome.txt into assets/speech/welcome.flac: one line a paragraph, with a pause between them.

Needs Debian's `festival`, `festvox-us-slt-hts` and `ffmpeg`; the voice was the clearest of those compared (README.md in
`assets`). Deterministic for the same versions of the tools.

Usage: python packaging/build_speech.py
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
from scipy import signal

SPEECH = Path(__file__).resolve().parent.parent / "assets" / "speech"
VOICE = "voice_cmu_us_slt_arctic_hts"
RATE_HZ = 48_000
EDGE_S, PAUSE_S = 0.4, 0.75
LOUDNESS_LUFS = -20.0
PEAK = 0.84  # -1.5 dBFS
# How the voice has to read what it would say wrongly.
SPOKEN_AS = {"Standin": "Stand In"}


def speak(text: str) -> np.ndarray:
    """(n,) float64 at RATE_HZ, silence around the words cut off."""
    for written, spoken in SPOKEN_AS.items():
        text = text.replace(written, spoken)
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "out.wav"
        subprocess.run(["text2wave", "-eval", f"({VOICE})", "-o", str(wav)], input=text.encode(), check=True)
        samples, rate_hz = soundfile.read(wav)
    samples = soxr.resample(samples, rate_hz, RATE_HZ, quality="VHQ")
    rumble = signal.butter(2, 70, "highpass", fs=RATE_HZ, output="sos")
    return faded(trimmed(signal.sosfiltfilt(rumble, samples)))


def trimmed(samples: np.ndarray) -> np.ndarray:
    """Without what is 45 dB below the peak at both ends, keeping 30 ms around."""
    loud = np.flatnonzero(np.abs(samples) > np.abs(samples).max() * 10 ** (-45 / 20))
    keep = int(0.03 * RATE_HZ)
    return samples[max(loud[0] - keep, 0) : loud[-1] + keep]


def faded(samples: np.ndarray) -> np.ndarray:
    """Raised-cosine ramps of 20 ms, so that the cuts do not click."""
    ramp = 0.5 - 0.5 * np.cos(np.linspace(0, np.pi, int(0.02 * RATE_HZ)))
    out = samples.copy()
    out[: len(ramp)] *= ramp
    out[-len(ramp) :] *= ramp[::-1]
    return out


def loudness_lufs(path: Path) -> float:
    """Integrated loudness by EBU R 128."""
    command = ["ffmpeg", "-hide_banner", "-nostats", "-i", str(path), "-af", "ebur128", "-f", "null", "-"]
    report = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True).stderr
    return float(re.findall(r"I:\s+(-?[0-9.]+) LUFS", report)[-1])


def main() -> int:
    paragraphs = (SPEECH / "welcome.txt").read_text(encoding="utf-8").splitlines()
    edge, pause = np.zeros(int(EDGE_S * RATE_HZ)), np.zeros(int(PAUSE_S * RATE_HZ))
    parts = [edge]
    for number, paragraph in enumerate(paragraphs):
        parts += ([pause] if number else []) + [speak(paragraph)]
    sound = np.concatenate([*parts, edge])
    path = SPEECH / "welcome.flac"
    soundfile.write(path, sound / np.abs(sound).max() * 0.5, RATE_HZ, subtype="PCM_16")
    sound = sound / np.abs(sound).max() * 0.5 * 10 ** ((LOUDNESS_LUFS - loudness_lufs(path)) / 20)
    # The few peaks above the ceiling are rounded off.
    knee = 0.75 * PEAK
    over = np.abs(sound) > knee
    sound[over] = np.sign(sound[over]) * (knee + (PEAK - knee) * np.tanh((np.abs(sound[over]) - knee) / (PEAK - knee)))
    soundfile.write(path, sound, RATE_HZ, subtype="PCM_16")
    print(f"{path.name}: {len(sound) / RATE_HZ:.2f} s, {loudness_lufs(path)} LUFS, peak {np.abs(sound).max():.2f}, "
          f"{path.stat().st_size / 1024:.0f} KB")  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
