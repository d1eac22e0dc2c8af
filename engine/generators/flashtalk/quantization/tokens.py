"""Tokens in 8 bits on their way to the layers that read them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.generators.flashtalk.quantization.scheme import Scheme


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantizedTokens:
    """`values` [tokens, width] in 8 bits with `scales` [tokens, 1], of tokens in `dtype`; made once for all layers that
    read them."""

    values: Tensor
    scales: Tensor
    scheme: Scheme
    dtype: torch.dtype

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> QuantizedTokens:
        """Some of the tokens. The scales are copied: products want their address aligned."""
        if rows.start in (None, 0) and rows.stop is None:
            return self
        return replace(self, values=self.values[rows], scales=self.scales[rows].clone())
