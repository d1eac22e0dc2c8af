"""How much GPU memory is asked for, against the published table, and what is said when there is less."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from engine.errors import GeneratorError  # noqa: E402
from engine.generators.flashtalk.config import DiTConfig, StreamShape  # noqa: E402
from engine.generators.flashtalk.memory import check_memory, needed_bytes  # noqa: E402
from engine.generators.flashtalk.options import SIZES  # noqa: E402
from engine.generators.flashtalk.weights import Precision, precision_for  # noqa: E402

REAL = DiTConfig()
BF16 = precision_for(torch.device("cuda"))
GB = 1e9


def _needed(height: int, width: int, precision: Precision = BF16) -> float:
    return needed_bytes(REAL, StreamShape(height=height, width=width), precision) / GB


def test_the_models_own_size_needs_what_the_tables_add_up_to():
    """Specification 9.1 and 9.4: 28.9 GB of weights stay, 0.65 GB of other models, 0.21 + 0.24 GB of image and audio
    keys and a little text, 0.25 GB of constant patches, 1.5 to 2.5 GB in a step or 2.6 to 3.6 GB in the decoder."""
    weights, keys, constant = 28.9 + 0.25 + 0.38, 0.21 + 0.24 + 0.05, 0.25
    assert weights + keys + constant + 2.6 < _needed(768, 448) < weights + keys + constant + 2.5 + 3.6


def test_fp32_weights_need_twice_as_much():
    full = precision_for(torch.device("cpu"))
    assert 1.8 * _needed(768, 448) < _needed(768, 448, full) < 2 * _needed(768, 448)


def test_larger_pictures_need_more_and_landscape_as_much():
    needed = [_needed(*size) for size in ((256, 256), (512, 320), (640, 384), (512, 512), (768, 448), (1280, 720))]
    assert needed == sorted(needed) and needed[-1] - needed[0] > 5
    assert _needed(448, 768) == _needed(768, 448)


def test_a_small_model_needs_little():
    tiny = DiTConfig(dim=96, ffn_dim=128, freq_dim=32, num_heads=4, num_layers=2, text_dim=24, intermediate_dim=8)
    assert needed_bytes(tiny, StreamShape(height=64, width=48), BF16) < 0.1 * GB


def test_enough_is_enough():
    shape = StreamShape()
    check_memory(REAL, shape, BF16, needed_bytes(REAL, shape, BF16), SIZES)


def test_too_little_says_needed_free_and_the_largest_size_that_would_fit():
    free = int(_needed(640, 384) * GB) + 1
    with pytest.raises(GeneratorError) as raised:
        check_memory(REAL, StreamShape(), BF16, free, SIZES)
    error = raised.value
    assert error.code == "flashtalk.memory"
    assert f"{_needed(768, 448):.1f} GB" in error.message and f"{free / GB:.1f} GB are free" in error.message
    assert "768x448" in error.message and "640x384 would fit" in error.hint


def test_a_size_that_is_as_large_is_not_offered():
    shape = StreamShape(height=320, width=512)
    with pytest.raises(GeneratorError) as raised:
        check_memory(REAL, shape, BF16, needed_bytes(REAL, shape, BF16) - 1, SIZES)
    assert "would fit" not in raised.value.hint and "puppet" in raised.value.hint


def test_where_nothing_fits_no_size_is_offered():
    with pytest.raises(GeneratorError) as raised:
        check_memory(REAL, StreamShape(), BF16, int(8 * GB), SIZES)
    assert "8.0 GB are free" in raised.value.message and "would fit" not in raised.value.hint
