"""Merging of partial attention, against softmax over all keys at once in float64."""

import math

import pytest
import torch
from torch import Tensor

from engine.generators.flashtalk.attention import attend_with_lse
from engine.parallel.ring import OnlineSoftmax

TOKENS, HEADS, WIDTH, KEYS = 5, 3, 4, 24


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def exact(logits: Tensor, values: Tensor) -> Tensor:
    """softmax(logits [heads, tokens, keys]) values [keys, heads, width] by definition, less the largest logit."""
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))
    weights /= weights.sum(-1, keepdim=True)
    return torch.einsum("htk,khw->thw", weights, values)


def block(logits: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """What a kernel gives for these keys: result and log-sum-exp [tokens, heads]."""
    return exact(logits, values), torch.logsumexp(logits, -1).t()


def merged(logits: Tensor, values: Tensor, sizes: list[int], order: list[int]) -> Tensor:
    parts = list(zip(logits.split(sizes, -1), values.split(sizes), strict=True))
    softmax = OnlineSoftmax()
    for index in order:
        softmax.add(*block(*parts[index]))
    return softmax.result(torch.float64)


@pytest.mark.parametrize("sizes", [[24], [12, 12], [1, 23], [7, 1, 9, 7], [1] * 24], ids=str)
@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
@pytest.mark.parametrize("seed", range(3))
def test_any_cut_in_any_order_is_the_whole(sizes, scale, seed):
    logits, values = scale * normal(HEADS, TOKENS, KEYS, seed=seed), normal(KEYS, HEADS, WIDTH, seed=seed + 10)
    wanted = exact(logits, values)
    orders = [list(range(len(sizes))), list(reversed(range(len(sizes))))]
    # A logit has been rounded by eps of itself before any exponential is taken.
    bound = 10 * torch.finfo(torch.float64).eps * (values.abs().max() * logits.abs().max() + 10).item()
    for order in orders:
        torch.testing.assert_close(merged(logits, values, sizes, order), wanted, rtol=0, atol=bound)


@pytest.mark.parametrize("offsets", [(0.0, 3e4), (3e4, 0.0), (-3e4, -3e4), (7e4, 7e4), (-1e300, 1e300)], ids=str)
def test_logits_that_no_exponential_holds(offsets):
    """exp(7e4) is infinite, exp(-3e4) zero: only differences may be exponentiated."""
    logits, values = normal(HEADS, TOKENS, KEYS, seed=1), normal(KEYS, HEADS, WIDTH, seed=2)
    logits[..., :10] += offsets[0]
    logits[..., 10:] += offsets[1]
    result = merged(logits, values, [10, 14], [0, 1])
    assert result.isfinite().all()
    # Beside 3e4 a logit keeps 5e-12 of itself.
    torch.testing.assert_close(result, exact(logits, values), rtol=0, atol=1e-10)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_block_that_nothing_looks_at_changes_nothing(place):
    """Wherever it comes: a log-sum-exp of minus infinity weighs nothing, and its zeros are never added as NaN."""
    logits, values = normal(HEADS, TOKENS, KEYS, seed=3), normal(KEYS, HEADS, WIDTH, seed=4)
    blocks = [block(*part) for part in zip(logits.split(12, -1), values.split(12), strict=True)]
    nothing = (torch.zeros(TOKENS, HEADS, WIDTH).double(), torch.full((TOKENS, HEADS), -math.inf).double())
    blocks.insert(place, nothing)
    softmax = OnlineSoftmax()
    for part in blocks:
        softmax.add(*part)
    torch.testing.assert_close(softmax.result(torch.float64), exact(logits, values), rtol=0, atol=1e-13)


def test_one_query_may_see_a_block_that_another_does_not():
    logits, values = normal(HEADS, TOKENS, KEYS, seed=5), normal(KEYS, HEADS, WIDTH, seed=6)
    logits[:, 0, :12] -= 1e6
    logits[:, 1, 12:] -= 1e6
    torch.testing.assert_close(merged(logits, values, [12, 12], [0, 1]), exact(logits, values), rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_results_in_16_bits_are_merged_in_32(dtype):
    """The merge adds nothing to what the blocks were rounded by, whatever their number."""
    logits, values = 3 * normal(HEADS, TOKENS, KEYS, seed=7), normal(KEYS, HEADS, WIDTH, seed=8)
    softmax = OnlineSoftmax()
    for part_logits, part_values in zip(logits.split(1, -1), values.split(1), strict=True):
        out, lse = block(part_logits, part_values.to(dtype).double())
        softmax.add(out.to(dtype), lse.float())
    result = softmax.result(dtype)
    assert result.dtype == dtype
    wanted = exact(logits, values.to(dtype).double())
    rounding = max(torch.finfo(dtype).eps / 2, 2e-6) * wanted.abs().max()
    assert (result.double() - wanted).abs().max() <= rounding


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_model_s_own_blocks(dtype):
    """Queries and keys through the kernel that the ring uses on a CPU."""
    q, k, v = (normal(count, HEADS, WIDTH, seed=seed).to(dtype) for seed, count in enumerate((TOKENS, KEYS, KEYS)))
    q, softmax = 30 * q, OnlineSoftmax()
    for keys, values in zip(k.split(9), v.split(9), strict=True):
        softmax.add(*attend_with_lse(q, keys, values))
    logits = torch.einsum("thw,khw->htk", q.double(), k.double()) / math.sqrt(WIDTH)
    bound = torch.finfo(dtype).eps * logits.abs().max().item() * v.abs().max().item()
    torch.testing.assert_close(softmax.result(dtype).double(), exact(logits, v.double()), rtol=0, atol=bound)


def test_inputs_stay_as_they_are():
    """A kernel's result may be a buffer of its own."""
    logits, values = normal(HEADS, TOKENS, KEYS, seed=9), normal(KEYS, HEADS, WIDTH, seed=10)
    blocks = [block(*part) for part in zip(logits.split(8, -1), values.split(8), strict=True)]
    before = [(out.clone(), lse.clone()) for out, lse in blocks]
    softmax = OnlineSoftmax()
    for part in blocks:
        softmax.add(*part)
    softmax.result(torch.float64)
    for (out, lse), (out_before, lse_before) in zip(blocks, before, strict=True):
        assert torch.equal(out, out_before) and torch.equal(lse, lse_before)
