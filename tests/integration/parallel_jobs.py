"""Random small models, the same on every rank, and what they compute on any number of them."""

import random

import torch

from engine.generators.flashtalk.attention import choose_attention
from engine.generators.flashtalk.color import ColorMatch
from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.transformer import DiT
from engine.generators.flashtalk.vae import Vae
from engine.generators.flashtalk.vae_coders import VaeConfig
from engine.parallel.distributed import DistributedGroup, make_groups
from engine.parallel.group import LocalGroup
from engine.parallel.tiles import RowBands
from engine.parallel.topology import plan_ranks

_GROUPS = {}
MOST_RANKS = 4


def dit_case(seed):
    """Sizes of a transformer and its latents: heads that 2, 3 or 4 ranks divide or do not, tokens likewise."""
    draw = random.Random(seed)
    heads, head_dim = draw.choice([1, 2, 3, 4, 6]), draw.choice([8, 12])
    config = DiTConfig(
        dim=heads * head_dim,
        ffn_dim=draw.choice([16, 40]),
        freq_dim=16,
        num_heads=heads,
        num_layers=2,
        text_dim=12,
        text_len=9,
        intermediate_dim=8,
        output_dim=12,
        context_tokens=draw.choice([3, 5]),
        img_emb_in_dim=10,
        audio_blocks=2,
        audio_channels=6,
    )
    grid = draw.randint(1, 3), draw.randint(1, 5), draw.randint(1, 4)
    while grid[0] * grid[1] * grid[2] < MOST_RANKS:
        grid = grid[0] + 1, *grid[1:]
    return config, grid


def velocity(world, seed, ulysses=None):
    """One evaluation in float64; `world` is None for one rank without any group."""
    config, (frames, rows, columns) = dit_case(seed)
    source = torch.Generator().manual_seed(seed)
    dit = DiT(config).double()
    dit.load_state_dict(_weights(dit, source))
    shape = (frames, 2 * rows, 2 * columns)
    group = LocalGroup() if world is None else _group(world, config.num_heads, frames * rows * columns, ulysses)

    def draw(*sizes):
        return torch.randn(*sizes, generator=source, dtype=torch.float64)

    # In float64 as well: modulation has the precision of the timesteps, and tokens are rounded to that of modulation.
    schedule = torch.tensor([900.0, 300.0], dtype=torch.float64)
    stream = dit.stream_conditions(
        draw(4, config.text_dim), draw(7, config.img_emb_in_dim), draw(20, *shape), schedule, group
    )
    heard = (draw(1, 5, 2, 6), draw(frames - 1, 8, 2, 6))
    attention = choose_attention(torch.device("cpu"), torch.float64)
    return dit(draw(16, *shape), 1, stream, dit.chunk_conditions(*heard), group, attention)


def pictures(world, seed):
    """(latents of a video, frames of latents, frames with the first one's colours), on bands of rows, whole again."""
    draw = random.Random(seed)
    rows, columns, latents = draw.randint(MOST_RANKS, 7), draw.randint(1, 4), draw.randint(1, 3)
    source = torch.Generator().manual_seed(seed)
    vae = Vae(VaeConfig(dim=8)).double()
    vae.load_state_dict(_weights(vae, source))
    video = torch.rand(1, 3, 4 * latents - 3, 8 * rows, 8 * columns, generator=source, dtype=torch.float64) * 2 - 1
    coded = torch.randn(16, latents, rows, columns, generator=source, dtype=torch.float64)
    match = ColorMatch(video[:, :, :1])
    if world is None:
        frames = vae.decode_all(coded)
        return vae.encode(video), frames, match.apply(frames)
    bands = RowBands(plan_ranks(world=world.size(), heads=1, tokens=64, latent_rows=rows), world)
    stay_cut = vae.decode_all(coded, tiles=bands.for_decoding)
    matched = match.apply(stay_cut, 1.0, bands.average)
    return vae.encode(video, tiles=bands), bands.gather(stay_cut), bands.gather(matched)


def _group(world, heads, tokens, ulysses):
    plan = plan_ranks(world=world.size(), heads=heads, tokens=tokens, latent_rows=world.size(), ulysses=ulysses)
    if plan.ulysses not in _GROUPS:
        _GROUPS[plan.ulysses] = make_groups(plan, world)
    return DistributedGroup(plan, _GROUPS[plan.ulysses])


def _weights(module, source):
    """Of order one per output, gates and modulation too: a mistake anywhere shows in the result."""
    weights = {}
    for name, value in module.state_dict().items():
        drawn = torch.randn(value.shape, generator=source, dtype=torch.float64)
        if "modulation" in name:
            weights[name] = drawn
        elif name.endswith("gamma") or (value.dim() == 1 and name.endswith("weight")):
            weights[name] = 1 + 0.3 * drawn
        elif name.endswith("bias"):
            weights[name] = 0.2 * drawn
        else:
            weights[name] = drawn / value.shape[1:].numel() ** 0.5
    return weights
