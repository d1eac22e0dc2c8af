"""Rounding to 8 bits, against the formats' own tables of values, and the rotation, against what it must preserve."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.quantization.scheme import (  # noqa: E402
    FP8,
    INT8,
    SCHEMES,
    block_width,
    dequantize_weight,
    quantize_tokens,
    quantize_weight,
    rotated,
)


def _values(name: str) -> torch.Tensor:
    """Every number that the format can hold, from its definition: e4m3 has a bias of 7 and no infinities."""
    if name == "int8":
        return torch.arange(-127, 128).double()
    positive = [mantissa / 8 * 2**-6 for mantissa in range(8)]
    positive += [(1 + mantissa / 8) * 2.0 ** (exponent - 7) for exponent in range(1, 16) for mantissa in range(8)]
    return torch.tensor([sign * value for value in positive[:-1] for sign in (1, -1)]).double().unique()


def _outliers(rows: int, width: int) -> torch.Tensor:
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
    x[:, ::97] *= 60
    return x


@pytest.mark.parametrize("name", SCHEMES)
def test_every_number_becomes_the_nearest_of_the_format(name):
    scheme, x = SCHEMES[name], _outliers(40, 128)
    quantized, scales = quantize_weight(x, scheme)
    turned = rotated(x) if scheme.is_rotated else x
    exact = turned.double() / scales.unsqueeze(1).double()
    table = _values(name)
    nearest = (exact.unsqueeze(-1) - table).abs().amin(-1)
    assert quantized.dtype == scheme.dtype and exact.abs().max() <= scheme.largest * (1 + 1e-6)
    torch.testing.assert_close((quantized.double() - exact).abs(), nearest, rtol=0, atol=scheme.largest * 1e-6)
    # The whole range is used by every row: its largest number is the format's.
    assert torch.equal(quantized.double().abs().amax(1), torch.full((40,), scheme.largest, dtype=torch.float64))


@pytest.mark.parametrize("name", SCHEMES)
def test_tokens_have_the_scales_of_their_own_row_in_any_number(name):
    """More rows than are done at once, of very different sizes; a row alone is quantised as among others."""
    scheme = SCHEMES[name]
    x = _outliers(2100, 64) * torch.logspace(-3, 3, 2100).unsqueeze(1)
    quantized, scales = quantize_tokens(x, scheme)
    for row in (0, 1, 2047, 2048, 2099):
        alone, scale = quantize_tokens(x[row : row + 1], scheme)
        torch.testing.assert_close(scales[row : row + 1], scale)
        assert (quantized[row].float() - alone[0].float()).abs().max() <= scheme.largest / 100
    turned = rotated(x) if scheme.is_rotated else x
    torch.testing.assert_close(scales, turned.abs().amax(1, keepdim=True) / scheme.largest)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zeros_stay_zeros_and_no_numbers_stay_none(name, dtype):
    x = torch.zeros(3, 64, dtype=dtype)
    x[1, 5] = float("nan")
    quantized, scales = quantize_tokens(x, SCHEMES[name])
    values = quantized.float() * scales
    assert torch.equal(values[[0, 2]], torch.zeros(2, 64)) and values[1].isnan().any()


@pytest.mark.parametrize(("width", "block"), [(5120, 256), (13824, 256), (96, 16), (128, 64), (30, 1), (12, 4)])
def test_blocks_divide_the_width(width, block):
    assert block_width(width) == block


@pytest.mark.parametrize("width", [64, 96, 512])
def test_a_rotation_keeps_products_and_lengths(width):
    """In float64, where rounding does not hide anything."""
    x, w = torch.randn(5, width, dtype=torch.float64), torch.randn(7, width, dtype=torch.float64)
    torch.testing.assert_close(rotated(x) @ rotated(w).t(), x @ w.t(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rotated(x).norm(dim=1), x.norm(dim=1), rtol=1e-12, atol=1e-12)


def test_a_rotation_is_the_same_in_every_process_and_exact_in_bfloat16():
    """Stored weights are rotated with it."""
    exact = rotated(torch.eye(256, dtype=torch.float64))
    assert torch.equal(rotated(torch.eye(256, dtype=torch.bfloat16)).double(), exact)
    assert exact.abs().unique().tolist() == [1 / 16]
    assert exact[:8, 0].mul(16).tolist() == [1, 1, -1, 1, -1, 1, 1, 1]


def test_a_rotation_spreads_an_outlier_and_a_common_offset():
    x = torch.zeros(2, 256)
    x[0, 17], x[1] = 100.0, 1.0
    turned = rotated(x)
    assert turned[0].abs().max() == 100 / 16 and turned[1].abs().max() < 4


@pytest.mark.parametrize(("scheme", "bound"), [(FP8, 0.03), (INT8, 0.012)])
def test_a_weight_is_restored_but_for_its_rounding(scheme, bound):
    w = _outliers(64, 512)
    restored = dequantize_weight(*quantize_weight(w, scheme), scheme)
    assert 0 < (restored - w).norm() / w.norm() < bound
