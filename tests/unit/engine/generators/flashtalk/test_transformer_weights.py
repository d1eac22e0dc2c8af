"""The transformer's weights: packed projections, and which of them steps do not need."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.transformer import is_set_up_only  # noqa: E402
from engine.parallel.group import LocalGroup  # noqa: E402

pytestmark = pytest.mark.usefixtures("no_gradients")


def test_packed_projections_are_the_same_weights_under_the_same_names(tiny):
    state, inputs = tiny.weights(), tiny.Inputs((3, 3, 5), 7)
    dit, packed = tiny.built(dict(state)), tiny.built(dict(state))
    packed.pack_projections()
    for (name, one), (other_name, other) in zip(dit.state_dict().items(), packed.state_dict().items(), strict=True):
        assert name == other_name and torch.equal(one, other)
    attention = packed.blocks[1].self_attn
    assert attention.q.weight.untyped_storage().data_ptr() == attention.v.weight.untyped_storage().data_ptr()
    assert attention.q.weight.untyped_storage().nbytes() == 3 * attention.q.weight.nbytes
    given = (inputs.latents, 1, *tiny.conditions(dit, inputs), LocalGroup(), tiny.EXACT)
    assert tiny.distance(packed(*given), dit(*given)) <= 1e-14


def test_weights_that_change_after_packing_are_noticed(tiny):
    dit = tiny.built(tiny.weights())
    dit.pack_projections()
    attention, x = dit.blocks[0].self_attn, torch.randn(5, 96, dtype=torch.float64)
    for change in (
        lambda: setattr(attention, "k", torch.nn.Linear(96, 96).double()),
        lambda: attention.float(),
        lambda: attention.load_state_dict({name: 2 * t for name, t in attention.state_dict().items()}, assign=True),
        lambda: attention.load_state_dict({name: 2 * t for name, t in attention.state_dict().items()}),
    ):
        change()
        x = x.to(attention.q.weight.dtype)
        for got, layer in zip(attention._project(x, 0), (attention.q, attention.k, attention.v), strict=True):
            assert torch.equal(got, layer(x)) or tiny.distance(got, layer(x)) < 1e-6
        attention.double()
        attention.pack()
        x = x.double()


def test_layers_that_are_not_plain_are_not_packed(tiny):
    class Other(torch.nn.Module):
        def forward(self, x):
            return 2 * x

    dit = tiny.built(tiny.weights())
    attention, x = dit.blocks[0].self_attn, torch.randn(5, 96, dtype=torch.float64)
    attention.q = Other()
    attention.pack()
    assert torch.equal(attention._project(x, 0)[0], 2 * x)


# ------------------------------------------------------------------------------------ what steps do not need


def test_steps_need_nothing_of_what_stays_behind(tiny):
    dit, inputs = tiny.built(tiny.weights()), tiny.Inputs((2, 2, 3), 7)
    stream, chunk = tiny.conditions(dit, inputs)
    before = dit(inputs.latents, 1, stream, chunk, LocalGroup(), tiny.EXACT)
    left = [name for name, _ in dit.named_parameters() if is_set_up_only(name)]
    for name, parameter in dit.named_parameters():
        if name in left:
            parameter.data = torch.full_like(parameter, math.nan)
    chunk = dit.chunk_conditions(*inputs.slices)
    assert torch.equal(dit(inputs.latents, 1, stream, chunk, LocalGroup(), tiny.EXACT), before)
    kinds = {name.split(".", 2)[2] if name.startswith("blocks.") else name.split(".")[0] for name in left}
    assert {"text_embedding", "img_emb", "time_embedding", "time_projection"} <= kinds
    assert {f"cross_attn.{part}.weight" for part in ("k", "v", "k_img", "v_img", "norm_k", "norm_k_img")} <= kinds


def test_all_else_is_needed_by_steps(tiny):
    """A parameter that is kept on the device for nothing would cost memory for nothing."""
    dit, inputs = tiny.built(tiny.weights()), tiny.Inputs((2, 2, 3), 7)
    stream, chunk = tiny.conditions(dit, inputs)
    before = dit(inputs.latents, 1, stream, chunk, LocalGroup(), tiny.EXACT)
    for name, parameter in dit.named_parameters():
        # These small ones are in the tables of the stream already.
        if is_set_up_only(name) or "modulation" in name or name == "patch_embedding.bias":
            continue
        kept, parameter.data = parameter.data, parameter.data.roll(1, dims=0) * 1.5
        got = dit(inputs.latents, 1, stream, dit.chunk_conditions(*inputs.slices), LocalGroup(), tiny.EXACT)
        # A bias on all keys moves every logit of a query alike, but for rotation and norms.
        assert tiny.distance(got, before) > 1e-6, name
        parameter.data = kept


@pytest.mark.parametrize("rest", [torch.bfloat16, torch.float32])
def test_weights_for_conditions_may_rest_in_another_precision(tiny, rest):
    """They are used in the precision of what they are applied to."""
    state = {n: v.to(rest).double() if is_set_up_only(n) else v for n, v in tiny.weights().items()}
    inputs = tiny.Inputs((2, 2, 3), 7)
    resting = tiny.built({n: v.to(rest) if is_set_up_only(n) else v for n, v in state.items()})
    results = []
    for dit in (tiny.built(state), resting):
        stream, chunk = tiny.conditions(dit, inputs)
        assert {x.k.dtype for x in (*stream.text, *stream.image)} == {torch.float64}
        assert stream.modulation.dtype == torch.float64
        results.append(dit(inputs.latents, 1, stream, chunk, LocalGroup(), tiny.EXACT))
    assert tiny.distance(results[1], results[0]) <= 1e-13
