"""The generator's contract: what it hears, in which frame it shows it, and that nothing depends on chunking.

The renderer is replaced by one that notes what it is asked to show; real pictures are made in the renderer's tests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from engine.assets import asset_path
from engine.errors import GeneratorError
from engine.generators.factory import create_generator
from engine.generators.puppet import generator as generator_module
from engine.generators.puppet.geometry import FaceGeometry
from engine.generators.puppet.template import FaceHandles, handles_of_geometry
from engine.generators.puppet.voice import LOOKAHEAD_SAMPLES, VoiceAnalyser
from engine.media import AudioChunk, Portrait, first_sample_of

RATE_HZ = 16_000
HEAD = slice(10, None)


class NotingRenderer:
    """Takes the renderer's place and keeps every expression."""

    def __init__(self, image, geometry, *, size, person_mask=None):
        self.image, self.geometry, self.size, self.person_mask = image, geometry, size, person_mask
        self.shown: list[tuple[float, ...]] = []

    def render(self, expression, out):
        assert out.shape == (self.size[1], self.size[0], 3)
        self.shown.append(expression.as_tuple())


class Frames:
    """A frame writer that notes the numbers."""

    def __init__(self, generator):
        self.numbers: list[int] = []
        self._image = np.zeros((generator.spec.height, generator.spec.width, 3), np.uint8)

    def next_image(self):
        return self._image

    def commit(self, frame):
        self.numbers.append(frame)


class NoProgress:
    def update(self, stage, done, total, unit=""):
        assert 0 <= done <= total


@pytest.fixture(scope="module")
def geometry() -> FaceGeometry:
    return FaceGeometry.from_json(asset_path("portraits/maya.json").read_text("utf-8"))


@pytest.fixture
def noting(monkeypatch) -> list[NotingRenderer]:
    """Renderers made so far."""
    made: list[NotingRenderer] = []

    def make(*args, **options):
        made.append(NotingRenderer(*args, **options))
        return made[-1]

    monkeypatch.setattr(generator_module, "PuppetRenderer", make)
    return made


@pytest.fixture
def portrait(geometry) -> Portrait:
    width, height = geometry.image_size
    return Portrait(
        image=np.zeros((height, width, 3), np.uint8),
        name="maya",
        path="maya.png",
        digest="0" * 64,
        person_mask=np.full((height, width), 255, np.uint8),
        annotations={"puppet": json.dumps({"geometry": geometry.to_dict()})},
    )


@pytest.fixture
def generator(noting, portrait):
    made = create_generator("puppet", seed=7)
    made.prepare(portrait, (512, 512), NoProgress())
    return made


def chunks_of(samples: np.ndarray, frames: int = 1, first_frame: int = 0, fps: int = 25) -> Iterator[AudioChunk]:
    """Chunks as the timeline cuts them; all whole frames that have their look-ahead."""
    base = first_sample_of(first_frame, fps)
    frame = first_frame
    while True:
        first = first_sample_of(frame, fps)
        end = first_sample_of(frame + frames, fps) + LOOKAHEAD_SAMPLES
        if end - base > len(samples):
            return
        yield AudioChunk(
            first_frame=frame, frames=frames, first_sample=first, samples=samples[first - base : end - base]
        )
        frame += frames


def played(generator, chunks) -> list[int]:
    frames = Frames(generator)
    for chunk in chunks:
        generator.generate(chunk, frames)
    return frames.numbers


def test_asks_for_one_frame_and_40_ms_and_fills_the_room(noting, portrait):
    made = create_generator("puppet")
    with pytest.raises(GeneratorError):
        _ = made.spec
    assert made.prepare(portrait, (800, 450), NoProgress()) == []
    assert (made.spec.width, made.spec.height) == (450, 450)
    assert (made.spec.chunk.fps, made.spec.chunk.frames, made.spec.chunk.lookahead_samples) == (25, 1, 640)
    assert noting[0].size == (450, 450)
    assert noting[0].person_mask.max() == 1.0


def test_frame_shows_the_sound_of_its_own_time(generator, noting, speech):
    samples = speech("english").samples
    numbers = played(generator, chunks_of(samples))
    assert numbers == list(range(len(numbers)))
    analyser = VoiceAnalyser()
    analyser.push(samples)
    loudness = np.array([analyser.take().jaw for _ in numbers])
    jaws = np.array(noting[0].shown)[:, 0]
    assert np.array_equal(jaws > 0, loudness > 0)
    assert np.corrcoef(jaws, loudness)[0, 1] > 0.98
    assert not jaws[:8].any()
    assert jaws.max() > 0.4


@pytest.mark.parametrize("frames", [2, 5, 28])
def test_chunk_length_does_not_matter(generator, noting, speech, frames):
    samples = speech("german").samples
    played(generator, chunks_of(samples))
    alone = list(noting[0].shown)
    noting[0].shown.clear()
    generator.reset()
    played(generator, chunks_of(samples, frames))
    assert noting[0].shown == alone[: len(noting[0].shown)]
    assert len(noting[0].shown) > len(alone) - frames


def test_same_seed_same_frames_other_seed_other_head(noting, portrait, speech):
    samples = speech("german").samples
    for seed in (7, 7, 8):
        made = create_generator("puppet", seed=seed)
        made.prepare(portrait, (512, 512), NoProgress())
        played(made, chunks_of(samples))
    first, same, other = (np.array(renderer.shown) for renderer in noting)
    assert np.array_equal(first, same)
    assert np.array_equal(first[:, :6], other[:, :6])
    assert not np.array_equal(first[:, HEAD], other[:, HEAD])


def test_reset_is_a_new_stream(generator, noting, speech):
    samples = speech("spanish").samples
    played(generator, chunks_of(samples))
    first = list(noting[0].shown)
    noting[0].shown.clear()
    generator.reset()
    played(generator, chunks_of(samples))
    assert noting[0].shown == first


def test_gap_is_not_continued_and_the_head_does_not_jump(generator, noting, speech):
    samples = speech("english").samples
    first = list(chunks_of(samples[:RATE_HZ]))
    later = list(chunks_of(samples, first_frame=500))
    later[0] = AudioChunk(
        first_frame=500, frames=1, first_sample=500 * 640, samples=later[0].samples, is_discontinuous=True
    )
    numbers = played(generator, [*first, *later])
    assert numbers == [*range(len(first)), *range(500, 500 + len(later))]
    shown = np.array(noting[0].shown)
    steps = np.abs(np.diff(shown[:, HEAD], axis=0)).max(axis=1)
    assert steps[len(first) - 1] < 0.02
    assert not shown[len(first) : len(first) + 8, 0].any()
    assert shown[len(first) :, 0].max() > 0.4


def test_a_jump_without_a_word_is_noticed(generator, noting, speech):
    samples = speech("english").samples
    played(generator, chunks_of(samples[:RATE_HZ]))
    count = len(noting[0].shown)
    played(generator, chunks_of(samples, first_frame=500))
    assert not np.array(noting[0].shown)[count : count + 8, 0].any()


def test_silence_rests_exactly(generator, noting):
    played(generator, chunks_of(np.zeros(RATE_HZ * 8, np.float32)))
    shown = np.array(noting[0].shown)
    assert not shown[:, :6].any()
    assert shown[:, 6].max() == 1.0
    assert np.ptp(shown[:, 10:], axis=0).max() > 0.01


def test_open_mouth_is_held_closed(noting, portrait, geometry, speech):
    stored = {**geometry.to_dict(), "is_mouth_open": True}
    open_mouth = Portrait(
        image=portrait.image,
        name="",
        path="",
        digest="",
        person_mask=portrait.person_mask,
        annotations={"puppet": json.dumps({"geometry": stored})},
    )
    made = create_generator("puppet")
    made.prepare(open_mouth, (512, 512), NoProgress())
    played(made, chunks_of(speech("english").samples))
    shown = np.array(noting[0].shown)
    assert shown[0, 4] == pytest.approx(0.97)
    assert shown[:, 4].min() < shown[0, 4] - 0.15


def test_too_little_sound_is_an_error(generator):
    with pytest.raises(GeneratorError, match="too early"):
        played(generator, [AudioChunk(first_frame=0, frames=1, first_sample=0, samples=np.zeros(640, np.float32))])


def test_close_twice_and_no_frames_after(generator):
    generator.close()
    generator.close()
    with pytest.raises(GeneratorError):
        played(generator, chunks_of(np.zeros(RATE_HZ, np.float32)))


@pytest.mark.parametrize("stored", ["", "not json", "[1]", "handles"])
def test_face_is_looked_for_when_none_is_stored(noting, portrait, geometry, monkeypatch, stored):
    asked = []

    def look(image, handles=None):
        asked.append(handles)
        warning = SimpleNamespace(code="puppet.mouth_open", message="The mouth is open.", hint="Take another.")
        return SimpleNamespace(geometry=geometry, person_mask=None, warnings=[warning])

    monkeypatch.setattr(generator_module, "analyse_portrait", look)
    handles = handles_of_geometry(geometry)
    text = json.dumps({"handles": handles.to_dict()}) if stored == "handles" else stored
    made = create_generator("puppet")
    bare = Portrait(image=portrait.image, name="", path="", digest="", annotations={"puppet": text} if text else {})
    (notice,) = made.prepare(bare, (512, 512), NoProgress())
    assert notice.code == "puppet.mouth_open"
    assert len(asked) == 1
    if stored == "handles":
        assert isinstance(asked[0], FaceHandles)
        assert asked[0].to_points() == handles.to_points()
    else:
        assert asked[0] is None
