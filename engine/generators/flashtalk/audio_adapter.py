"""From speech features to the audio tokens that each latent frame attends to (spec of the published `audio_proj`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.generators.flashtalk.config import DiTConfig


class AudioAdapter(nn.Module):
    """Projects speech features to `context_tokens` tokens of width `output_dim` for each latent frame.

    The first latent frame has a first layer of its own: it covers one video frame, the others four.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        per_slot = config.audio_blocks * config.audio_channels
        hidden, tokens, width = config.intermediate_dim, config.context_tokens, config.output_dim
        self.proj1 = nn.Linear(config.audio_window * per_slot, hidden)
        self.proj1_vf = nn.Linear(config.slots_per_latent * per_slot, hidden)
        self.proj2 = nn.Linear(hidden, hidden)
        self.proj3 = nn.Linear(hidden, tokens * width)
        self.norm = nn.LayerNorm(width, eps=1e-5)
        self._token_shape = (tokens, width)

    def forward(self, first: Tensor, later: Tensor) -> Tensor:
        """`first` [1, 5, layers, channels] and `later` [n - 1, 8, layers, channels] -> [n, tokens, width]."""
        dtype = self.proj1.weight.dtype
        head = self.proj1(first.to(dtype).flatten(1)).relu()
        tail = self.proj1_vf(later.to(dtype).flatten(1)).relu()
        hidden = self.proj2(torch.cat((head, tail))).relu()
        return self.norm(self.proj3(hidden).unflatten(-1, self._token_shape))
