"""Decoding from graphs: recorded on a tape that obeys the rules of a CUDA graph, or on a GPU."""

import logging

import pytest

torch = pytest.importorskip("torch")

from engine.generators.flashtalk.graphs import CudaRecorder  # noqa: E402
from engine.generators.flashtalk.kernels.catalog import VAE_KERNELS  # noqa: E402
from engine.generators.flashtalk.kernels.registry import Kernels  # noqa: E402
from engine.generators.flashtalk.vae import Vae  # noqa: E402
from engine.generators.flashtalk.vae_coders import VaeConfig  # noqa: E402
from engine.generators.flashtalk.vae_graphs import TOLERANCE, RecordedDecoder, record_decoder  # noqa: E402
from engine.generators.flashtalk.vae_history import History  # noqa: E402

ROWS, COLUMNS = 2, 3
FORMS = ("plain", "channels last", "kernels")


@pytest.fixture(autouse=True)
def _no_gradients():
    with torch.no_grad():
        yield


def _vae(form="plain", device="cpu", dtype=torch.float32):
    vae, source = Vae(VaeConfig(dim=8)), torch.Generator().manual_seed(1)
    for name, value in vae.named_parameters():
        drawn = torch.randn(value.shape, generator=source) * (0.2 if value.dim() == 1 else value[0].numel() ** -0.5)
        value.data = 1 + drawn if name.endswith("gamma") else drawn
    vae = vae.requires_grad_(False).to(device, dtype)
    if form != "plain":
        vae.use_channels_last()
    if form == "kernels":
        # The way through the layers that fused forms take, with the plain ones in their place.
        vae.use_kernels(Kernels(active={kernel.name: kernel.eager for kernel in VAE_KERNELS}))
        vae.merge_upsampling()
    return vae


def _latents(count, seed=0, device="cpu"):
    return torch.randn(16, count, ROWS, COLUMNS, generator=torch.Generator().manual_seed(seed)).to(device)


@pytest.mark.parametrize("form", FORMS)
def test_chunks_from_graphs_are_those_of_the_vae_to_the_last_bit(form, tape_recorder):
    """Whole ones and those that are left halfway; what was given out stays as it is while others are decoded."""
    vae = _vae(form)
    decoder, refused = record_decoder(vae, _latents(1), tape_recorder)
    assert decoder is not None and not refused and tape_recorder.recorded == 2
    before, given, expected = tape_recorder.replays, [], []
    for seed, count, asked in ((3, 4, 4), (4, 9, 2), (5, 3, 3), (3, 4, 4)):
        latents = _latents(count, seed)
        given += [group for group, _ in zip(decoder.decode(latents), range(asked), strict=False)]
        expected += list(vae.decode(latents))[:asked]
    assert tape_recorder.replays - before in (13, 14)  # zip looks one further ahead where it can
    assert [group.shape[2] for group in given] == [1, 4, 4, 4, 1, 4, 1, 4, 4, 1, 4, 4, 4]
    for got, wanted in zip(given, expected, strict=True):
        assert torch.equal(got, wanted) and got.stride() == wanted.stride()
    assert wanted.std() > 0.1


@pytest.mark.parametrize("form", FORMS)
def test_graphs_touch_only_what_stays_where_it_is(form, tape_recorder):
    """A graph keeps addresses, not tensors: all it reads from outside are weights, inputs and the stream's own buffers,
    and only the last ones are written."""
    vae = _vae(form)
    decoder = RecordedDecoder(vae, _latents(1), tape_recorder)
    history = list(decoder._stream._history._frames.values())
    merged = [module.merged for module in vae.modules() if getattr(module, "merged", None) is not None]
    inputs = [*decoder._first.inputs, *decoder._later.inputs]
    kept = [*vae.parameters(), *merged, *vae.latent_scale(), *inputs, *history]
    places = [frames.data_ptr() for frames in history]
    list(decoder.decode(_latents(3)))
    assert _storages(tape_recorder.read) <= _storages(kept)
    assert _storages(tape_recorder.written) == _storages(history) and len(history) == 32
    assert [frames.data_ptr() for frames in decoder._stream._history._frames.values()] == places


def _storages(tensors):
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


def _refused(vae, recorder, caplog):
    with caplog.at_level(logging.WARNING):
        decoder, refused = record_decoder(vae, _latents(1), recorder)
    assert decoder is None and refused and len(caplog.records) == 1 and refused in caplog.text
    return refused


class _Waits(torch.nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x) if x.abs().max().item() > 0 else x


class _Counts(_Waits):
    """Depends on how often it was called, which a recording cannot."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x) * (1 + self.calls % 3)


@pytest.mark.parametrize(("layer", "reason"), [(_Waits, "read on the host"), (_Counts, "off by")])
def test_a_decoder_that_cannot_be_recorded_is_found_out(layer, reason, tape_recorder, caplog):
    vae = _vae()
    attention = vae.decoder.middle[1]
    attention.proj = layer(attention.proj)
    assert reason in _refused(vae, tape_recorder, caplog)


def test_a_recorder_that_fails_is_told(caplog):
    class Failing:
        def record(self, work):
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    assert _refused(_vae(), Failing(), caplog) == "CUDA error: operation not permitted when stream is capturing"


def test_a_history_that_is_not_cleared_is_found_out(tape_recorder, caplog, monkeypatch):
    clear = History.clear

    def careless(history):
        last = list(history._frames.values())[-2]
        kept = last.clone()
        clear(history)
        last.copy_(kept)

    monkeypatch.setattr(History, "clear", careless)
    assert "off by" in _refused(_vae(), tape_recorder, caplog)


def test_any_buffer_with_another_video_in_it_would_be_seen():
    """The least that can go wrong with what a chunk finds of the one before; all of the others are right."""
    stream, errors = _vae().decode_stream(), []

    def decoded(seed):
        return [stream.push(latent) for latent in _latents(3, seed).split(1, dim=1)]

    wanted = decoded(1)
    stream.reset()
    decoded(2)
    left_over = {conv: frames.clone() for conv, frames in stream._history._frames.items()}
    for conv, frames in left_over.items():
        stream.reset()
        stream._history._frames[conv].copy_(frames)
        pairs = zip(decoded(1), wanted, strict=True)
        errors.append(max(torch.linalg.vector_norm(a - b) / torch.linalg.vector_norm(b) for a, b in pairs))
    assert len(errors) == 32 and min(errors) > 1.3 * TOLERANCE


def test_pictures_that_are_no_numbers_do_not_pass(tape_recorder, caplog):
    class Unfilled:
        def record(self, work):
            return tape_recorder.record(work)[0], lambda: None

    assert "nan" in _refused(_vae(), Unfilled(), caplog)


def test_rounding_in_bfloat16_is_not_taken_for_a_fault(tape_recorder):
    """What another kernel of a library may do while it is recorded, seen from float32."""
    vae, exact = _vae(dtype=torch.bfloat16), _vae()

    decoder, refused = record_decoder(vae, _latents(1), tape_recorder)
    assert decoder is not None and not refused
    wanted = list(exact.decode(_latents(3)))
    errors = [
        torch.linalg.vector_norm(got.float() - right) / torch.linalg.vector_norm(right)
        for got, right in zip(decoder.decode(_latents(3)), wanted, strict=True)
    ]
    assert 0 < max(errors) < 0.02


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["plain", "channels last"])
def test_frames_come_from_cuda_graphs(form):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    device = torch.device("cuda")
    vae = _vae(form, device, torch.bfloat16)
    decoder, refused = record_decoder(vae, _latents(1, device=device), CudaRecorder(device))
    assert decoder is not None, refused
    for seed in (3, 4, 3):
        latents = _latents(4, seed, device)
        for got, wanted in zip(decoder.decode(latents), vae.decode(latents), strict=True):
            torch.testing.assert_close(got.float(), wanted.float(), rtol=0, atol=0.02)
