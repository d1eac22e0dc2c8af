"""Several linear layers of the same input as one matrix product, without a second copy of their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.generators.flashtalk.quantization.linear import QuantizedLinear
from engine.generators.flashtalk.quantization.tokens import QuantizedTokens


class PackedLinears:
    """Layers whose weights lie one after another in memory; the layers themselves keep working and keep their names.

    Made by `pack_linears` once the layers are where they stay: a layer that is moved, cast, replaced or given other
    weights afterwards is noticed by `holds`, and is then to be called by itself.
    """

    def __init__(self, layers: Sequence[nn.Module], products: Sequence[Callable[[Any], Tensor]]) -> None:
        """`products[n]` is what the layers from number n on make together."""
        self._sizes = [int(layer.out_features) for layer in layers]  # type: ignore[arg-type]
        self._products = products
        self._kind, self._places = type(layers[0]), [_weight_of(layer).data_ptr() for layer in layers]

    def holds(self, *layers: nn.Module) -> bool:
        """Whether these layers' weights are still the ones in here."""
        return all(
            type(layer) is self._kind and _weight_of(layer).data_ptr() == place
            for layer, place in zip(layers, self._places, strict=True)
        )

    def __call__(self, x: Tensor | QuantizedTokens, *, after: int = 0) -> tuple[Tensor, ...]:
        """What the layers make of `x` [tokens, width], which 8-bit ones also take in 8 bits, without the first `after`
        of them: columns of one tensor."""
        return self._products[after](x).split(self._sizes[after:], dim=-1)


def pack_linears(*layers: nn.Module) -> PackedLinears | None:
    """The layers as one, or None where that cannot be: other kinds of layers, or different places or precisions."""
    known = [layer for layer in layers if type(layer) in (nn.Linear, QuantizedLinear)]
    weights = [_weight_of(layer) for layer in known]
    kinds = {(type(layer), layer.bias is None) for layer in known}
    places = {(weight.shape[1], weight.dtype, weight.device) for weight in weights}
    if len(known) < len(layers) or len(kinds) != 1 or len(places) != 1 or weights[0].device == torch.device("meta"):
        return None
    if isinstance(layers[0], QuantizedLinear):
        return _packed_quantized([layer for layer in layers if isinstance(layer, QuantizedLinear)])
    return _packed_plain([layer for layer in layers if isinstance(layer, nn.Linear)])


def _weight_of(layer: nn.Module) -> Tensor:
    return layer.quantized if isinstance(layer, QuantizedLinear) else layer.weight  # type: ignore[return-value]


def _starts(layers: Sequence[nn.Module]) -> list[int]:
    """Rows of the packed weight before each layer's."""
    rows = [len(_weight_of(layer)) for layer in layers]
    return [sum(rows[:number]) for number in range(len(rows))]


def _packed_plain(layers: list[nn.Linear]) -> PackedLinears:
    sizes = [layer.out_features for layer in layers]
    weight, bias = _one_after_another([layer.weight for layer in layers]), None
    for layer, part in zip(layers, weight.split(sizes), strict=True):
        layer.weight.data = part
    if layers[0].bias is not None:
        bias = _one_after_another([layer.bias for layer in layers])
        for layer, part in zip(layers, bias.split(sizes), strict=True):
            layer.bias.data = part

    def product_from(start: int) -> Callable[[Any], Tensor]:
        rest, rest_bias = weight[start:], None if bias is None else bias[start:]
        return lambda x: F.linear(x, rest, rest_bias)

    return PackedLinears(layers, [product_from(start) for start in _starts(layers)])


def _packed_quantized(layers: list[QuantizedLinear]) -> PackedLinears | None:
    """One product for which tokens are made 8-bit once."""
    first, sizes = layers[0], [layer.out_features for layer in layers]
    if any(layer.scheme is not first.scheme or layer.product is not first.product for layer in layers):
        return None
    joined = QuantizedLinear.joined(layers)
    biases = [None] * len(layers) if joined.bias is None else joined.bias.split(sizes)
    parts = zip(layers, joined.quantized.split(sizes), joined.scale.split(sizes), biases, strict=True)
    for layer, quantized, scale, bias in parts:
        layer.quantized, layer.scale, layer.bias = quantized, scale, bias

    def product_from(start: int) -> Callable[[Any], Tensor]:
        bias = None if joined.bias is None else joined.bias[start:]
        rest = (joined.quantized[start:], joined.scale[start:], bias)
        return joined if not start else QuantizedLinear(*rest, joined.scheme, joined.product)

    return PackedLinears(layers, [product_from(start) for start in _starts(layers)])


def _one_after_another(tensors: Sequence[Tensor]) -> Tensor:
    """The data of `tensors` along the first dimension, in memory of its own."""
    return torch.cat([tensor.data for tensor in tensors])
