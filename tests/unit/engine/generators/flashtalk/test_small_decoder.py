"""The small decoder: against a plain reading of the published layout, frame by frame; what its streams keep."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from engine.errors import ModelFilesError  # noqa: E402
from engine.generators.flashtalk.small_decoder import SmallDecoder, SmallStream, load_small_decoder  # noqa: E402

WIDTHS = (24, 16, 8, 8)
GROWTH = {7: 1, 13: 2, 19: 2}
"""Places in the published list of layers, and frames made of one there."""


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def state():
    return _weights(SmallDecoder(WIDTHS), torch.float64)


def _weights(decoder, dtype):
    source = torch.Generator().manual_seed(1)
    drawn = {}
    for name, value in decoder.state_dict().items():
        spread = 0.1 if value.dim() == 1 else value[0].numel() ** -0.5
        drawn[name] = (torch.randn(value.shape, generator=source, dtype=torch.float64) * spread).to(dtype)
    drawn["decoder.22.weight"] *= 0.2
    drawn["decoder.22.bias"] += 0.5
    return drawn


def _latents(count, seed=2):
    return 2 * torch.randn(16, count, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _decoder(state, *, is_merged=False):
    decoder = SmallDecoder(WIDTHS).double()
    decoder.load_state_dict(state)
    if is_merged:
        decoder.merge_upsampling()
    return decoder


def _published(state, latents):
    """Frame after frame through the numbered layers: a queue of (frame, layer), the first one first."""
    memory, queue, out = {}, [(latents[:, n][None], 0) for n in range(latents.shape[1])], []

    def convolved(x, name, padding=1):
        return F.conv2d(x, state[f"decoder.{name}.weight"], state.get(f"decoder.{name}.bias"), padding=padding)

    while queue:
        x, place = queue.pop(0)
        frames = [x]
        if place == 0:
            frames = [3 * torch.tanh(x / 3)]
        elif place in (2, 21):
            frames = [x.clamp(min=0)]
        elif place in (6, 12, 18):
            frames = [x.repeat_interleave(2, -1).repeat_interleave(2, -2)]
        elif place in GROWTH:
            frames = list(convolved(x, f"{place}.conv", 0).chunk(GROWTH[place], dim=1))
        elif place in (1, 8, 14, 20, 22):
            frames = [convolved(x, place)]
        else:
            y = torch.cat((x, memory.get(place, torch.zeros_like(x))), dim=1)
            memory[place] = x
            for number in (0, 2):
                y = convolved(y, f"{place}.conv.{number}").clamp(min=0)
            frames = [(convolved(y, f"{place}.conv.4") + x).clamp(min=0)]
        if place == 22:
            out.append(frames[0][0])
        else:
            queue = [(frame, place + 1) for frame in frames] + queue
    return torch.stack(out, dim=1)[None][:, :, 3:].clamp(0, 1) * 2 - 1


@pytest.mark.parametrize("is_merged", [False, True])
def test_frames_are_those_of_the_published_layers(state, is_merged):
    frames = list(_decoder(state, is_merged=is_merged).decode(_latents(4)))
    assert [part.shape for part in frames] == [(1, 3, n, 24, 32) for n in (1, 4, 4, 4)]
    wanted = _published(state, _latents(4))
    assert wanted.std() > 0.2 and (wanted.abs() == 1).double().mean() < 0.6
    assert (torch.cat(frames, dim=2) - wanted).abs().max() < 1e-12


def test_names_and_shapes_are_those_of_the_published_file():
    """64 tensors of the decoder, counted and summed on the published program."""
    with torch.device("meta"):
        state = SmallDecoder().state_dict()
    assert len(state) == 64 and sum(value.numel() for value in state.values()) == 9_844_611
    shapes = {name: tuple(state[f"decoder.{name}.weight"].shape) for name in ("1", "3.conv.0", "7.conv", "13.conv")}
    assert shapes == {
        "1": (256, 16, 3, 3),
        "3.conv.0": (256, 512, 3, 3),
        "7.conv": (256, 256, 1, 1),
        "13.conv": (256, 128, 1, 1),
    }
    assert "decoder.8.bias" not in state and "decoder.22.bias" in state


def test_a_stream_may_be_cut_anywhere_and_begin_again(state):
    decoder = _decoder(state)
    whole = torch.cat(list(decoder.decode(_latents(5))), dim=2)
    stream = SmallStream(decoder)
    for groups in ([2, 3], [5], [1, 1, 3]):
        parts = [stream.push(part) for part in _latents(5).split(groups, dim=1)]
        assert (torch.cat(parts, dim=2) - whole).abs().max() < 1e-12
        stream.reset()


def test_every_block_remembers(state):
    """A change in the first latent frame is seen in every later one; with memories of another stream frames differ."""
    changed = _latents(4)
    changed[:, 0] += 1
    frames = [torch.cat(list(_decoder(state).decode(latents)), dim=2) for latents in (_latents(4), changed)]
    assert ((frames[0] - frames[1]).abs().amax((0, 1, 3, 4)) > 1e-6).all()
    stream = SmallStream(_decoder(state))
    stream.push(_latents(1))
    assert len(stream._memory) == 9


def test_buffers_stay_where_they_are(state):
    stream = SmallStream(_decoder(state))
    stream.push(_latents(1))
    places = {block: before.data_ptr() for block, before in stream._memory.items()}
    for latent in _latents(3).split(1, dim=1):
        with torch.inference_mode():
            stream.push(latent)
    stream.reset()
    stream.push(_latents(1))
    assert {block: before.data_ptr() for block, before in stream._memory.items()} == places


def test_channels_last_changes_nothing_and_stays(state, monkeypatch):
    wanted = torch.cat(list(_decoder(state).decode(_latents(3))), dim=2)
    decoder, strayed, convolve = _decoder(state), [], F.conv2d
    decoder.use_channels_last()

    def watched(x, *args, **kwargs):
        strayed.extend([x.shape] if not x.is_contiguous(memory_format=torch.channels_last) else [])
        return convolve(x, *args, **kwargs).contiguous(memory_format=torch.channels_last)

    monkeypatch.setattr(F, "conv2d", watched)
    got = torch.cat(list(decoder.decode(_latents(3))), dim=2)
    assert (got - wanted).abs().max() < 1e-12 and not strayed


def test_wrong_latents_are_refused(state):
    with pytest.raises(ValueError, match="latents are"):
        SmallStream(_decoder(state)).push(_latents(1)[:8])


# ------------------------------------------------------------------------------------------- files


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file as it is published: encoder and decoder, the first growth with weights for two frames."""
    state = _weights(SmallDecoder(), torch.float16)
    more = torch.cat((torch.zeros_like(state["decoder.7.conv.weight"]), state["decoder.7.conv.weight"]))
    stored = {**state, "decoder.7.conv.weight": more, "encoder.0.weight": torch.zeros(64, 3, 3, 3)}
    folder = tmp_path_factory.mktemp("small")
    save_file(stored, folder / "taew2_1.safetensors")
    torch.save(stored, folder / "taew2_1.pth")
    return folder, state


@pytest.mark.parametrize("name", ["taew2_1.safetensors", "taew2_1.pth"])
def test_a_published_file_loads(published, name):
    folder, state = published
    decoder = load_small_decoder(folder / name, torch.device("cpu"), torch.float32)
    for key, value in decoder.state_dict().items():
        assert torch.equal(value, state[key].float())
    assert not any(parameter.requires_grad for parameter in decoder.parameters())


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ModelFilesError, match="no weights of a small decoder") as refused:
        load_small_decoder(tmp_path / "none.pth", torch.device("cpu"), torch.float32)
    assert "taew2_1" in refused.value.hint
    save_file({"decoder.1.weight": torch.zeros(4, 4, 3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelFilesError, match="not those of the small decoder"):
        load_small_decoder(tmp_path / "other.safetensors", torch.device("cpu"), torch.float32)
