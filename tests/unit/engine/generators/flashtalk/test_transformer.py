"""The transformer against a plain one, written from the specification and without any of the shortcuts.

The plain one takes the published state dict and does everything again for every step: text filled up to its full
length and attended to, keys and values, the timestep path, a convolution over all 36 channels, windows of audio.
"""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from engine.generators.flashtalk.attention import attend_few_keys, choose_attention  # noqa: E402
from engine.generators.flashtalk.config import DiTConfig  # noqa: E402
from engine.generators.flashtalk.kernels.layer_norm import modulate  # noqa: E402
from engine.generators.flashtalk.kernels.residual import add_gated  # noqa: E402
from engine.generators.flashtalk.layers import (  # noqa: E402
    AudioCrossAttention,
    FrameRun,
    KeyValue,
    RmsNorm,
)
from engine.generators.flashtalk.speech_encoder import audio_slices, audio_window  # noqa: E402
from engine.generators.flashtalk.transformer import (  # noqa: E402
    DiT,
    frame_runs,
    from_patches,
    is_set_up_only,
    to_patches,
)
from engine.parallel.group import LocalGroup  # noqa: E402

CONFIG = DiTConfig(
    dim=96, ffn_dim=128, freq_dim=32, num_heads=4, num_layers=2, text_dim=24, text_len=32, intermediate_dim=8,
    output_dim=40, context_tokens=6, img_emb_in_dim=32, audio_blocks=3, audio_channels=16,
)  # fmt: skip
GRIDS = {"even": (3, 4, 4), "uneven": (3, 3, 5), "one frame": (1, 5, 2), "nine frames": (9, 2, 3)}
STEPS = (1000.0, 937.5, 833.33331, 625.0)
EXACT = choose_attention(torch.device("cpu"), torch.float32).attend


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


# ------------------------------------------------------------------------------------------- the plain model


class Plain:
    """Specification 3.3 to 3.9, one evaluation from raw inputs.

    `work` is the precision of weights and tokens, `wide` that of norms, gates, timestep path and head: float64 both
    for the exact answer, bfloat16 and float32 as published.
    """

    def __init__(self, state: dict, config: DiTConfig, work: torch.dtype, wide: torch.dtype) -> None:
        self.c, self.work, self.wide = config, work, wide
        self.state = {name: value.to(work) for name, value in state.items()}

    def w(self, name: str, dtype: torch.dtype | None = None):
        return self.state[name].to(dtype or self.work)

    def linear(self, name: str, x):
        return x @ self.w(f"{name}.weight", x.dtype).T + self.w(f"{name}.bias", x.dtype)

    def norm(self, x, eps: float, name: str = ""):
        """Layer norm in the wide precision, rounded to the input's."""
        exact = x.to(self.wide)
        centred = exact - exact.mean(-1, keepdim=True)
        normed = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        if name:
            normed = normed * self.w(f"{name}.weight", self.wide) + self.w(f"{name}.bias", self.wide)
        return normed.to(x.dtype)

    def rms(self, x, name: str):
        exact = x.to(self.wide)
        normed = exact / (exact.square().mean(-1, keepdim=True) + self.c.eps).sqrt()
        return normed.to(x.dtype) * self.w(f"{name}.weight")

    def attention(self, q, k, v):
        """[..., tokens, dim]; softmax in the wide precision, as fused kernels accumulate."""
        q, k, v = (
            x.unflatten(-1, (self.c.num_heads, self.c.head_dim)).transpose(-3, -2).to(self.wide) for x in (q, k, v)
        )
        weights = (q @ k.transpose(-1, -2) / math.sqrt(self.c.head_dim)).softmax(-1)
        return (weights @ v).to(self.work).transpose(-3, -2).flatten(-2)

    def turn(self, x, grid):
        """Rotary positions as complex numbers."""
        pairs = self.c.head_dim // 2
        spatial = pairs // 3
        temporal = pairs - 2 * spatial
        positions = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in grid)).view(-1, 3)
        angles = torch.cat(
            [
                torch.outer(positions[:, axis], 10000.0 ** (-2 * torch.arange(n, dtype=torch.float64) / (2 * n)))
                for axis, n in enumerate((temporal, spatial, spatial))
            ],
            dim=1,
        )
        z = torch.view_as_complex(x.double().unflatten(-1, (self.c.num_heads, pairs, 2)).contiguous())
        return torch.view_as_real(z * torch.polar(torch.ones_like(angles), angles)[:, None]).flatten(-3).to(x.dtype)

    def audio_tokens(self, windows):
        """[frames, 5, layers, channels] -> [latent frames, tokens, width] with the regrouping of 3.8."""
        windows = windows.to(self.work)
        hidden = [self.linear("audio_proj.proj1", windows[0].flatten()).relu()]
        for first in range(1, len(windows), 4):
            a, b, c, d = windows[first : first + 4]
            slots = torch.cat((a[:3], b[2:3], c[2:3], d[2:]))
            hidden.append(self.linear("audio_proj.proj1_vf", slots.flatten()).relu())
        deep = self.linear("audio_proj.proj2", torch.stack(hidden)).relu()
        tokens = self.linear("audio_proj.proj3", deep).unflatten(-1, (self.c.context_tokens, self.c.output_dim))
        return self.norm(tokens, 1e-5, "audio_proj.norm")

    def text_tokens(self, context):
        filled = torch.zeros(self.c.text_len, self.c.text_dim, dtype=self.work)
        filled[: len(context)] = context.to(self.work)
        hidden = F.gelu(self.linear("text_embedding.0", filled), approximate="tanh")
        return self.linear("text_embedding.2", hidden)

    def image_tokens(self, features):
        x = self.norm(features.to(self.work), 1e-5, "img_emb.proj.0")
        x = self.linear("img_emb.proj.3", F.gelu(self.linear("img_emb.proj.1", x)))
        return self.norm(x, 1e-5, "img_emb.proj.4")

    def time(self, t: float):
        half = self.c.freq_dim // 2
        angles = t * 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        sinusoid = torch.cat((angles.cos(), angles.sin()))[None].to(self.wide)
        e = self.linear("time_embedding.2", F.silu(self.linear("time_embedding.0", sinusoid)))
        return e, self.linear("time_projection.1", F.silu(e)).view(1, 6, self.c.dim)

    def block(self, n: int, x, e0, text, image, audio, grid):
        def name(part):
            return f"blocks.{n}.{part}"

        eps, wide = self.c.eps, self.wide
        parts = (self.w(name("modulation"), wide) + e0).squeeze(0)
        shift_sa, scale_sa, gate_sa, shift_ff, scale_ff, gate_ff = parts
        a = (self.norm(x, eps).to(wide) * (1 + scale_sa) + shift_sa).to(self.work)
        q, k = (
            self.turn(self.rms(self.linear(name(f"self_attn.{p}"), a), name(f"self_attn.norm_{p}")), grid) for p in "qk"
        )
        y = self.linear(name("self_attn.o"), self.attention(q, k, self.linear(name("self_attn.v"), a)))
        x = (x.to(wide) + y.to(wide) * gate_sa).to(self.work)

        b = self.norm(x, eps, name("norm3"))
        q = self.rms(self.linear(name("cross_attn.q"), b), name("cross_attn.norm_q"))
        k = self.rms(self.linear(name("cross_attn.k"), text), name("cross_attn.norm_k"))
        k_image = self.rms(self.linear(name("cross_attn.k_img"), image), name("cross_attn.norm_k_img"))
        seen = self.attention(q, k, self.linear(name("cross_attn.v"), text))
        seen = seen + self.attention(q, k_image, self.linear(name("cross_attn.v_img"), image))
        x = x + self.linear(name("cross_attn.o"), seen)

        frames = self.norm(x, eps, name("norm_x")).unflatten(0, (grid[0], -1))
        k, v = self.linear(name("audio_cross_attn.kv_linear"), audio).chunk(2, dim=-1)
        heard = self.attention(self.linear(name("audio_cross_attn.q_linear"), frames), k, v).flatten(0, 1)
        x = x + self.linear(name("audio_cross_attn.proj"), heard)

        d = (self.norm(x, eps).to(wide) * (1 + scale_ff) + shift_ff).to(self.work)
        y = self.linear(name("ffn.2"), F.gelu(self.linear(name("ffn.0"), d), approximate="tanh"))
        return (x.to(wide) + y.to(wide) * gate_ff).to(self.work)

    def embed(self, latents, y):
        """The convolution over latent, mask and image latent."""
        x = torch.cat((latents.to(self.wide), y.to(self.wide))).to(self.work)
        weight, bias = self.w("patch_embedding.weight"), self.w("patch_embedding.bias")
        return F.conv3d(x[None], weight, bias, stride=(1, 2, 2))[0].flatten(1).T

    def head(self, x, e, grid):
        shift, scale = (self.w("head.modulation", self.wide) + e[:, None]).squeeze(0)
        out = self.linear("head.head", self.norm(x, self.c.eps).to(self.wide) * (1 + scale) + shift)
        frames, rows, columns = grid
        velocity = torch.empty(self.c.out_dim, frames, 2 * rows, 2 * columns, dtype=self.wide)
        for token, values in enumerate(out):
            t, r, c = token // (rows * columns), token // columns % rows, token % columns
            for index, value in enumerate(values):
                row, column, channel = (
                    index // (2 * self.c.out_dim),
                    index // self.c.out_dim % 2,
                    index % self.c.out_dim,
                )
                velocity[channel, t, 2 * r + row, 2 * c + column] = value
        return velocity

    def __call__(self, inputs, t: float):
        grid = inputs.grid
        x = self.embed(inputs.latents, inputs.y)
        e, e0 = self.time(t)
        text, image = self.text_tokens(inputs.context), self.image_tokens(inputs.image)
        audio = self.audio_tokens(inputs.windows)
        for n in range(self.c.num_layers):
            x = self.block(n, x, e0, text, image, audio, grid)
        return self.head(x, e, grid)


class Inputs:
    """Random raw inputs in float64 for a grid and a prompt of `words` tokens."""

    def __init__(self, grid, words: int, config: DiTConfig = CONFIG, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        frames, rows, columns = self.grid = grid
        self.latents = normal(config.out_dim, frames, 2 * rows, 2 * columns)
        self.y = normal(config.out_dim + 4, frames, 2 * rows, 2 * columns)
        self.context = normal(words, config.text_dim)
        self.image = normal(9, config.img_emb_in_dim)
        self.embedding = normal(60, config.audio_blocks, config.audio_channels)
        video_frames = 4 * (frames - 1) + 1
        self.first_row = 60 - video_frames
        self.windows = audio_window(self.embedding, self.first_row, 60)[0]
        self.slices = audio_slices(self.embedding, self.first_row, video_frames)


def weights(config: DiTConfig = CONFIG, seed: int = 1) -> dict:
    """In float64; gates are about one, so that a mistake behind any of them shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in DiT(config).state_dict().items()}
    state = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator, dtype=torch.float64)
        if "modulation" in name:
            value = 0.6 * value
        elif len(shape) == 1:
            value = 0.2 * value + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        elif "proj.0.weight" in name or "proj.4.weight" in name:
            value = 1 + 0.2 * value
        else:
            value = value / math.sqrt(math.prod(shape[1:]))
        state[name] = value
    return state


def built(state: dict, config: DiTConfig = CONFIG) -> DiT:
    with torch.device("meta"):
        dit = DiT(config)
    dit.load_state_dict(state, assign=True)
    return dit.eval()


def conditions(dit: DiT, inputs: Inputs, steps=STEPS, dtype=torch.float64):
    stream = dit.stream_conditions(
        inputs.context, inputs.image, inputs.y.to(dtype), torch.tensor(steps, dtype=dtype), LocalGroup()
    )
    return stream, dit.chunk_conditions(*inputs.slices)


def distance(a, b) -> float:
    return ((a - b).abs().max() / b.abs().max()).item()


# --------------------------------------------------------------------------------------- all tricks together


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("words", [1, 7, 24, 31, 32])
def test_the_model_is_the_plain_model(grid, words):
    state, inputs = weights(), Inputs(grid, words)
    plain, dit = Plain(state, CONFIG, torch.float64, torch.float64), built(state)
    stream, chunk = conditions(dit, inputs)
    for step in (0, 2):
        got = dit(inputs.latents, step, stream, chunk, LocalGroup(), EXACT)
        assert got.dtype == torch.float64
        assert distance(got, plain(inputs, STEPS[step])) <= 1e-10


def test_every_input_matters_to_the_plain_model():
    """Or else the comparison above could hide a part that is switched off."""
    state, inputs = weights(), Inputs((3, 2, 3), 7)
    plain = Plain(state, CONFIG, torch.float64, torch.float64)
    before = plain(inputs, 625.0)
    for name in ("latents", "y", "context", "image", "windows"):
        changed = Inputs((3, 2, 3), 7)
        value = getattr(changed, name)
        value.copy_(value.roll(1, dims=-1))
        assert distance(plain(changed, 625.0), before) > 1e-2, name
    assert distance(plain(inputs, 833.3), before) > 1e-2
    for name in state:
        other = Plain(state | {name: state[name] * 0.5}, CONFIG, torch.float64, torch.float64)
        change = distance(other(inputs, 625.0), before)
        # A bias on all keys alike moves every logit of a query alike.
        is_idle = name.endswith(("self_attn.k.bias", "cross_attn.k.bias"))
        assert change > 1e-7 or is_idle, name


def test_conditions_do_not_depend_on_what_else_is_asked_for():
    """One of four steps is as if it were the only one, and asking again gives the same bits."""
    dit, inputs = built(weights()), Inputs((3, 2, 3), 5)
    stream, chunk = conditions(dit, inputs)
    alone, _ = conditions(dit, inputs, steps=STEPS[2:3])
    got = dit(inputs.latents, 2, stream, chunk, LocalGroup(), EXACT)
    again = dit(inputs.latents, 0, alone, chunk, LocalGroup(), EXACT)
    assert distance(again, got) < 1e-13
    assert torch.equal(dit(inputs.latents, 2, stream, chunk, LocalGroup(), EXACT), got)


# ------------------------------------------------------------------------------------------ the tricks alone


@pytest.mark.parametrize("words", [1, 7, 23, 24, 31, 32])
def test_one_padding_key_stands_for_all(words):
    state, inputs = weights(), Inputs((1, 2, 2), words)
    dit, plain = built(state), Plain(state, CONFIG, torch.float64, torch.float64)
    text, bias = dit.embed_text(inputs.context)
    everything = plain.text_tokens(inputs.context)
    assert len(text) == len(bias) and len(text) % 8 == 0
    q = torch.randn(50, CONFIG.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(5)) * 4
    for block in dit.blocks:
        few, all_keys = block.cross_attn.text_keys(text, bias), block.cross_attn.text_keys(everything, None)
        heads = q.unflatten(-1, (CONFIG.num_heads, CONFIG.head_dim))
        assert (
            distance(attend_few_keys(heads, few.k, few.v, few.bias), attend_few_keys(heads, all_keys.k, all_keys.v))
            <= 1e-12
        )


def test_the_constant_patches_and_the_rest_are_the_convolution():
    state, inputs = weights(), Inputs((2, 3, 5), 4)
    stream, _ = conditions(dit := built(state), inputs)
    wanted = Plain(state, CONFIG, torch.float64, torch.float64).embed(inputs.latents, inputs.y)
    assert distance(dit.embed_patches(inputs.latents, stream, LocalGroup()), wanted) <= 1e-13


def test_the_table_of_timesteps_is_the_path_of_each():
    dit, plain = built(state := weights()), Plain(state, CONFIG, torch.float64, torch.float64)
    modulation, head = dit.embed_time(torch.tensor(STEPS, dtype=torch.float64))
    assert modulation.shape == (4, 2, 6, 96) and head.shape == (4, 2, 96)
    for step, t in enumerate(STEPS):
        e, e0 = plain.time(t)
        for layer in range(2):
            assert distance(modulation[step, layer], (state[f"blocks.{layer}.modulation"] + e0)[0]) <= 1e-13
        assert distance(head[step], (state["head.modulation"] + e[:, None])[0]) <= 1e-13


@pytest.mark.parametrize("frames", [1, 2, 9])
def test_overlapping_slices_are_the_regrouped_windows(frames):
    state, inputs = weights(), Inputs((frames, 1, 1), 4)
    tokens = built(state).audio_proj(*inputs.slices)
    wanted = Plain(state, CONFIG, torch.float64, torch.float64).audio_tokens(inputs.windows)
    assert tokens.shape == (frames, 6, 40) and distance(tokens, wanted) <= 1e-12


def test_patches_are_taken_apart_as_they_are_read_and_put_together_as_they_are_written():
    """Channel slowest on the way in, channel fastest on the way out (specification 3.9)."""
    x = torch.arange(3 * 2 * 4 * 6).view(3, 2, 4, 6)
    patches = to_patches(x)
    assert patches.shape == (2 * 2 * 3, 12)
    for token, (t, r, c) in enumerate((t, r, c) for t in range(2) for r in range(2) for c in range(3)):
        assert torch.equal(patches[token], x[:, t, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].reshape(-1))
    written = patches.view(12, 3, 4).transpose(1, 2).reshape(12, 12)
    assert torch.equal(from_patches(written, (2, 2, 3)), x)


def test_the_norm_of_queries_is_over_the_full_width_and_weighted_after_rounding():
    norm = RmsNorm(96, 1e-6)
    norm.weight.data = torch.linspace(0.5, 2, 96).bfloat16()
    x = torch.randn(5, 96, generator=torch.Generator().manual_seed(2)).bfloat16()
    exact = x.float() / (x.float().square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert torch.equal(norm(x), exact.bfloat16() * norm.weight)


# ------------------------------------------------------------------------------- token ranges of other ranks


@pytest.mark.parametrize(("frames", "per_frame"), [(9, 1344), (3, 15), (1, 4), (5, 1)])
def test_runs_are_the_frames_of_the_tokens(frames, per_frame):
    tokens = frames * per_frame
    for world in {1, 2, 3, 4, 8, tokens} & set(range(1, min(tokens, 16) + 1)):
        cuts = [round(rank * tokens / world) for rank in range(world + 1)]
        for start, stop in pairwise(cuts):
            wanted = [token // per_frame for token in range(start, stop)]
            runs = frame_runs(start, stop, per_frame, frames)
            got = [run.frame for run in runs for _ in range(run.start, run.stop)]
            assert got == wanted and [run.frame for run in runs] == sorted(set(wanted))
            assert runs[0].start == 0 and all(a.stop == b.start for a, b in pairwise(runs))
    assert frame_runs(tokens - 1, tokens + 3, per_frame, frames) == (FrameRun(frame=frames - 1, start=0, stop=4),)


@pytest.mark.parametrize(
    "cuts", [(0, 45), (0, 7, 45), (0, 15, 30, 45), (0, 22, 23, 45), (0, 10, 20, 40, 45), (0, 8, 22, 45)]
)
def test_voices_are_heard_alike_however_the_tokens_are_split(cuts):
    """(8, 22) holds equal parts of two frames, (22, 23) a single token, (10, 20) unequal ones, (0, 45) whole frames."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    layer = AudioCrossAttention(CONFIG).double()
    tokens = torch.randn(3, 6, CONFIG.output_dim, dtype=torch.float64, generator=generator)
    x = torch.randn(45, CONFIG.dim, dtype=torch.float64, generator=generator)
    audio = layer.audio_keys(tokens)
    parts = [layer(x[a:b], audio, frame_runs(a, b, 15, 3)) for a, b in pairwise(cuts)]
    singly = [
        layer(
            x[15 * n : 15 * n + 15],
            KeyValue(k=audio.k[n][None], v=audio.v[n][None]),
            (FrameRun(frame=0, start=0, stop=15),),
        )
        for n in range(3)
    ]
    assert distance(torch.cat(parts), torch.cat(singly)) <= 1e-13
    assert distance(singly[0], layer(x[:15], audio, (FrameRun(frame=1, start=0, stop=15),))) > 1e-3


class _Rank:
    """One of several ranks that work one after another: it knows its rows and is handed the keys of the others."""

    def __init__(self, rank: int, cuts, keys) -> None:
        self.rank, self.size, self.cuts, self.keys = rank, len(cuts) - 1, cuts, keys
        self.layers = 0

    def token_range(self, tokens):
        return self.cuts[self.rank], self.cuts[self.rank + 1]

    def shard(self, x):
        padded = torch.cat((x, torch.zeros(self.cuts[-1] - len(x), *x.shape[1:], dtype=x.dtype)))
        return padded[slice(*self.token_range(len(x)))]

    def gather(self, x, tokens):
        start, stop = self.token_range(tokens)
        whole = torch.zeros(self.cuts[-1], *x.shape[1:], dtype=x.dtype)
        whole[start:stop] = x
        return whole[:tokens]

    def share(self, owner, make, like):
        made = make()
        assert [(x.shape, x.dtype) for x in made] == [(x.shape, x.dtype) for x in like]
        return made

    def attend(self, q, k, v, attention):
        whole_k, whole_v = self.keys[self.layers]
        self.layers += 1
        start, stop = self.token_range(0)
        for own, whole in ((k, whole_k[start:stop]), (v, whole_v[start:stop])):
            assert distance(own[: len(whole)], whole) < 1e-11
        return attention(q, whole_k, whole_v)


@pytest.mark.parametrize("cuts", [(0, 23, 45), (0, 10, 20, 40, 45), (0, 12, 24, 36, 48), (0, 23, 46)])
def test_ranks_make_their_part_of_the_whole(cuts):
    """Positions, patches and voices of a rank are those of its own tokens; padding changes nothing."""
    dit, inputs = built(weights()), Inputs((3, 3, 5), 7)
    stream, chunk = conditions(dit, inputs)
    keys = []

    def recording(q, k, v):
        keys.append((k, v))
        return EXACT(q, k, v)

    whole = dit(inputs.latents, 1, stream, chunk, LocalGroup(), recording)
    together = torch.zeros_like(whole)
    for rank in range(len(cuts) - 1):
        group = _Rank(rank, cuts, keys)
        timesteps = torch.tensor(STEPS, dtype=torch.float64)
        own = dit.stream_conditions(inputs.context, inputs.image, inputs.y, timesteps, group)
        together += dit(inputs.latents, 1, own, chunk, group, EXACT)
    assert distance(together, whole) <= 1e-12


# ------------------------------------------------------------------------------ what of a step is not needed


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("is_packed", [False, True], ids=["apart", "packed"])
def test_the_motion_frames_are_left_out_of_what_only_they_need(grid, is_packed):
    dit, inputs = built(weights()), Inputs(grid, 7)
    stream, chunk = conditions(dit, inputs)
    whole = dit(inputs.latents, 1, stream, chunk, LocalGroup(), EXACT)
    if is_packed:
        dit.pack_projections()
    queries = []

    def counting(q, k, v):
        queries.append((len(q), len(k)))
        return EXACT(q, k, v)

    tokens, per_frame = math.prod(grid), grid[1] * grid[2]
    for motion in range(min(grid[0], 3)):
        queries.clear()
        got = dit(inputs.latents, 1, stream, chunk, LocalGroup(), counting, motion)
        assert distance(got[:, motion:], whole[:, motion:]) <= 1e-13
        assert motion == 0 or not got[:, :motion].any()
        assert queries == [(tokens, tokens), (tokens - motion * per_frame, tokens)]


def test_several_ranks_leave_nothing_out():
    """They send queries, keys and values together, and none would be done sooner."""
    dit, inputs = built(weights()), Inputs((3, 3, 5), 7)
    keys = []

    def recording(q, k, v):
        keys.append((k, v))
        return EXACT(q, k, v)

    stream, chunk = conditions(dit, inputs)
    whole = dit(inputs.latents, 1, stream, chunk, LocalGroup(), recording)
    group = _Rank(0, (0, 23, 45), keys)
    own = dit.stream_conditions(inputs.context, inputs.image, inputs.y, torch.tensor(STEPS, dtype=torch.float64), group)
    got = dit(inputs.latents, 1, own, chunk, group, EXACT, 1)
    assert distance(got[:, 0], whole[:, 0]) <= 1e-12


def test_packed_projections_are_the_same_weights_under_the_same_names():
    state, inputs = weights(), Inputs((3, 3, 5), 7)
    dit, packed = built(dict(state)), built(dict(state))
    packed.pack_projections()
    for (name, one), (other_name, other) in zip(dit.state_dict().items(), packed.state_dict().items(), strict=True):
        assert name == other_name and torch.equal(one, other)
    attention = packed.blocks[1].self_attn
    assert attention.q.weight.untyped_storage().data_ptr() == attention.v.weight.untyped_storage().data_ptr()
    assert attention.q.weight.untyped_storage().nbytes() == 3 * attention.q.weight.nbytes
    given = (inputs.latents, 1, *conditions(dit, inputs), LocalGroup(), EXACT)
    assert distance(packed(*given), dit(*given)) <= 1e-14


def test_weights_that_change_after_packing_are_noticed():
    dit = built(weights())
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
            assert torch.equal(got, layer(x)) or distance(got, layer(x)) < 1e-6
        attention.double()
        attention.pack()
        x = x.double()


def test_layers_that_are_not_plain_are_not_packed():
    class Other(torch.nn.Module):
        def forward(self, x):
            return 2 * x

    dit = built(weights())
    attention, x = dit.blocks[0].self_attn, torch.randn(5, 96, dtype=torch.float64)
    attention.q = Other()
    attention.pack()
    assert torch.equal(attention._project(x, 0)[0], 2 * x)


# ------------------------------------------------------------------------------------ what steps do not need


def test_steps_need_nothing_of_what_stays_behind():
    dit, inputs = built(weights()), Inputs((2, 2, 3), 7)
    stream, chunk = conditions(dit, inputs)
    before = dit(inputs.latents, 1, stream, chunk, LocalGroup(), EXACT)
    left = [name for name, _ in dit.named_parameters() if is_set_up_only(name)]
    for name, parameter in dit.named_parameters():
        if name in left:
            parameter.data = torch.full_like(parameter, math.nan)
    chunk = dit.chunk_conditions(*inputs.slices)
    assert torch.equal(dit(inputs.latents, 1, stream, chunk, LocalGroup(), EXACT), before)
    kinds = {name.split(".", 2)[2] if name.startswith("blocks.") else name.split(".")[0] for name in left}
    assert {"text_embedding", "img_emb", "time_embedding", "time_projection"} <= kinds
    assert {f"cross_attn.{part}.weight" for part in ("k", "v", "k_img", "v_img", "norm_k", "norm_k_img")} <= kinds


def test_all_else_is_needed_by_steps():
    """A parameter that is kept on the device for nothing would cost memory for nothing."""
    dit, inputs = built(weights()), Inputs((2, 2, 3), 7)
    stream, chunk = conditions(dit, inputs)
    before = dit(inputs.latents, 1, stream, chunk, LocalGroup(), EXACT)
    for name, parameter in dit.named_parameters():
        # These small ones are in the tables of the stream already.
        if is_set_up_only(name) or "modulation" in name or name == "patch_embedding.bias":
            continue
        kept, parameter.data = parameter.data, parameter.data.roll(1, dims=0) * 1.5
        got = dit(inputs.latents, 1, stream, dit.chunk_conditions(*inputs.slices), LocalGroup(), EXACT)
        # A bias on all keys moves every logit of a query alike, but for rotation and norms.
        assert distance(got, before) > 1e-6, name
        parameter.data = kept


@pytest.mark.parametrize("rest", [torch.bfloat16, torch.float32])
def test_weights_for_conditions_may_rest_in_another_precision(rest):
    """They are used in the precision of what they are applied to."""
    state = {n: v.to(rest).double() if is_set_up_only(n) else v for n, v in weights().items()}
    inputs = Inputs((2, 2, 3), 7)
    resting = built({n: v.to(rest) if is_set_up_only(n) else v for n, v in state.items()})
    results = []
    for dit in (built(state), resting):
        stream, chunk = conditions(dit, inputs)
        assert {x.k.dtype for x in (*stream.text, *stream.image)} == {torch.float64}
        assert stream.modulation.dtype == torch.float64
        results.append(dit(inputs.latents, 1, stream, chunk, LocalGroup(), EXACT))
    assert distance(results[1], results[0]) <= 1e-13


# --------------------------------------------------------------------------------------------- bfloat16


def _bf16_state(seed: int) -> dict:
    return {name: value.bfloat16() for name, value in weights(seed=seed).items()}


def _bf16_step(state: dict, inputs: Inputs, step: int):
    dit = built(dict(state))
    dit.head.head.float()
    stream, chunk = conditions(dit, inputs, dtype=torch.float32)
    assert stream.modulation.dtype == stream.table.dtype == stream.patches.dtype == torch.float32
    assert stream.text[0].k.dtype == chunk.audio[0].k.dtype == torch.bfloat16
    return dit(inputs.latents.float(), step, stream, chunk, LocalGroup(), EXACT)


def _drawn(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


@pytest.mark.parametrize("operation", ["gate", "modulation"])
def test_gates_and_modulation_are_rounded_once(operation):
    """They are float32 in a model of bfloat16, and so is what is done with them."""
    x, branch = _drawn(400, 96, dtype=torch.bfloat16), _drawn(400, 96, dtype=torch.bfloat16).flip(0)
    one, other = _drawn(96), _drawn(1, 96)[0]
    if operation == "gate":
        got, exact = add_gated(x, branch, one), x.double() + branch.double() * one.double()
    else:
        got, exact = modulate(x, one, other), x.double() * (1 + other.double()) + one.double()
    assert got.dtype == torch.bfloat16
    assert (got != exact.bfloat16()).float().mean() < 1e-3  # a tie now and then


def test_the_head_is_float32_from_its_norm_on():
    state = _bf16_state(1)
    dit, plain = built(dict(state)), Plain(state, CONFIG, torch.bfloat16, torch.float32)
    dit.head.head.float()
    x, e = _drawn(30, 96, dtype=torch.bfloat16), _drawn(1, 96)
    shift, scale = (state["head.modulation"].double() + e.double()[:, None]).squeeze(0)
    exact = plain.norm(x, CONFIG.eps).double() * (1 + scale) + shift
    exact = exact @ state["head.head.weight"].double().T + state["head.head.bias"].double()
    got = dit.head(x, (state["head.modulation"].float() + e[:, None]).squeeze(0))
    assert got.dtype == torch.float32 and distance(got.double(), exact) < 1e-6


def test_the_patch_embedding_is_rounded_once():
    """Its constant part and the rest are each kept wide until they are added."""
    state, inputs = _bf16_state(1), Inputs((3, 3, 5), 7)
    stream, _ = conditions(dit := built(dict(state)), inputs, dtype=torch.float32)
    both = torch.cat((inputs.latents, inputs.y.float())).bfloat16().double()
    wide_state = {name: value.double() for name, value in state.items()}
    exact = Plain(wide_state, CONFIG, torch.float64, torch.float64).embed(both[:16], both[16:])
    got = dit.embed_patches(inputs.latents.float(), stream, LocalGroup())
    assert got.dtype == torch.bfloat16 and (got != exact.bfloat16()).float().mean() < 1e-3


def test_bfloat16_is_as_near_to_exact_as_the_published_roundings():
    """The error is that of rounding in other places, so it is compared over several models and steps."""
    ours, theirs = [], []
    for seed in range(6):
        state, inputs = _bf16_state(seed), Inputs((3, 3, 5), 7, seed=seed)
        # Inputs that bfloat16 holds exactly, so that only what the model rounds is seen.
        for name in ("latents", "y", "context", "image"):
            setattr(inputs, name, getattr(inputs, name).bfloat16().double())
        for step in (0, 3):
            exact = Plain(state, CONFIG, torch.float64, torch.float64)(inputs, STEPS[step])
            got = _bf16_step(state, inputs, step)
            assert got.dtype == torch.float32
            naive = Plain(state, CONFIG, torch.bfloat16, torch.float32)(inputs, STEPS[step])
            ours.append((got - exact).square().mean() / exact.square().mean())
            theirs.append((naive - exact).square().mean() / exact.square().mean())
    error, reference = (torch.stack(values).mean().sqrt().item() for values in (ours, theirs))
    assert 1e-3 < reference < 0.1
    assert error <= 1.1 * reference
