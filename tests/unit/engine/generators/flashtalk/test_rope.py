"""Rotary positions and the embedding of timesteps, against complex numbers and plain loops in float64."""

from __future__ import annotations

import cmath
import math

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.rope import axis_pairs, rotary_table, rotate, sinusoid  # noqa: E402


@pytest.mark.parametrize(("head_dim", "pairs"), [(128, (22, 21, 21)), (24, (4, 4, 4)), (20, (4, 3, 3))])
def test_the_axes_share_the_pairs(head_dim, pairs):
    assert axis_pairs(head_dim) == pairs and sum(pairs) == head_dim // 2


def _turned(x: torch.Tensor, grid: tuple[int, int, int], head_dim: int) -> torch.Tensor:
    """Every pair of every token by itself, as specification 3.4 says it: x [tokens, heads, head_dim] in float64."""
    frames, rows, columns = grid
    spatial = (head_dim // 2) // 3
    temporal = head_dim // 2 - 2 * spatial
    out = torch.empty_like(x)
    for token in range(frames * rows * columns):
        position = (token // (rows * columns), token // columns % rows, token % columns)
        angles = [position[0] * 10000 ** (-2 * i / (2 * temporal)) for i in range(temporal)]
        for axis in (1, 2):
            angles += [position[axis] * 10000 ** (-2 * i / (2 * spatial)) for i in range(spatial)]
        for head in range(x.shape[1]):
            for pair, angle in enumerate(angles):
                z = complex(*x[token, head, 2 * pair : 2 * pair + 2].tolist()) * cmath.exp(1j * angle)
                out[token, head, 2 * pair], out[token, head, 2 * pair + 1] = z.real, z.imag
    return out


@pytest.mark.parametrize(("grid", "head_dim"), [((3, 2, 5), 24), ((2, 3, 1), 20), ((1, 1, 7), 128)])
def test_rotation_is_multiplication_by_a_unit_complex_number(grid, head_dim):
    x = torch.randn(math.prod(grid), 2, head_dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    table = rotary_table(grid, head_dim, torch.float64)
    assert table.shape == (2, math.prod(grid), 1, head_dim // 2)
    torch.testing.assert_close(rotate(x, table), _turned(x, grid, head_dim), rtol=0, atol=1e-12)


def test_products_depend_on_relative_positions_alone():
    """What rotary positions are for: q·k is the same wherever the two stand, if they stand apart alike."""
    grid = (4, 3, 5)
    generator = torch.Generator().manual_seed(2)
    q, k = (torch.randn(1, 1, 24, dtype=torch.float64, generator=generator).expand(60, 1, 24) for _ in range(2))
    table = rotary_table(grid, 24, torch.float64)
    products = torch.einsum("ihd,jhd->ij", rotate(q, table), rotate(k, table))
    for i, j in ((0, 7), (3, 22), (16, 37)):
        shifted = 1 * 15 + 1 * 5 + 1
        torch.testing.assert_close(products[i + shifted, j + shifted], products[i, j], rtol=1e-12, atol=1e-12)


def test_the_table_is_made_in_float64():
    """Angles of 1023 radians have a float32 spacing of 6e-5, which the table must not show."""
    table = rotary_table((1024, 1, 1), 24)
    exact = torch.tensor([math.cos(p * 10000 ** (-i / 4)) for p in range(1024) for i in range(4)], dtype=torch.float64)
    assert table.dtype == torch.float32
    assert (table[0, :, 0, :4].double().flatten() - exact).abs().max() < 1e-7


def test_narrow_input_is_turned_in_the_precision_of_the_table():
    x = torch.randn(30, 2, 24, generator=torch.Generator().manual_seed(3)).bfloat16()
    turned = rotate(x, rotary_table((3, 2, 5), 24))
    exact = rotate(x.double(), rotary_table((3, 2, 5), 24, torch.float64))
    assert turned.dtype == torch.bfloat16
    torch.testing.assert_close(turned, exact.bfloat16(), rtol=0, atol=0)


def test_timesteps_are_cosines_then_sines():
    steps = [1000.0, 937.5, 833.33331, 625.0, 0.0]
    got = sinusoid(torch.tensor(steps), 256)
    assert got.dtype == torch.float64 and got.shape == (5, 256)
    for row, t in zip(got, torch.tensor(steps).double().tolist(), strict=True):
        angles = [t * 10000 ** (-j / 128) for j in range(128)]
        wanted = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
        assert row.tolist() == pytest.approx(wanted, abs=1e-12)
