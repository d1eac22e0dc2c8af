"""Layers in 8 bits: their error, what may replace what, and what is left alone."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from engine.generators.flashtalk.config import DiTConfig  # noqa: E402
from engine.generators.flashtalk.quantization.linear import (  # noqa: E402
    QuantizedLinear,
    is_quantized,
    quantize_module,
    scheme_of,
)
from engine.generators.flashtalk.quantization.products import WIDENED, choose_product  # noqa: E402
from engine.generators.flashtalk.quantization.scheme import FP8, INT8, SCHEMES, Scheme  # noqa: E402
from engine.generators.flashtalk.transformer import DiT  # noqa: E402

CPU = torch.device("cpu")
BOUNDS = {"fp8": 0.04, "int8": 0.016}
"""Relative root mean square error of one layer; the design's bound for FP8."""


def _layer(scheme: Scheme, width=512, out=160) -> tuple[nn.Linear, QuantizedLinear]:
    torch.manual_seed(2)
    layer = nn.Linear(width, out)
    return layer, QuantizedLinear.of(layer, scheme, choose_product(scheme, CPU, torch.float32))


def _inputs(kind: str, width=512) -> torch.Tensor:
    torch.manual_seed(3)
    x = torch.randn(64, width)
    if kind == "outliers":
        x[:, torch.randperm(width)[:5]] *= 60
    elif kind == "gelu":
        x = nn.functional.gelu(1.5 * x, approximate="tanh")
    elif kind == "heavy tails":
        x = torch.distributions.StudentT(3.0).sample((64, width))
    return x


@torch.no_grad()
@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("kind", ["normal", "outliers", "gelu", "heavy tails"])
def test_the_error_of_a_layer_is_within_its_bound_whatever_comes_in(name, kind):
    layer, quantized = _layer(SCHEMES[name])
    x = _inputs(kind)
    exact = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    error = (quantized(x) - exact).norm() / exact.norm()
    assert BOUNDS[name] / 8 < error < BOUNDS[name]
    rounded = quantized(x.bfloat16())
    assert rounded.dtype == torch.bfloat16 and (rounded - exact).norm() / exact.norm() < 1.15 * BOUNDS[name]


@torch.no_grad()
def test_without_its_rotation_int8_fails_on_outliers():
    """What the rotation is for: the bound above is out of reach without it."""
    plain = Scheme(name="plain", dtype=torch.int8, largest=127.0, is_rotated=False)
    layer, quantized = _layer(plain)
    x = _inputs("outliers")
    exact = layer(x)
    assert (quantized(x) - exact).norm() / exact.norm() > 2 * BOUNDS["int8"]


@torch.no_grad()
@pytest.mark.parametrize("name", SCHEMES)
def test_leading_axes_are_kept_and_mean_nothing(name):
    _, quantized = _layer(SCHEMES[name])
    x = _inputs("normal")
    out = quantized(x)
    assert torch.equal(quantized(x.view(4, 16, -1)), out.view(4, 16, -1))
    assert torch.allclose(quantized(x[:1]), out[:1], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", SCHEMES)
def test_joined_layers_say_what_they_said_alone(name):
    """Query, key and value as one product: not a bit differs."""
    torch.manual_seed(4)
    layers = [QuantizedLinear.of(nn.Linear(96, 48 * n), SCHEMES[name], WIDENED) for n in (1, 2, 3)]
    x = torch.randn(20, 96)
    together = QuantizedLinear.joined(layers)(x)
    for part, layer in zip(together.split([48, 96, 144], dim=1), layers, strict=True):
        torch.testing.assert_close(part, layer(x), rtol=1e-6, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("name", SCHEMES)
def test_tokens_made_once_serve_every_layer(name):
    """Of the same scheme; also the later ones of them, whose scales then lie by themselves."""
    _, one = _layer(SCHEMES[name])
    _, other = _layer(SCHEMES[name], out=48)
    for dtype in (torch.float32, torch.bfloat16):
        x = _inputs("outliers").to(dtype)
        tokens = one.tokens_of(x)
        assert len(tokens) == 64 and tokens.dtype == dtype and other.tokens_of(tokens) is tokens
        assert tokens[0:] is tokens
        for layer in (one, other):
            assert torch.equal(layer(tokens), layer(x)) and layer(tokens).dtype == dtype
            later = tokens[13:]
            assert torch.equal(layer(later), layer(x[13:])) and later.scales.storage_offset() == 0


def test_tokens_of_another_scheme_are_refused():
    layers = [QuantizedLinear.of(nn.Linear(32, 32), scheme) for scheme in (FP8, INT8)]
    tokens = layers[0].tokens_of(torch.randn(3, 32))
    with pytest.raises(ValueError, match="fp8 are none for a layer in int8"):
        layers[1](tokens)
    assert (
        scheme_of(layers) is None and scheme_of(layers[1:]) is INT8 and scheme_of([layers[0], nn.Linear(2, 2)]) is None
    )


def test_layers_of_different_kinds_are_not_joined():
    one, other = (QuantizedLinear.of(nn.Linear(32, 32), scheme) for scheme in (FP8, INT8))
    with pytest.raises(ValueError, match="different kinds"):
        QuantizedLinear.joined([one, other])
    with pytest.raises(ValueError, match="different kinds"):
        QuantizedLinear.joined([one, QuantizedLinear.of(nn.Linear(32, 32, bias=False), FP8)])


def test_reading_a_plain_weight_fails_rather_than_misleads():
    _, quantized = _layer(FP8)
    with pytest.raises(AttributeError):
        _ = quantized.weight
    assert not quantized.state_dict().keys() & {"weight"} and "fp8 by" in repr(quantized)


def test_of_the_transformer_only_what_every_token_goes_through_is_quantised():
    """All but 0.4 of the 14.45 billion parameters that stay on the GPU."""
    with torch.device("meta"):
        dit = DiT(DiTConfig())
    found = {name: p.numel() for name, p in dit.named_parameters() if is_quantized(name, p.shape)}
    assert sum(found.values()) == 40 * (8 * 5120**2 + 2 * 5120 * 13824)
    short = {name.split(".", 2)[2] for name in found}
    kept = ("modulation", "norm", "kv_linear", "k_img", "v_img", "cross_attn.k.", "cross_attn.v.", "bias")
    assert not any(part in name for name in short if not name.startswith("self_attn") for part in kept)
    assert not any(name.startswith(("head", "patch", "text", "time", "img", "audio_proj")) for name in found)


def test_sides_that_no_kernel_takes_stay_as_they_are():
    assert is_quantized("blocks.0.ffn.0.weight", (128, 96)) and not is_quantized("blocks.0.ffn.0.weight", (128, 90))
    assert not is_quantized("blocks.0.ffn.0.bias", (128,)) and is_quantized("blocks.11.self_attn.qkv.weight", (96, 32))


@torch.no_grad()
def test_replaced_layers_are_the_ones_that_are_named():
    dit = DiT(DiTConfig(dim=96, ffn_dim=128, num_heads=4, num_layers=2, text_dim=24, intermediate_dim=8))
    names = quantize_module(dit, INT8)
    assert len(names) == 2 * 10 and isinstance(dit.blocks[1].ffn[2], QuantizedLinear)
    assert isinstance(dit.blocks[0].cross_attn.k, nn.Linear) and isinstance(dit.head.head, nn.Linear)
