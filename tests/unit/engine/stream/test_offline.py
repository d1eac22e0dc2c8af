"""Clips made offline: exact chunks, exact frames, the sound beside them."""

from __future__ import annotations

import av
import numpy as np
import pytest
import soundfile

from engine.audio.audio_file import AudioFile
from engine.errors import Cancelled, GeneratorError
from engine.generators.base import GeneratorSpec
from engine.media import ChunkSpec, Portrait
from engine.settings import CanvasSettings, GeneratorSettings
from engine.sinks.recorder import Recorder
from engine.stream import offline
from engine.stream.offline import ProgressFunction, chunks_of, render_clip


class Generator:
    """Grey frames whose level follows the loudness of their own sound."""

    def __init__(self, *, seed=0, fps=25, options=None, frames=1, lookahead_samples=640, fail_at=None):
        self._chunk = ChunkSpec(fps=fps, frames=frames, lookahead_samples=lookahead_samples)
        self.fail_at, self.chunks, self.closed = fail_at, [], 0

    @property
    def spec(self):
        return GeneratorSpec(name="test", width=64, height=64, chunk=self._chunk)

    def prepare(self, portrait, size, progress):
        return []

    def check(self):
        pass

    def take_notices(self):
        return []

    def generate(self, chunk, frames):
        self.chunks.append(chunk)
        for frame in range(chunk.first_frame, chunk.first_frame + chunk.frames):
            if frame == self.fail_at:
                raise GeneratorError("It broke.")
            at = frame * 640 - chunk.first_sample
            frames.next_image()[:] = 255 if np.abs(chunk.samples[at : at + 640]).max() > 0.1 else 0
            frames.commit(frame)

    def reset(self):
        pass

    def close(self):
        self.closed += 1


@pytest.fixture
def portrait():
    return Portrait(image=np.full((64, 64, 3), 90, np.uint8), name="p", path="p.png", digest="0" * 64)


def _blocks(count: int, size: int):
    counter = np.arange(count * size, dtype=np.float32)
    return counter, iter(counter.reshape(count, size))


@pytest.mark.parametrize("block", [1, 160, 1000, 17_920])
@pytest.mark.parametrize(("frames", "lookahead"), [(1, 640), (28, 0), (3, 100)])
def test_chunks_cover_the_sound_exactly(block, frames, lookahead):
    counter, blocks = _blocks(max(2, 40_000 // block), block)
    total = len(counter)
    chunks = list(chunks_of(blocks, ChunkSpec(fps=25, frames=frames, lookahead_samples=lookahead)))
    assert [c.first_frame for c in chunks] == [i * frames for i in range(len(chunks))]
    assert len(chunks) == -(-total // (frames * 640))
    padded = np.concatenate([counter, np.zeros(frames * 640 + lookahead, np.float32)])
    for chunk in chunks:
        length = frames * 640 + lookahead
        assert np.array_equal(chunk.samples, padded[chunk.first_sample : chunk.first_sample + length])


def test_chunks_at_thirty_frames_a_second_never_drift():
    _, blocks = _blocks(100, 1600)
    chunks = list(chunks_of(blocks, ChunkSpec(fps=30, frames=1)))
    assert len(chunks) == 300 and chunks[299].first_sample == 299 * 16000 // 30


def _render(tmp_path, monkeypatch, portrait, progress=None, **options):
    made = []

    def create(name, *, seed, fps, options):
        made.append(Generator(fps=fps, **given))
        return made[-1]

    given = options
    monkeypatch.setattr(offline, "create_generator", create)
    sound = np.zeros((48_000 * 2, 1), np.float32)
    sound[48_000 : 48_000 + 1920] = 0.8  # exactly frame 25
    soundfile.write(tmp_path / "a.wav", sound, 48_000)
    clip = render_clip(
        portrait,
        AudioFile(tmp_path / "a.wav"),
        Recorder(tmp_path / "o.mp4"),
        canvas=CanvasSettings(width=640, height=360, fill="solid", colour="#000000"),
        generator=GeneratorSettings(),
        fps=25,
        progress=progress or ProgressFunction(lambda *_: None),
    )
    return clip, made[0]


def _bright_frames(path) -> list[int]:
    with av.open(str(path)) as file:
        return [i for i, f in enumerate(file.decode(video=0)) if f.to_ndarray(format="gray")[180, 320] > 127]


@pytest.mark.parametrize("frames", [1, 28])
def test_frame_shows_its_own_sound(tmp_path, monkeypatch, portrait, frames):
    clip, generator = _render(tmp_path, monkeypatch, portrait, frames=frames)
    assert clip.is_complete and generator.closed == 1
    assert 25 in _bright_frames(tmp_path / "o.mp4")
    assert set(_bright_frames(tmp_path / "o.mp4")) <= {24, 25, 26}  # the resampler rings a little
    assert clip.frames == 50  # the sound ends there, though the chunk does not


def test_cancelled_clip_is_complete_up_to_there(tmp_path, monkeypatch, portrait):
    def stop(stage, done, total, unit):
        if done == 10:
            raise Cancelled("Stopped.")

    clip, generator = _render(tmp_path, monkeypatch, portrait, ProgressFunction(stop))
    assert not clip.is_complete and clip.frames == 10 and generator.closed == 1
    with av.open(str(tmp_path / "o.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) == 10


def test_failing_generator_raises_and_leaves_a_playable_file(tmp_path, monkeypatch, portrait):
    with pytest.raises(GeneratorError):
        _render(tmp_path, monkeypatch, portrait, fail_at=20)
    with av.open(str(tmp_path / "o.mp4")) as file:
        assert sum(1 for _ in file.decode(video=0)) == 20
