"""From a few measured chunks of small models to what every setting would cost."""

import pytest
import torch

from engine.errors import GeneratorError
from engine.generators.flashtalk import probe as module
from engine.generators.flashtalk.config import DiTConfig, StreamShape
from engine.generators.flashtalk.probe import probe
from engine.generators.flashtalk.random_models import Sizes
from engine.generators.flashtalk.speech_encoder import SpeechEncoderConfig
from engine.generators.flashtalk.vae_coders import VaeConfig

CPU = torch.device("cpu")
LARGE, SMALL = StreamShape(height=768, width=448), StreamShape(height=512, width=320, frames=17)


def _machine(*, step=0.002, token=1e-6, pair=2e-11, pictures=0.05, pixel=2e-8):
    """Stand-in for `_medians`: the times of a machine that is known."""

    def medians(options, device, sizes, depth):
        shape = options.shape
        block_s = token * shape.tokens + pair * shape.tokens**2
        return {
            "audio": 0.01,
            "step": step + depth * block_s,
            "pictures": pictures + pixel * shape.height * shape.width * shape.frames,
            "first_share": 0.25,
        }

    return medians


def test_a_known_machine_is_found_again(monkeypatch):
    monkeypatch.setattr(module, "_medians", _machine())
    cost = module.cost_of("auto", CPU, Sizes())
    for shape in (LARGE, SMALL, StreamShape(height=640, width=384, frames=21)):
        block_s = 1e-6 * shape.tokens + 2e-11 * shape.tokens**2
        pictures_s = 0.05 + 2e-8 * shape.height * shape.width * shape.frames
        expected = 0.01 + 4 * (0.002 + 40 * block_s) + pictures_s
        assert cost.chunk_s(shape, 40, 4) == pytest.approx(expected, rel=1e-6)
        assert cost.first_frame_s(shape, 40, 4) == pytest.approx(expected - 0.75 * pictures_s, rel=1e-6)


def test_noise_never_makes_less_than_nothing(monkeypatch):
    """A small shape that took longer than a large one, as happens on a busy machine."""
    monkeypatch.setattr(module, "_medians", _machine(step=0.0, token=0.0, pair=-1e-12, pixel=-1e-9))
    cost = module.cost_of("auto", CPU, Sizes())
    assert cost.chunk_s(SMALL, 40, 2) >= 0 and cost.first_frame_s(SMALL, 40, 2) <= cost.chunk_s(SMALL, 40, 2)


def test_every_combination_is_offered_with_its_cost(monkeypatch, quiet):
    monkeypatch.setattr(module, "_medians", _machine())
    found = probe(quiet, device="cpu", sizes=Sizes())
    assert len(found) == 4 * 3 * 3
    by = {(r["options"]["size"], r["options"]["chunk"], r["options"]["steps"]): r for r in found}
    whole, least = by["768x448", 33, 4], by["512x320", 17, 2]
    assert whole["quality"] == max(r["quality"] for r in found) and least["quality"] == min(r["quality"] for r in found)
    assert whole["chunk_s"] > least["chunk_s"] and whole["memory_bytes"] > least["memory_bytes"]
    assert whole["frames"] == 28 and least["frames"] == 12
    assert whole["words"] == "768 x 448, 4 steps" and least["words"] == "512 x 320, 2 steps, chunks of 17 frames"


def test_small_models_are_really_measured(monkeypatch, quiet):
    config = DiTConfig(
        dim=32, ffn_dim=48, num_heads=4, freq_dim=32, text_dim=24, output_dim=48, audio_channels=32, num_layers=4
    )
    speech = SpeechEncoderConfig(hidden_size=32, num_attention_heads=4, intermediate_size=48, conv_dim=(16,) * 7)
    monkeypatch.setattr(module, "_SHAPES", (("64x64", 33), ("32x32", 17)))
    found = probe(quiet, device="cpu", sizes=Sizes(config=config, vae=VaeConfig(dim=8), speech=speech))
    assert all(0 < r["first_frame_s"] <= r["chunk_s"] for r in found)


def test_a_computer_without_a_gpu_is_told(quiet):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(GeneratorError, match="GPU"):
        probe(quiet)
