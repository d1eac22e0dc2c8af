"""A linear layer with 8-bit weights and tokens, and which layers of the transformer become one."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine.generators.flashtalk.kernels.quantize import QUANTIZING
from engine.generators.flashtalk.kernels.registry import EAGER as NO_KERNELS
from engine.generators.flashtalk.kernels.registry import FusedKernel, Kernels, tensors_of
from engine.generators.flashtalk.quantization.products import EAGER, Product
from engine.generators.flashtalk.quantization.scheme import Scheme, dequantize_weight, quantize_tokens, quantize_weight
from engine.generators.flashtalk.quantization.tokens import QuantizedTokens

QUANTIZED = re.compile(
    r"blocks\.\d+\.(self_attn\.(q|k|v|o|qkv)|cross_attn\.(q|o)|audio_cross_attn\.(q_linear|proj)|ffn\.(0|2))\.weight"
)
"""What every token goes through at every step: 14.05 of the 14.45 billion parameters that stay.

Keys and values of the voice are made once in a chunk from a narrow input, embeddings, head and modulation set the scale
of all else; they keep their precision, and so does what only conditions need.
"""
_MULTIPLE = 16
"""Both sides of an 8-bit product."""


class QuantizedLinear(nn.Module):
    """In place of `nn.Linear(in_features, out_features)`. `quantized` [out, in] and `scale` [out] are its weight.

    There is no `weight`: code that reads one must fail rather than leave the scales out.
    """

    quantized: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, quantized: Tensor, scale: Tensor, bias: Tensor | None, scheme: Scheme, product: Product) -> None:
        super().__init__()
        self.register_buffer("quantized", quantized)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", bias)
        self.scheme, self.product = scheme, product
        self.kernels = NO_KERNELS
        self.out_features, self.in_features = quantized.shape

    @classmethod
    def of(cls, layer: nn.Linear, scheme: Scheme, product: Product = EAGER) -> QuantizedLinear:
        """From a layer with ordinary weights, on its device."""
        quantized, scale = quantize_weight(layer.weight.detach(), scheme)
        return cls(quantized, scale, None if layer.bias is None else layer.bias.detach(), scheme, product)

    @classmethod
    def joined(cls, layers: list[QuantizedLinear]) -> QuantizedLinear:
        """One layer with the outputs of several that have the same input, such as q, k and v: the same numbers, because
        scales belong to outputs, and tokens are quantised once."""
        first = layers[0]
        biases = [layer.bias for layer in layers if layer.bias is not None]
        if len(biases) not in (0, len(layers)) or any(layer.scheme is not first.scheme for layer in layers):
            raise ValueError("layers of different kinds cannot be joined")
        return cls(
            torch.cat([layer.quantized.view(torch.uint8) for layer in layers]).view(first.quantized.dtype),
            torch.cat([layer.scale for layer in layers]),
            torch.cat(biases) if biases else None,
            first.scheme,
            first.product,
        )

    def forward(self, x: Tensor | QuantizedTokens) -> Tensor:
        """[..., in] -> [..., out] in the dtype of `x`."""
        tokens = self.tokens_of(x)
        parts = (tokens.values, tokens.scales, self.quantized, self.scale, self.bias)
        out = self.product.compute(*parts, tokens.dtype)
        return out if isinstance(x, QuantizedTokens) else out.unflatten(0, x.shape[:-1])

    def tokens_of(self, x: Tensor | QuantizedTokens) -> QuantizedTokens:
        """`x` [..., in] as tokens for this layer and others of its scheme. Raises `ValueError` for another scheme's."""
        if isinstance(x, QuantizedTokens):
            if x.scheme is not self.scheme:
                raise ValueError(f"tokens in {x.scheme.name} are none for a layer in {self.scheme.name}")
            return x
        rows, known = x.flatten(0, -2), QUANTIZING.get(self.scheme.name)
        made = quantize_tokens(rows, self.scheme) if known is None else self.kernels[known["rows"]](rows)
        return QuantizedTokens(values=made[0], scales=made[1], scheme=self.scheme, dtype=x.dtype)

    def dense_weight(self) -> Tensor:
        """The weight [out, in] that this layer stands for, in float32."""
        return dequantize_weight(self.quantized, self.scale, self.scheme)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.scheme.name} by {self.product.name}"


def scheme_of(layers: Sequence[nn.Module]) -> Scheme | None:
    """In which all of `layers` want their tokens, if they agree on one."""
    schemes = [layer.scheme if isinstance(layer, QuantizedLinear) else None for layer in layers]
    return schemes[0] if all(scheme is schemes[0] for scheme in schemes) else None


def fused_for(layers: Sequence[nn.Module], kernels: Kernels, name: str) -> Callable[..., tuple[Any, ...]] | None:
    """What makes tokens for `layers` in their 8 bits at once, by a name of `QUANTIZING`; None where nothing does here.

    It gives what the kernel of that name gives, with `QuantizedTokens` as the last.
    """
    scheme = scheme_of(layers)
    kernel = None if scheme is None else QUANTIZING.get(scheme.name, {}).get(name)
    if scheme is None or kernel is None or kernel not in kernels:
        return None
    call = kernels[kernel]

    def make(x: Tensor, *rest: Any) -> tuple[Any, ...]:
        *before, values, scales = call(x, *rest)
        return *before, QuantizedTokens(values=values, scales=scales, scheme=scheme, dtype=x.dtype)

    return make


def tokens_for(
    layers: Sequence[nn.Module], kernels: Kernels, kernel: FusedKernel, *arguments: Any
) -> tuple[Any, ...]:  # fmt: skip
    """`kernel`'s results as a tuple, the last of them, which `layers` read, in their 8 bits if that costs nothing."""
    fused = fused_for(layers, kernels, kernel.name)
    return tensors_of(kernels[kernel](*arguments)) if fused is None else fused(*arguments)


def is_quantized(name: str, shape: tuple[int, ...] | torch.Size) -> bool:
    """Whether the parameter of that name and shape is kept in 8 bits."""
    return QUANTIZED.fullmatch(name) is not None and len(shape) == 2 and not any(side % _MULTIPLE for side in shape)


def quantize_module(module: nn.Module, scheme: Scheme, product: Product = EAGER) -> list[str]:
    """Replace those layers of a transformer that is in memory, one by one; the names of the replaced ones."""
    names = [
        name
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and is_quantized(f"{name}.weight", layer.weight.shape)
    ]
    for name in names:
        put_layer(module, name, QuantizedLinear.of(module.get_submodule(name), scheme, product))  # type: ignore[arg-type]
    return names


def prepare_quantized(module: nn.Module, scheme: Scheme, product: Product) -> None:
    """Replace those layers of a transformer on the meta device by ones whose tensors are yet to be assigned."""
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear) and is_quantized(f"{name}.weight", layer.weight.shape):
            shape = layer.weight.shape
            quantized = torch.empty(shape, dtype=scheme.dtype, device="meta")
            scale = torch.empty(shape[0], dtype=torch.float32, device="meta")
            bias = None if layer.bias is None else layer.bias.detach()
            put_layer(module, name, QuantizedLinear(quantized, scale, bias, scheme, product))


def is_streamed(name: str) -> bool:
    """Whether the parameter of that name is a block's large matrix, which can be brought to the device when needed."""
    return QUANTIZED.fullmatch(name) is not None


def put_layer(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Make `layer` the submodule called `name`."""
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)
