"""The counter-based noise: published answers of its bits, the distribution of its numbers, and their independence."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
stats = pytest.importorskip("scipy.stats")

from engine.generators.flashtalk.noise import SeededNoise, normal, philox  # noqa: E402

_DRAWN = 200_003
"""Not a multiple of four: the last block is cut off."""


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_the_known_answers_of_philox(counter, key, answer):
    """From the test vectors published with the algorithm (Random123, kat_vectors, philox4x32 10)."""
    words = tuple(torch.tensor([int(word, 16)]) for word in counter.split())
    got = philox(words, tuple(int(word, 16) for word in key.split()))
    assert " ".join(f"{word.item():08x}" for word in got) == answer


def test_many_counters_are_as_each_alone():
    """Against the definition in Python's unlimited integers."""

    def rounds(c, k):
        c, k = list(c), list(k)
        for _ in range(10):
            p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
            c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & 0xFFFFFFFF, (p0 >> 32) ^ c[3] ^ k[1], p0 & 0xFFFFFFFF]
            k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
        return c

    counters = torch.randint(0, 2**32, (4, 300), generator=torch.Generator().manual_seed(0))
    got = torch.stack(philox(tuple(counters), (0x12345678, 0xFEDCBA98)))
    for index in range(300):
        assert got[:, index].tolist() == rounds(counters[:, index].tolist(), (0x12345678, 0xFEDCBA98))


@pytest.mark.parametrize(("seed", "chunk", "draw"), [(0, 0, 0), (9999, 3, 1), (2**63 - 1, 2**40, 4), (-1, 7, 2)])
def test_numbers_are_standard_normal(seed, chunk, draw):
    values = normal((_DRAWN,), seed, chunk, draw).numpy().astype(np.float64)
    assert abs(values.mean()) < 4 / np.sqrt(_DRAWN)
    assert abs(values.var() - 1) < 4 * np.sqrt(2 / _DRAWN)
    assert abs(stats.skew(values)) < 4 * np.sqrt(6 / _DRAWN)
    assert abs(stats.kurtosis(values)) < 4 * np.sqrt(24 / _DRAWN)
    assert stats.kstest(values, "norm").pvalue > 1e-4
    assert np.isfinite(values).all() and np.abs(values).max() < 6.0


def test_the_four_numbers_of_a_counter_are_independent():
    values = normal((4 * 50_000,), 5, 0, 0).view(-1, 4).double()
    for columns in (values, values.abs(), values.square()):
        correlation = torch.corrcoef(columns.T) - torch.eye(4)
        assert correlation.abs().max() < 5 / np.sqrt(50_000)
    neighbours = torch.corrcoef(torch.stack((values[1:, 0], values[:-1, 0])))[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(50_000)


_ELSEWHERE = [
    {"seed": 1}, {"seed": 2**32}, {"seed": 2**33}, {"seed": -1}, {"chunk": 1}, {"chunk": 2**32}, {"chunk": 2**33 + 1},
    {"draw": 1}, {"draw": 4},
]  # fmt: skip


@pytest.mark.parametrize("changed", _ELSEWHERE, ids=str)
def test_other_draws_chunks_and_seeds_are_other_numbers(changed):
    here = {"seed": 0, "chunk": 0, "draw": 0}
    a, b = normal((40_000,), **here).double(), normal((40_000,), **(here | changed)).double()
    assert abs(torch.corrcoef(torch.stack((a, b)))[0, 1]) < 5 / np.sqrt(40_000)
    # Nor are they the same ones at other places.
    assert len(np.intersect1d(a.numpy(), b.numpy())) < 400


def test_all_those_are_different_from_one_another():
    first = {normal((8,), **({"seed": 0, "chunk": 0, "draw": 0} | changed)).numpy().tobytes() for changed in _ELSEWHERE}
    assert len(first) == len(_ELSEWHERE)


def test_the_same_draw_is_the_same_numbers_in_any_shape():
    flat = normal((9 * 7,), 3, 4, 1)
    assert flat.dtype == torch.float32
    assert torch.equal(normal((9, 7), 3, 4, 1).flatten(), flat)
    assert torch.equal(normal((20,), 3, 4, 1), flat[:20])


def test_a_stream_asks_by_draw_and_counts_chunks_itself():
    noise = SeededNoise(11, (4, 2, 3), "cpu")
    drawn = [noise(0), noise(2)]
    noise.chunk = 2**32 + 1
    drawn.append(noise(0))
    wanted = [normal((4, 2, 3), 11, 0, 0), normal((4, 2, 3), 11, 0, 2), normal((4, 2, 3), 11, 2**32 + 1, 0)]
    assert all(torch.equal(a, b) for a, b in zip(drawn, wanted, strict=True))
    assert not torch.equal(drawn[2], normal((4, 2, 3), 11, 1, 0))
    noise.chunk = 0
    assert torch.equal(noise(0), wanted[0])
