"""The options `kernels` and `graphs`, from the generator down to what runs for a chunk."""

import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.errors import UsageError  # noqa: E402
from engine.generators.flashtalk import feature_cache, graphs  # noqa: E402
from engine.generators.flashtalk import generator as generator_module  # noqa: E402
from engine.generators.flashtalk import models as models_module  # noqa: E402
from engine.generators.flashtalk.generator import FlashTalkGenerator  # noqa: E402
from engine.generators.flashtalk.kernels import registry  # noqa: E402
from engine.generators.flashtalk.kernels.layer_norm import NORM_MODULATE  # noqa: E402
from engine.generators.flashtalk.kernels.registry import Kernels  # noqa: E402
from engine.media import AudioChunk  # noqa: E402
from engine.portrait.load import load_portrait  # noqa: E402

FRAMES, SAMPLES, STEPS, LATENTS = 28, 17_920, 2, 9


class _Progress:
    def update(self, stage, done, total, unit=""):
        pass


class _Writer:
    def __init__(self):
        self._image, self.images = np.zeros((32, 16, 3), np.uint8), []

    def next_image(self):
        return self._image

    def commit(self, frame):
        self.images.append(self._image.copy())


@pytest.fixture
def prepared(tiny_checkpoint, tmp_path_factory, monkeypatch):
    """A prepared generator and its notices, from options."""
    cache = tmp_path_factory.getbasetemp() / "flashtalk_generator_cache"
    monkeypatch.setattr(feature_cache, "cache_folder", lambda: cache)
    made = []

    def prepare(**options):
        given = {"checkpoint": str(tiny_checkpoint[0]), "size": "32x16", "steps": STEPS, "device": "cpu"}
        generator = FlashTalkGenerator(**given, **options)
        made.append(generator)
        return generator, generator.prepare(load_portrait("sample:maya"), (9, 9), _Progress())

    yield prepare
    for generator in made:
        generator.close()


def _pictures(generator, *chunks):
    writer = _Writer()
    for number in chunks:
        samples = (np.random.default_rng(number).standard_normal(SAMPLES) * 0.05).astype(np.float32)
        chunk = AudioChunk(first_frame=FRAMES * number, frames=FRAMES, first_sample=SAMPLES * number, samples=samples)
        generator.generate(chunk, writer)
    return np.stack(writer.images)


def _with_graphs(monkeypatch, recorder):
    monkeypatch.setattr(generator_module, "wants_graphs", lambda choice, device: choice == "on")
    monkeypatch.setattr(generator_module, "CudaRecorder", lambda device: recorder)


def test_chunks_run_from_graphs_and_look_the_same(prepared, tape_recorder, monkeypatch):
    """All are decoded from one; the steps of the first are of another shape."""
    _with_graphs(monkeypatch, tape_recorder)
    plain, _ = prepared(graphs="off")
    recorded, notices = prepared(graphs="on")
    assert not [notice for notice in notices if notice.code == "flashtalk.graphs"]
    before = tape_recorder.replays
    wanted, got = _pictures(plain, 0, 1, 2), _pictures(recorded, 0, 1, 2)
    assert np.array_equal(got, wanted)
    assert tape_recorder.recorded == 3 and tape_recorder.replays == before + 2 * STEPS + 3 * LATENTS
    plain.reset()
    recorded.reset()
    assert np.array_equal(_pictures(recorded, 3, 4), _pictures(plain, 3, 4))


def test_a_graph_that_cannot_be_had_is_told_and_frames_come(prepared, monkeypatch):
    class Failing:
        def record(self, work):
            raise RuntimeError("the driver is too old")

    _with_graphs(monkeypatch, Failing())
    generator, notices = prepared(graphs="on")
    (notice,) = (notice for notice in notices if notice.code == "flashtalk.graphs")
    assert notice.message.count("the driver is too old") == 2 and "decoding" in notice.message and notice.hint
    assert len(_pictures(generator, 0)) == FRAMES


def test_where_there_is_no_room_nothing_is_recorded(prepared, tape_recorder, monkeypatch):
    _with_graphs(monkeypatch, tape_recorder)
    free = iter((10**9, 10**9, 1_000))  # before the weights are there, before the portrait is encoded, and after
    monkeypatch.setattr(generator_module, "free_bytes", lambda device: next(free))
    generator, notices = prepared(graphs="on")
    (notice,) = (notice for notice in notices if notice.code == "flashtalk.graphs")
    assert notice.message.count("0.0 GB are free") == 2 and tape_recorder.recorded == 0
    assert len(_pictures(generator, 0)) == FRAMES


def test_the_chosen_kernels_are_those_of_the_models(prepared, monkeypatch):
    """Streams with the same choice share the models, and those with another do not."""
    asked, calls = [], []

    def counted(*given):
        calls.append(len(given))
        return NORM_MODULATE.eager(*given)

    def choose(kernels, wanted, device, dtype):
        asked.append(wanted)
        return Kernels(active={"norm_modulate": counted}, refused={"add_gated": "its error is 3"})

    monkeypatch.setattr(models_module, "choose_kernels", choose)
    generator, notices = prepared(kernels="all")
    prepared(kernels="all")
    prepared(kernels="none")
    assert asked == ["all", "none"]
    (notice,) = (notice for notice in notices if notice.code == "flashtalk.kernels")
    assert "add_gated" in notice.message and "its error is 3" in notice.hint
    _pictures(generator, 0)
    layers = generator._models.dit.config.num_layers
    assert len(calls) == layers * STEPS


@pytest.mark.parametrize("option", [{"kernels": "most"}, {"graphs": "maybe"}, {"kernels": True}])
def test_other_choices_are_refused_with_those_that_there_are(option):
    with pytest.raises(UsageError) as raised:
        FlashTalkGenerator(**option)
    assert "auto" in raised.value.hint


def test_options_offer_what_is_there():
    offered = {}
    for name in ("kernels", "graphs"):
        with pytest.raises(UsageError) as raised:
            FlashTalkGenerator(**{name: "?"})
        offered[name] = raised.value.hint.removeprefix("Choose one of: ").removesuffix(".").split(", ")
    assert offered == {"kernels": list(registry.CHOICES), "graphs": list(graphs.CHOICES)}
    assert {"kernels", "graphs"} <= set(inspect.signature(FlashTalkGenerator).parameters)
