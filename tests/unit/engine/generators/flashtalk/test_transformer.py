"""The transformer against a plain one that takes none of its shortcuts; then each of these alone."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.attention import attend_few_keys  # noqa: E402
from engine.generators.flashtalk.layers import RmsNorm  # noqa: E402
from engine.generators.flashtalk.transformer import from_patches, to_patches  # noqa: E402
from engine.parallel.group import LocalGroup  # noqa: E402

GRIDS = {"even": (3, 4, 4), "uneven": (3, 3, 5), "one frame": (1, 5, 2), "nine frames": (9, 2, 3)}

pytestmark = pytest.mark.usefixtures("no_gradients")


# --------------------------------------------------------------------------------------- all tricks together


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("words", [1, 7, 24, 31, 32])
def test_the_model_is_the_plain_model(tiny, grid, words):
    state, inputs = tiny.weights(), tiny.Inputs(grid, words)
    plain, dit = tiny.Plain(state, tiny.CONFIG, torch.float64, torch.float64), tiny.built(state)
    stream, chunk = tiny.conditions(dit, inputs)
    for step in (0, 2):
        got = dit(inputs.latents, step, stream, chunk, LocalGroup(), tiny.EXACT)
        assert got.dtype == torch.float64
        assert tiny.distance(got, plain(inputs, tiny.STEPS[step])) <= 1e-10


def test_every_input_matters_to_the_plain_model(tiny):
    """Or else the comparison above could hide a part that is switched off."""
    state, inputs = tiny.weights(), tiny.Inputs((3, 2, 3), 7)
    plain = tiny.Plain(state, tiny.CONFIG, torch.float64, torch.float64)
    before = plain(inputs, 625.0)
    for name in ("latents", "y", "context", "image", "windows"):
        changed = tiny.Inputs((3, 2, 3), 7)
        value = getattr(changed, name)
        value.copy_(value.roll(1, dims=-1))
        assert tiny.distance(plain(changed, 625.0), before) > 1e-2, name
    assert tiny.distance(plain(inputs, 833.3), before) > 1e-2
    for name in state:
        other = tiny.Plain(state | {name: state[name] * 0.5}, tiny.CONFIG, torch.float64, torch.float64)
        change = tiny.distance(other(inputs, 625.0), before)
        # A bias on all keys alike moves every logit of a query alike.
        is_idle = name.endswith(("self_attn.k.bias", "cross_attn.k.bias"))
        assert change > 1e-7 or is_idle, name


def test_conditions_do_not_depend_on_what_else_is_asked_for(tiny):
    """One of four steps is as if it were the only one, and asking again gives the same bits."""
    dit, inputs = tiny.built(tiny.weights()), tiny.Inputs((3, 2, 3), 5)
    stream, chunk = tiny.conditions(dit, inputs)
    alone, _ = tiny.conditions(dit, inputs, steps=tiny.STEPS[2:3])
    got = dit(inputs.latents, 2, stream, chunk, LocalGroup(), tiny.EXACT)
    again = dit(inputs.latents, 0, alone, chunk, LocalGroup(), tiny.EXACT)
    assert tiny.distance(again, got) < 1e-13
    assert torch.equal(dit(inputs.latents, 2, stream, chunk, LocalGroup(), tiny.EXACT), got)


# ------------------------------------------------------------------------------------------ the tricks alone


@pytest.mark.parametrize("words", [1, 7, 23, 24, 31, 32])
def test_one_padding_key_stands_for_all(tiny, words):
    state, inputs = tiny.weights(), tiny.Inputs((1, 2, 2), words)
    dit, plain = tiny.built(state), tiny.Plain(state, tiny.CONFIG, torch.float64, torch.float64)
    text, bias = dit.embed_text(inputs.context)
    everything = plain.text_tokens(inputs.context)
    assert len(text) == len(bias) and len(text) % 8 == 0
    q = torch.randn(50, tiny.CONFIG.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * 4
    for block in dit.blocks:
        few, all_keys = block.cross_attn.text_keys(text, bias), block.cross_attn.text_keys(everything, None)
        heads = q.unflatten(-1, (tiny.CONFIG.num_heads, tiny.CONFIG.head_dim))
        assert (
            tiny.distance(
                attend_few_keys(heads, few.k, few.v, few.bias), attend_few_keys(heads, all_keys.k, all_keys.v)
            )
            <= 1e-12
        )


def test_the_constant_patches_and_the_rest_are_the_convolution(tiny):
    state, inputs = tiny.weights(), tiny.Inputs((2, 3, 5), 4)
    stream, _ = tiny.conditions(dit := tiny.built(state), inputs)
    wanted = tiny.Plain(state, tiny.CONFIG, torch.float64, torch.float64).embed(inputs.latents, inputs.y)
    assert tiny.distance(dit.embed_patches(inputs.latents, stream, LocalGroup()), wanted) <= 1e-13


def test_the_table_of_timesteps_is_the_path_of_each(tiny):
    dit, plain = tiny.built(state := tiny.weights()), tiny.Plain(state, tiny.CONFIG, torch.float64, torch.float64)
    modulation, head = dit.embed_time(torch.tensor(tiny.STEPS, dtype=torch.float64))
    assert modulation.shape == (4, 2, 6, 96) and head.shape == (4, 2, 96)
    for step, t in enumerate(tiny.STEPS):
        e, e0 = plain.time(t)
        for layer in range(2):
            assert tiny.distance(modulation[step, layer], (state[f"blocks.{layer}.modulation"] + e0)[0]) <= 1e-13
        assert tiny.distance(head[step], (state["head.modulation"] + e[:, None])[0]) <= 1e-13


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_overlapping_slices_are_the_regrouped_windows(tiny, frames):
    state, inputs = tiny.weights(), tiny.Inputs((frames, 1, 1), 4)
    tokens = tiny.built(state).audio_proj(*inputs.slices)
    wanted = tiny.Plain(state, tiny.CONFIG, torch.float64, torch.float64).audio_tokens(inputs.windows)
    assert tokens.shape == (frames, 6, 40) and tiny.distance(tokens, wanted) <= 1e-12


def test_patches_are_taken_apart_as_they_are_read_and_put_together_as_they_are_written():
    """Channel slowest on the way in, channel fastest on the way out (specification 3.9)."""
    x = torch.arange(3 * 2 * 4 * 6).view(3, 2, 4, 6)
    patches = to_patches(x)
    assert patches.shape == (2 * 2 * 3, 12)
    for token, (t, r, c) in enumerate((t, r, c) for t in range(2) for r in range(2) for c in range(3)):
        assert torch.equal(patches[token], x[:, t, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].reshape(-1))
    written = patches.view(12, 3, 4).transpose(1, 2).reshape(12, 12)
    assert torch.equal(from_patches(written, (2, 2, 3)), x)


def test_the_norm_of_queries_is_over_the_full_width_and_weighted_after_rounding():
    norm = RmsNorm(96, 1e-6)
    norm.weight.data = torch.linspace(0.5, 2, 96).bfloat16()
    x = torch.randn(5, 96, generator=torch.Generator().manual_seed(2)).bfloat16()
    exact = x.float() / (x.float().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert torch.equal(norm(x), exact.bfloat16() * norm.weight)


# ------------------------------------------------------------------------------ what of a step is not needed


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("is_packed", [False, True], ids=["apart", "packed"])
def test_the_motion_frames_are_left_out_of_what_only_they_need(tiny, grid, is_packed):
    dit, inputs = tiny.built(tiny.weights()), tiny.Inputs(grid, 7)
    stream, chunk = tiny.conditions(dit, inputs)
    whole = dit(inputs.latents, 1, stream, chunk, LocalGroup(), tiny.EXACT)
    if is_packed:
        dit.pack_projections()
    queries = []

    def counting(q, k, v):
        queries.append((len(q), len(k)))
        return tiny.EXACT(q, k, v)

    tokens, per_frame = math.prod(grid), grid[1] * grid[2]
    for motion in range(min(grid[0], 3)):
        queries.clear()
        got = dit(inputs.latents, 1, stream, chunk, LocalGroup(), counting, motion)
        assert tiny.distance(got[:, motion:], whole[:, motion:]) <= 1e-13
        assert motion == 0 or not got[:, :motion].any()
        assert queries == [(tokens, tokens), (tokens - motion * per_frame, tokens)]
