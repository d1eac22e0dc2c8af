"""Attention to keys that arrive block by block: partial results are merged by their log-sum-exp, exactly.

Milakov and Gimelshein, "Online normalizer calculation for softmax" (2018); Liu et al., "Ring attention" (2023).
"""

from __future__ import annotations

import torch
from torch import Tensor


class OnlineSoftmax:
    """Collects partial attention results of the same queries; one call, one thread."""

    def __init__(self) -> None:
        self._out: Tensor | None = None
        self._lse: Tensor | None = None

    def add(self, out: Tensor, lse: Tensor) -> None:
        """`out` [tokens, heads, head_dim] of a block of keys and the log-sum-exp [tokens, heads] of its logits."""
        exact = torch.promote_types(out.dtype, torch.float32)
        out = out.to(exact)
        if self._out is None or self._lse is None:
            self._out, self._lse = out, lse
            return
        together = torch.logaddexp(self._lse, lse)
        self._out = self._out * _weight(self._lse, together) + out * _weight(lse, together)
        self._lse = together

    def result(self, dtype: torch.dtype) -> Tensor:
        """Attention to all keys that were added."""
        assert self._out is not None
        return self._out.to(dtype)


def _weight(part: Tensor, whole: Tensor) -> Tensor:
    return torch.exp(part - whole).unsqueeze(-1)
