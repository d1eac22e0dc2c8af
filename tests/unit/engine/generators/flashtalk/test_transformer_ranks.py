"""The transformer on several ranks, each of which has a range of the tokens."""

from __future__ import annotations

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.layers import AudioCrossAttention, FrameRun, KeyValue  # noqa: E402
from engine.generators.flashtalk.transformer import frame_runs  # noqa: E402
from engine.parallel.group import LocalGroup  # noqa: E402

pytestmark = pytest.mark.usefixtures("no_gradients")


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
def test_voices_are_heard_alike_however_the_tokens_are_split(tiny, cuts):
    """(8, 22) holds equal parts of two frames, (22, 23) a single token, (10, 20) unequal ones, (0, 45) whole frames."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    layer = AudioCrossAttention(tiny.CONFIG).double()
    tokens = torch.randn(3, 6, tiny.CONFIG.output_dim, dtype=torch.float64, generator=generator)
    x = torch.randn(45, tiny.CONFIG.dim, dtype=torch.float64, generator=generator)
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
    assert tiny.distance(torch.cat(parts), torch.cat(singly)) <= 1e-13
    assert tiny.distance(singly[0], layer(x[:15], audio, (FrameRun(frame=1, start=0, stop=15),))) > 1e-3


class _Rank:
    """One of several ranks that work one after another: it knows its rows and is handed the keys of the others, in
    self-attention and of text and portrait (those of `stream`)."""

    def __init__(self, rank: int, cuts, keys, stream) -> None:
        self.rank, self.size, self.cuts, self.keys = rank, len(cuts) - 1, cuts, keys
        self.shared = iter([(made.k, made.v) for made in (*stream.text, *stream.image)])
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
        made = next(self.shared)
        assert [(x.shape, x.dtype) for x in made] == [(x.shape, x.dtype) for x in like]
        if owner == self.rank:
            assert all((own - whole).abs().max() <= 1e-11 for own, whole in zip(make(), made, strict=True))
        return made

    def attend(self, q, k, v, attention):
        whole_k, whole_v = self.keys[self.layers]
        self.layers += 1
        start, stop = self.token_range(0)
        for own, whole in ((k, whole_k[start:stop]), (v, whole_v[start:stop])):
            assert (own[: len(whole)] - whole).abs().max() < 1e-11 * whole.abs().max()
        return attention(q, whole_k, whole_v)


@pytest.mark.parametrize("cuts", [(0, 23, 45), (0, 10, 20, 40, 45), (0, 12, 24, 36, 48), (0, 23, 46)])
def test_ranks_make_their_part_of_the_whole(tiny, cuts):
    """Positions, patches and voices of a rank are those of its own tokens; padding changes nothing."""
    dit, inputs = tiny.built(tiny.weights()), tiny.Inputs((3, 3, 5), 7)
    stream, chunk = tiny.conditions(dit, inputs)
    keys = []

    def recording(q, k, v):
        keys.append((k, v))
        return tiny.EXACT(q, k, v)

    whole = dit(inputs.latents, 1, stream, chunk, LocalGroup(), recording)
    together = torch.zeros_like(whole)
    for rank in range(len(cuts) - 1):
        group = _Rank(rank, cuts, keys, stream)
        timesteps = torch.tensor(tiny.STEPS, dtype=torch.float64)
        own = dit.stream_conditions(inputs.context, inputs.image, inputs.y, timesteps, group)
        together += dit(inputs.latents, 1, own, chunk, group, tiny.EXACT)
    assert tiny.distance(together, whole) <= 1e-12


def test_several_ranks_leave_nothing_out(tiny):
    """They send queries, keys and values together, and none would be done sooner."""
    dit, inputs = tiny.built(tiny.weights()), tiny.Inputs((3, 3, 5), 7)
    keys = []

    def recording(q, k, v):
        keys.append((k, v))
        return tiny.EXACT(q, k, v)

    stream, chunk = tiny.conditions(dit, inputs)
    whole = dit(inputs.latents, 1, stream, chunk, LocalGroup(), recording)
    group = _Rank(0, (0, 23, 45), keys, stream)
    own = dit.stream_conditions(
        inputs.context, inputs.image, inputs.y, torch.tensor(tiny.STEPS, dtype=torch.float64), group
    )
    got = dit(inputs.latents, 1, own, chunk, group, tiny.EXACT, 1)
    assert tiny.distance(got[:, 0], whole[:, 0]) <= 1e-12
