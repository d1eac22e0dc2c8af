"""Several linear layers of the same input as one matrix product, without a second copy of their weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PackedLinears:
    """Layers whose weights lie one after another in memory; the layers themselves keep working and keep their names.

    Made once the layers are where they stay: a layer that is moved, cast, replaced or given other weights afterwards
    is noticed by `holds`, and is then to be called by itself.
    """

    def __init__(self, layers: tuple[nn.Linear, ...]) -> None:
        """Moves the parameters of `layers`, all with a bias, of one input width, precision and device."""
        sizes = [layer.out_features for layer in layers]
        first = layers[0].weight
        self.weight = first.new_empty(sum(sizes), first.shape[1])
        self.bias = first.new_empty(sum(sizes))
        self._sizes = sizes
        for layer, weight, bias in zip(layers, self.weight.split(sizes), self.bias.split(sizes), strict=True):
            # One after another, so that the memory of a layer is free before the next is moved.
            layer.weight.data = weight.copy_(layer.weight.data)
            layer.bias.data = bias.copy_(layer.bias.data)
        self._places = [layer.weight.data_ptr() for layer in layers]

    def holds(self, *layers: nn.Module) -> bool:
        """Whether these layers' weights are still the ones in here."""
        return all(
            type(layer) is nn.Linear and layer.weight.data_ptr() == place
            for layer, place in zip(layers, self._places, strict=True)
        )

    def __call__(self, x: Tensor, *, after: int = 0) -> tuple[Tensor, ...]:
        """What the layers make of `x` [tokens, width], without the first `after` of them: columns of one tensor."""
        skipped = sum(self._sizes[:after])
        out = F.linear(x, self.weight[skipped:], self.bias[skipped:])
        return out.split(self._sizes[after:], dim=-1)


def pack_linears(*layers: nn.Module) -> PackedLinears | None:
    """The layers as one, or None where that cannot be: other kinds of layers, or different places or precisions."""
    plain = [layer for layer in layers if type(layer) is nn.Linear and layer.bias is not None]
    kinds = {(layer.in_features, layer.weight.dtype, layer.weight.device) for layer in plain}
    if len(plain) < len(layers) or len(kinds) != 1 or plain[0].weight.device == torch.device("meta"):
        return None
    return PackedLinears(tuple(plain))
