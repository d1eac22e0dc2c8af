"""What ranks send and compute: counted from outside, against the plan's arithmetic and the specification's."""

from pathlib import Path

import pytest
import torch

from engine.generators.flashtalk.config import DiTConfig, StreamShape
from engine.generators.flashtalk.vae import Vae
from engine.generators.flashtalk.vae_coders import VaeConfig
from engine.parallel.topology import bytes_sent_per_step, plan_ranks

pytestmark = pytest.mark.timeout(600)  # on a machine that is busy with other things, ranks take a minute to start

COSTS = Path(__file__).parents[1] / "fixtures" / "rank_costs.py"
SMALL = {
    "dim": 48,
    "ffn_dim": 64,
    "freq_dim": 16,
    "num_heads": 4,
    "num_layers": 3,
    "text_dim": 12,
    "text_len": 32,
    "intermediate_dim": 8,
    "output_dim": 12,
    "context_tokens": 4,
    "img_emb_in_dim": 10,
    "audio_blocks": 2,
    "audio_channels": 6,
}
VAE_DIM = 4
SHAPE = {"height": 80, "width": 48, "frames": 9, "motion_frames": 5}
DEGREES = [(1, 1), (2, 2), (2, 1), (3, 1), (4, 4), (4, 2), (4, 1)]
TALL_CONVOLUTIONS = {"first": 28, "later": 28, "encode": 2 * 20}
"""Of height 3, so that neighbours must be asked. Decoder, after the middle block: 12 residual blocks of two, three
that enlarge, one in the head. Encoder, before it: one, 8 residual blocks of two, three that reduce; for two groups."""
SHOWN_FRAMES = {"first": 1, "later": 4}
GATHERS = {"encode": 2}


@pytest.fixture(scope="module")
def costs(module_at):
    return module_at(COSTS)


@pytest.fixture(scope="module", params=DEGREES, ids="{0[0]} ranks, heads over {0[1]}".format)
def counted(request, rank_pools):
    """(plan, costs by rank and part) of small models on real ranks."""
    world, ulysses = request.param
    shape = StreamShape(**SHAPE)
    plan = plan_ranks(world=world, heads=4, tokens=shape.tokens, latent_rows=shape.latent[2], ulysses=ulysses)
    arguments = {"config": SMALL, "vae_dim": VAE_DIM, "shape": SHAPE, "ulysses": ulysses}
    return plan, rank_pools(world).run(COSTS, "count", arguments)


@pytest.mark.ranks
def test_the_program_counts_what_is_sent(counted):
    _, ranks = counted
    for parts in ranks:
        for part, cost in parts.items():
            assert cost["counted_by_program"] == sum(cost["bytes"].values()), part


@pytest.mark.ranks
def test_bytes_and_calls_of_a_step(counted):
    """Two exchanges of heads in every block, keys and values ring - 1 times round, one gather; nothing else."""
    plan, ranks = counted
    layers, dim, float32 = SMALL["num_layers"], SMALL["dim"], 4
    for parts in ranks:
        calls, sent = parts["step"]["calls"], parts["step"]["bytes"]
        wanted = {"all_gather": 1}
        if plan.ulysses > 1:
            wanted["all_to_all"] = 2 * layers
        if plan.ring > 1:
            wanted["exchange"] = (plan.ring - 1) * layers
        assert calls == wanted
        in_attention = sent.get("all_to_all", 0) + sent.get("exchange", 0)
        assert in_attention == bytes_sent_per_step(plan, dim=dim, layers=layers, item_bytes=float32)
        assert sent["all_gather"] == plan.tokens_per_rank * 64 * float32 * (plan.world - 1)
        if plan.ring == 1:  # section 8 of the specification, rows of padding sent like others
            rows, world = plan.tokens_per_rank, plan.world
            assert in_attention == layers * 4 * rows * dim * float32 * (world - 1) // world


@pytest.mark.ranks
@pytest.mark.parametrize("part", TALL_CONVOLUTIONS)
def test_bytes_and_calls_of_pictures(counted, part, row_bytes):
    """A row up and a row down for each convolution of height 3, at its own resolution."""
    plan, ranks = counted
    for number, parts in enumerate(ranks):
        calls, sent = parts[part]["calls"], parts[part]["bytes"]
        wanted_calls, wanted_bytes = TALL_CONVOLUTIONS[part], 0
        if part in SHOWN_FRAMES:  # and one more takes the finished rows to rank 0
            wanted_calls += 1
            start, stop = plan.bands[number]
            wanted_bytes += (number > 0) * SHOWN_FRAMES[part] * 3 * 8 * (stop - start) * SHAPE["width"]
        up, down = row_bytes[part]
        wanted_bytes += up * (number > 0) + down * (number + 1 < plan.world)
        assert calls.get("exchange", 0) == (wanted_calls if plan.world > 1 else 0)
        assert sent.get("exchange", 0) == wanted_bytes
        assert calls.get("broadcast", 0) == GATHERS.get(part, 0) * plan.world
        # Two for the colours, one for the watch over the picture.
        assert calls.get("all_reduce", 0) == (0 if part == "encode" else 3)


@pytest.fixture(scope="module")
def row_bytes():
    """Bytes that the neighbour above and below need of each convolution's input, seen by hooks in the undivided VAE."""
    shape, seen = StreamShape(**SHAPE), {"first": [0, 0], "later": [0, 0], "encode": [0, 0]}
    vae, at = Vae(VaeConfig(dim=VAE_DIM)), []
    frames = torch.zeros(1, 3, shape.motion_frames, shape.height, shape.width)

    def note(module, inputs):
        is_halving = isinstance(module, torch.nn.Conv2d) and module.stride == (2, 2)
        x, asked = inputs[0], seen[at[-1]]
        # A convolution that halves has been given its extra column of zeros, which nobody sends.
        row = x[..., :1, :].numel() // x.shape[-1] * (x.shape[-1] - is_halving) * x.element_size()
        asked[0] += row
        asked[1] += 0 if is_halving else row

    parts = [*vae.encoder.downsamples, vae.encoder.conv1, *vae.decoder.upsamples, vae.decoder.head]
    for part in parts:
        for module in part.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.Conv3d)) and module.kernel_size[-1] == 3:
                module.register_forward_pre_hook(note)
                if hasattr(module, "after"):
                    module.after = _noted_after(module, note)
    latents = vae.decode_stream()
    for part in ("first", "later"):
        at.append(part)
        latents.push(torch.zeros(16, 1, *shape.latent[2:]))
    at.append("encode")
    vae.encode(frames)
    return seen


def _noted_after(module, note):
    """Its way in with the norm before it, which passes by the hooks."""
    after = module.after

    def called(norm, x, *rest, **named):
        if x.shape[2]:
            note(module, (x,))
        return after(norm, x, *rest, **named)

    return called


# The published sizes, on no device


@pytest.fixture(scope="module")
def published(costs):
    """Costs of the 14B model at 768x448 by number of ranks, for the first and the last of them; two layers of 40."""
    config = DiTConfig(num_layers=2)

    def of(world, number):
        rank = costs.Rank(number=number, world=world)
        return costs.chunk_costs(rank, config, 96, StreamShape(), "meta", torch.bfloat16)

    return {world: [of(world, number) for number in sorted({0, world - 1})] for world in (1, 2, 4, 8)}


def test_one_rank_computes_what_the_specification_says(published):
    """Table 9.2 less 491 of 512 text keys, which are one here; table 9.3 less frames that stand for zeros."""
    one = published[1][0]
    text_keys = 4 * 12096 * 5120 * (512 - 24)
    assert one["step"].flops / 2 == pytest.approx((471.1e12 - 3.4e12) / 40 - text_keys, rel=0.01)
    assert one["first"].flops + 8 * one["later"].flops == pytest.approx(97.1e12, rel=0.03)


@pytest.mark.parametrize("world", [2, 4, 8])
def test_no_rank_repeats_a_step(published, world):
    for rank in published[world]:
        assert rank["step"].flops * world == pytest.approx(published[1][0]["step"].flops, rel=1e-6)


@pytest.mark.parametrize("world", [2, 4, 8])
def test_what_is_repeated_is_little(published, world):
    """The decoder's part at the latents' resolution, 2.0 of 97 TFLOP, and the projection of the voice."""
    one = published[1][0]
    for rank in published[world]:
        repeated = (rank["later"].flops * world - one["later"].flops) / (world - 1)
        assert 9 * repeated == pytest.approx(2.0e12, rel=0.02)
        assert rank["voice"].flops == one["voice"].flops < 0.001 * 4 * 20 * one["step"].flops
    assert published[world][0]["once"].flops < one["once"].flops


@pytest.mark.parametrize("world", [2, 4, 8])
def test_published_sizes_follow_the_specification_s_formula(published, world):
    per_layer = 4 * (12096 // world) * 5120 * 2 * (world - 1) // world
    for rank in published[world]:
        assert rank["step"].bytes["all_to_all"] == 2 * per_layer
        assert rank["step"].calls == {"all_to_all": 4, "all_gather": 1}
