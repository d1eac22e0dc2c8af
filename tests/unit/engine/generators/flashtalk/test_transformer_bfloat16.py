"""What of the transformer is rounded to bfloat16, and where."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.kernels.layer_norm import modulate  # noqa: E402
from engine.generators.flashtalk.kernels.residual import add_gated  # noqa: E402
from engine.parallel.group import LocalGroup  # noqa: E402

pytestmark = pytest.mark.usefixtures("no_gradients")


def _bf16_state(tiny, seed: int) -> dict:
    return {name: value.bfloat16() for name, value in tiny.weights(seed=seed).items()}


def _bf16_step(tiny, state: dict, inputs, step: int):
    dit = tiny.built(dict(state))
    dit.head.head.float()
    stream, chunk = tiny.conditions(dit, inputs, dtype=torch.float32)
    assert stream.modulation.dtype == stream.table.dtype == stream.patches.dtype == torch.float32
    assert stream.text[0].k.dtype == chunk.audio[0].k.dtype == torch.bfloat16
    return dit(inputs.latents.float(), step, stream, chunk, LocalGroup(), tiny.EXACT)


def _drawn(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


@pytest.mark.parametrize("operation", ["gate", "modulation"])
def test_gates_and_modulation_are_rounded_once(operation):
    """They are float32 in a model of bfloat16, and so is what is done with them."""
    x, branch = _drawn(400, 96, dtype=torch.bfloat16), _drawn(400, 96, dtype=torch.bfloat16).flip(0)
    one, other = _drawn(96), _drawn(1, 96)[0]
    if operation == "gate":
        got, exact = add_gated(x, branch, one), x.double() + branch.double() * one.double()
    else:
        got, exact = modulate(x, one, other), x.double() * (1 + other.double()) + one.double()
    assert got.dtype == torch.bfloat16
    assert (got != exact.bfloat16()).float().mean() < 1e-3  # a tie now and then


def test_the_head_is_float32_from_its_norm_on(tiny):
    state = _bf16_state(tiny, 1)
    dit, plain = tiny.built(dict(state)), tiny.Plain(state, tiny.CONFIG, torch.bfloat16, torch.float32)
    dit.head.head.float()
    x, e = _drawn(30, 96, dtype=torch.bfloat16), _drawn(1, 96)
    shift, scale = (state["head.modulation"].double() + e.double()[:, None]).squeeze(0)
    exact = plain.norm(x, tiny.CONFIG.eps).double() * (1 + scale) + shift
    exact = exact @ state["head.head.weight"].double().T + state["head.head.bias"].double()
    got = dit.head(x, (state["head.modulation"].float() + e[:, None]).squeeze(0))
    assert got.dtype == torch.float32 and tiny.distance(got.double(), exact) < 1e-6


def test_the_patch_embedding_is_rounded_once(tiny):
    """Its constant part and the rest are each kept wide until they are added."""
    state, inputs = _bf16_state(tiny, 1), tiny.Inputs((3, 3, 5), 7)
    stream, _ = tiny.conditions(dit := tiny.built(dict(state)), inputs, dtype=torch.float32)
    both = torch.cat((inputs.latents, inputs.y.float())).bfloat16().double()
    wide_state = {name: value.double() for name, value in state.items()}
    exact = tiny.Plain(wide_state, tiny.CONFIG, torch.float64, torch.float64).embed(both[:16], both[16:])
    got = dit.embed_patches(inputs.latents.float(), stream, LocalGroup())
    assert got.dtype == torch.bfloat16 and (got != exact.bfloat16()).float().mean() < 1e-3


def test_bfloat16_is_as_near_to_exact_as_the_published_roundings(tiny):
    """The error is that of rounding in other places, so it is compared over several models and steps."""
    ours, theirs = [], []
    for seed in range(6):
        state, inputs = _bf16_state(tiny, seed), tiny.Inputs((3, 3, 5), 7, seed=seed)
        # Inputs that bfloat16 holds exactly, so that only what the model rounds is seen.
        for name in ("latents", "y", "context", "image"):
            setattr(inputs, name, getattr(inputs, name).bfloat16().double())
        for step in (0, 3):
            exact = tiny.Plain(state, tiny.CONFIG, torch.float64, torch.float64)(inputs, tiny.STEPS[step])
            got = _bf16_step(tiny, state, inputs, step)
            assert got.dtype == torch.float32
            naive = tiny.Plain(state, tiny.CONFIG, torch.bfloat16, torch.float32)(inputs, tiny.STEPS[step])
            ours.append((got - exact).square().mean() / exact.square().mean())
            theirs.append((naive - exact).square().mean() / exact.square().mean())
    error, reference = (torch.stack(values).mean().sqrt().item() for values in (ours, theirs))
    assert 1e-3 < reference < 0.1
    assert error <= 1.1 * reference
