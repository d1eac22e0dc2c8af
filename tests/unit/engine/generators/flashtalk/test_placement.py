"""Weights in 8 bits and streamed ones, from the options to whole chunks of frames."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from engine.errors import UsageError  # noqa: E402
from engine.generators.flashtalk import feature_cache, placement  # noqa: E402
from engine.generators.flashtalk.config import DiTConfig  # noqa: E402
from engine.generators.flashtalk.generator import FlashTalkGenerator  # noqa: E402
from engine.generators.flashtalk.options import FlashTalkOptions  # noqa: E402
from engine.generators.flashtalk.placement import Storage, placement_for  # noqa: E402
from engine.generators.flashtalk.quantization import store  # noqa: E402
from engine.generators.flashtalk.quantization.linear import QuantizedLinear  # noqa: E402
from engine.generators.flashtalk.quantization.products import SCALED, WIDENED  # noqa: E402
from engine.generators.flashtalk.weights import precision_for  # noqa: E402

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def frames(tiny_checkpoint, portrait, rig, tmp_path, monkeypatch):
    """A function: one chunk of frames with these options, and the generator that made it."""
    monkeypatch.setattr(feature_cache, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(store, "quantized_folder", lambda: tmp_path / "8bit")
    opened = []

    def run(**options):
        values = {"checkpoint": str(tiny_checkpoint[0]), "size": "32x32", "steps": 2, "device": "cpu"}
        generator = FlashTalkGenerator(**values, **options)
        opened.append(generator)
        generator.prepare(portrait, (1, 1), rig.Progress())
        return rig.run(generator, 0, sides=(32, 32)), generator

    yield run
    for generator in opened:
        generator.close()


def _error(found: np.ndarray, exact: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found.astype(float) - exact) ** 2)))


def test_streamed_weights_make_the_same_frames_and_8_bits_nearly_the_same(frames):
    exact, resident = frames()
    assert resident.models.streamer is None
    streamed, generator = frames(offload="0")
    assert np.array_equal(streamed, exact) and generator.models.streamer.copies >= 2
    errors = {}
    for precision in ("int8", "fp8"):
        found, generator = frames(precision=precision)
        layers = [layer for layer in generator.models.dit.modules() if isinstance(layer, QuantizedLinear)]
        assert len(layers) == 20 and {layer.scheme.name for layer in layers} == {precision}
        errors[precision] = _error(found, exact)
        again, generator = frames(precision=precision, offload=1)
        assert np.array_equal(again, found) and len(generator.models.streamer.streamed) == 1
    assert 0 < errors["int8"] < errors["fp8"] < 16


@pytest.mark.parametrize("options", [{"precision": "int4"}, {"precision": 8}, {"offload": "all"}, {"offload": -1}])
def test_what_is_not_offered_is_refused(options):
    with pytest.raises(UsageError):
        FlashTalkOptions.of(options)


def test_numbers_that_were_typed_will_do():
    assert FlashTalkOptions.of({"offload": 12}).offload == "12"


@pytest.mark.parametrize(
    ("wanted", "dit"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)]
)
@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_a_precision_that_is_named_is_taken(wanted, dit, device):
    own, chosen = precision_for(device), precision_for(device, wanted)
    assert (chosen.dit, chosen.vae, chosen.speech) == (dit, dit, torch.float32)
    assert (chosen.text, chosen.image) == (own.text, own.image)


@pytest.mark.parametrize("wanted", ["auto", "fp8", "int8"])
def test_beside_8_bit_weights_everything_is_as_without(wanted):
    assert precision_for(CUDA, wanted) == precision_for(CUDA) and precision_for(CPU, wanted) == precision_for(CPU)


def _notices(monkeypatch, product, storage: Storage) -> list[str]:
    monkeypatch.setattr(placement, "choose_product", lambda *_: product)
    notices = []
    found = placement_for(storage, DiTConfig(), CUDA, torch.bfloat16, 0, notices)
    assert len(found.streamed) == storage.streamed and found.scheme == storage.scheme
    found.tell("No space left on device")
    assert all(notice.message and notice.hint for notice in notices)
    return [notice.code for notice in notices]


def test_people_are_told_what_they_get(monkeypatch):
    stored = "flashtalk.8bit_cache"
    assert _notices(monkeypatch, SCALED, Storage(precision="fp8")) == [stored]
    assert _notices(monkeypatch, WIDENED, Storage(precision="fp8")) == ["flashtalk.precision", stored]
    assert _notices(monkeypatch, SCALED, Storage(streamed=9)) == ["flashtalk.offload", stored]
    assert _notices(monkeypatch, SCALED, Storage(offload="31", streamed=9)) == [stored]
