"""The options `kernels` and `graphs`, from the generator down to what runs for a chunk."""

import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.errors import UsageError  # noqa: E402
from engine.generators.flashtalk import generator as generator_module  # noqa: E402
from engine.generators.flashtalk import graphs  # noqa: E402
from engine.generators.flashtalk import models as models_module  # noqa: E402
from engine.generators.flashtalk.generator import FlashTalkGenerator  # noqa: E402
from engine.generators.flashtalk.kernels import registry  # noqa: E402
from engine.generators.flashtalk.kernels.layer_norm import NORM_MODULATE  # noqa: E402
from engine.generators.flashtalk.kernels.registry import Kernels  # noqa: E402

STEPS, LATENTS = 2, 9


@pytest.fixture
def prepared(tiny_checkpoint, portrait, rig, own_folders):
    """A prepared generator and its notices, from options."""
    made = []

    def prepare(**options):
        given = {"checkpoint": str(tiny_checkpoint[0]), "size": "32x16", "steps": STEPS, "device": "cpu"}
        generator = FlashTalkGenerator(**given, **options)
        made.append(generator)
        return generator, generator.prepare(portrait, (9, 9), rig.Progress())

    yield prepare
    for generator in made:
        generator.close()


def _with_graphs(monkeypatch, recorder):
    monkeypatch.setattr(generator_module, "wants_graphs", lambda choice, device: choice == "on")
    monkeypatch.setattr(generator_module, "CudaRecorder", lambda device: recorder)


def test_chunks_run_from_graphs_and_look_the_same(rig, prepared, tape_recorder, monkeypatch):
    """All are decoded from one; the steps of the first are of another shape."""
    _with_graphs(monkeypatch, tape_recorder)
    plain, _ = prepared(graphs="off")
    recorded, notices = prepared(graphs="on")
    assert not [notice for notice in notices if notice.code == "flashtalk.graphs"]
    before = tape_recorder.replays
    wanted, got = rig.run(plain, 0, 1, 2), rig.run(recorded, 0, 1, 2)
    assert np.array_equal(got, wanted)
    assert tape_recorder.recorded == 3 and tape_recorder.replays == before + 2 * STEPS + 3 * LATENTS
    plain.reset()
    recorded.reset()
    assert np.array_equal(rig.run(recorded, 3, 4), rig.run(plain, 3, 4))


def test_a_graph_that_cannot_be_had_is_told_and_frames_come(rig, prepared, monkeypatch):
    class Failing:
        def record(self, work):
            raise RuntimeError("the driver is too old")

    _with_graphs(monkeypatch, Failing())
    generator, notices = prepared(graphs="on")
    (notice,) = (notice for notice in notices if notice.code == "flashtalk.graphs")
    assert notice.message.count("the driver is too old") == 2 and "decoding" in notice.message and notice.hint
    assert len(rig.run(generator, 0)) == rig.FRAMES


def test_where_there_is_no_room_nothing_is_recorded(rig, prepared, tape_recorder, monkeypatch):
    _with_graphs(monkeypatch, tape_recorder)
    free = iter((10**9, 10**9, 1_000))  # before the weights are there, before the portrait is encoded, and after
    monkeypatch.setattr(generator_module, "free_bytes", lambda device: next(free))
    generator, notices = prepared(graphs="on")
    (notice,) = (notice for notice in notices if notice.code == "flashtalk.graphs")
    assert notice.message.count("0.0 GB are free") == 2 and tape_recorder.recorded == 0
    assert len(rig.run(generator, 0)) == rig.FRAMES


def test_the_chosen_kernels_are_those_of_the_models(rig, prepared, monkeypatch):
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
    rig.run(generator, 0)
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
