"""From settings to a warmed-up generator; nothing is left open when that fails."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from PIL import Image

from engine.errors import Cancelled, GeneratorError, PortraitError
from engine.media import Notice
from engine.settings import CanvasSettings, GeneratorSettings, SessionSettings
from engine.stream import scene as scene_module
from engine.stream.scene import prepare_scene, recomposed


class Progress:
    """Keeps what it is told; can cancel at a stage."""

    def __init__(self, cancel_at=None):
        self.told, self._cancel_at = [], cancel_at

    def update(self, stage, done, total, unit=""):
        self.told.append((stage, done, total))
        if stage == self._cancel_at:
            raise Cancelled("Stopped.")


@pytest.fixture
def made(monkeypatch, plain_generator):
    """Every generator that was asked for, with the arguments; `made.change` alters the next one."""

    class Made(list):
        change = staticmethod(lambda generator: None)

    found = Made()

    def create(name, *, seed, fps, options):
        generator = plain_generator(fps=fps, frames=2, lookahead_samples=100)
        generator.asked, generator.resets = (name, seed, fps, options), 0
        generator.reset = lambda: setattr(generator, "resets", len(generator.chunks))
        generator.prepare = lambda portrait, size, progress: _prepare(generator, portrait, size)
        found.append(generator)
        found.change(generator)
        return generator

    def _prepare(generator, portrait, size):
        generator.portrait, generator.size = portrait, size
        return [Notice(code="generator.note", message="A note.")]

    monkeypatch.setattr(scene_module, "create_generator", create)
    return found


@pytest.fixture
def settings(tmp_path):
    """Of a portrait of 200x100."""
    Image.new("RGB", (200, 100), "red").save(tmp_path / "p.png")
    return SessionSettings(
        portrait=str(tmp_path / "p.png"),
        generator=GeneratorSettings(name="any", seed=7, options={"wings": 2}),
        canvas=CanvasSettings(width=640, height=360),
        fps=30,
    )


def test_generator_is_made_as_the_settings_say(made, settings):
    scene, notices = prepare_scene(settings, Progress())
    (generator,) = made
    assert generator.asked == ("any", 7, 30, {"wings": 2}) and scene.generator is generator
    assert generator.size == (640, 320), "the room on the canvas for this shape"
    assert "generator.note" in [notice.code for notice in notices]
    assert scene.canvas.compose(generator.portrait.image).shape == (360, 640, 3)


def test_warm_up_is_told_and_forgotten(made, settings):
    progress = Progress()
    prepare_scene(settings, progress)
    (generator,) = made
    assert [c.first_frame for c in generator.chunks] == [0, 2, 4]
    assert [c.is_discontinuous for c in generator.chunks] == [True, False, False]
    assert [len(c.samples) - 100 for c in generator.chunks] == [1066, 1067, 1067], "3200 are six frames"
    assert not any(c.samples.any() for c in generator.chunks)
    assert generator.resets == 3, "reset after the last chunk"
    assert ("warm-up", 3, 3) in progress.told


def test_the_puppet_starts_at_either_rate(settings):
    """It refuses a frame whose sound is one sample short."""
    for fps in (25, 30):
        asked = msgspec.structs.replace(settings, portrait="sample:maya", generator=GeneratorSettings(), fps=fps)
        scene, _ = prepare_scene(asked, Progress())
        assert scene.generator.spec.chunk.fps == fps
        scene.generator.close()


def test_time_per_chunk_is_the_slowest_but_the_first(made, settings, monkeypatch):
    """The first chunk loads and compiles; counting it would delay the whole session."""
    time_s = [0.0]
    monkeypatch.setattr(scene_module.time, "monotonic", lambda: time_s[0])
    durations = iter((5.0, 0.02, 0.03))

    def change(generator):
        generator.during = lambda: time_s.__setitem__(0, time_s[0] + next(durations))

    made.change = change
    scene, _ = prepare_scene(settings, Progress())
    assert scene.generate_s == pytest.approx(0.03)


@pytest.mark.parametrize("step", ["prepare", "generate"])
@pytest.mark.parametrize("error", [GeneratorError("No."), MemoryError(), KeyboardInterrupt()])
def test_failure_closes_the_generator(made, settings, step, error):
    def change(generator):
        setattr(generator, step, lambda *_: (_ for _ in ()).throw(error))

    made.change = change
    with pytest.raises(type(error)):
        prepare_scene(settings, Progress())
    assert made[0].closed == 1


def test_cancel_during_the_warm_up_closes_the_generator(made, settings):
    with pytest.raises(Cancelled):
        prepare_scene(settings, Progress(cancel_at="warm-up"))
    assert made[0].closed == 1


def test_bad_portrait_makes_no_generator(made, settings, tmp_path):
    (tmp_path / "p.png").write_text("not a picture")
    with pytest.raises(PortraitError):
        prepare_scene(settings, Progress())
    assert made == []


def test_backdrop_is_the_portraits(made, settings):
    scene, _ = prepare_scene(settings, Progress())
    canvas = scene.canvas.compose(np.zeros((320, 640, 3), np.uint8))
    red, green, blue = canvas[2, 320]
    assert red > 100 and green < 20 and blue < 20


@pytest.fixture
def time_s(monkeypatch):
    """The warm-up's clock, moved by hand."""
    now = [0.0]
    monkeypatch.setattr(scene_module.time, "monotonic", lambda: now[0])
    return now


def _progressive(time_s, first_s, each_s, first_chunk_s=0.0):
    """A generator whose frames come one after the other."""

    def change(generator):
        def generate(chunk, frames):
            generator.chunks.append(chunk)
            time_s[0] += first_s + (first_chunk_s if len(generator.chunks) == 1 else 0.0)
            for frame in range(chunk.first_frame, chunk.first_frame + chunk.frames):
                frames.next_image()
                frames.commit(frame)
                time_s[0] += each_s

        generator.spec = replace(generator.spec, chunk=replace(generator.spec.chunk, frames=28))
        generator.generate = generate

    return change


@pytest.mark.parametrize(
    ("first_s", "each_s", "expected_s"),
    [
        (0.2, 0.030, 0.2),  # ahead of the picture's pace after the first frame
        (0.7, 0.0, 0.7),  # all at once
        (0.2, 0.050, 0.2 + 27 * (0.050 - 1 / 30)),  # it falls behind: the last one is the latest
    ],
)
def test_first_frame_is_when_all_can_be_shown_at_their_pace(made, settings, time_s, first_s, each_s, expected_s):
    made.change = _progressive(time_s, first_s, each_s, first_chunk_s=9.0)
    scene, _ = prepare_scene(settings, Progress())
    assert scene.first_frame_s == pytest.approx(expected_s)
    assert scene.generate_s == pytest.approx(first_s + 28 * each_s)


def test_a_moment_in_which_the_computer_does_something_else_is_not_the_generators(made, settings, time_s):
    """Of a generator that makes one frame at a time."""

    def change(generator):
        def generate(chunk, frames):
            generator.chunks.append(chunk)
            time_s[0] += {1: 9.0, 7: 0.1}.get(len(generator.chunks), 0.005)
            frames.next_image()
            frames.commit(chunk.first_frame)

        generator.spec = replace(generator.spec, chunk=replace(generator.spec.chunk, frames=1))
        generator.generate = generate

    made.change = change
    scene, _ = prepare_scene(settings, Progress())
    assert (scene.generate_s, scene.first_frame_s) == pytest.approx((0.005, 0.005))


def test_generator_of_a_fixed_size_is_not_warmed_up_beside_one_that_runs(made, settings):
    made.change = lambda generator: setattr(generator, "spec", replace(generator.spec, follows_canvas=False))
    first, _ = prepare_scene(settings, Progress())
    like = replace(first, generate_s=0.7, first_frame_s=0.3)
    second, _ = prepare_scene(settings, Progress(), like=like)
    assert made[1].chunks == [] and (second.generate_s, second.first_frame_s) == (0.7, 0.3)


@pytest.mark.parametrize("difference", [{"follows_canvas": True}, {"width": 1024}, {"name": "another"}])
def test_generator_that_differs_is_warmed_up(made, settings, difference):
    made.change = lambda generator: setattr(generator, "spec", replace(generator.spec, follows_canvas=False))
    like, _ = prepare_scene(settings, Progress())
    like.generator.spec = replace(like.generator.spec, **difference)
    prepare_scene(settings, Progress(), like=like)
    assert len(made[1].chunks) == 3


def test_notices_of_the_warm_up_are_not_passed_on(made, settings):
    made.change = lambda generator: setattr(generator, "notices", [Notice(code="x", message="Y.")])
    prepare_scene(settings, Progress())
    assert made[0].take_notices() == []


def test_recomposed_is_the_same_generator_on_another_canvas(made, settings):
    scene, _ = prepare_scene(settings, Progress())
    other = msgspec.structs.replace(settings, canvas=CanvasSettings(width=640, height=360, is_mirrored=True))
    again = recomposed(scene, other)
    assert again.generator is scene.generator and (again.generate_s, again.first_frame_s) == (
        scene.generate_s,
        scene.first_frame_s,
    )
    picture = np.zeros((320, 640, 3), np.uint8)
    picture[:, :100] = 255
    shown = again.canvas.compose(picture)
    assert shown[180, 600].min() > 200 and shown[180, 40].max() < 50
    assert scene.canvas.compose(picture)[180, 40].min() > 200, "the old canvas is as it was"
    assert shown[2, 320, 0] > 100, "with the portrait's backdrop"
