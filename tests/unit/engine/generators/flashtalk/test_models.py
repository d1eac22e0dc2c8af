"""The loaded models: shared while anybody has them, gone afterwards; features, made or remembered."""

from __future__ import annotations

import gc
import shutil
import threading
import weakref
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from engine.errors import Cancelled, GeneratorError, ModelFilesError, UsageError  # noqa: E402
from engine.generators.flashtalk import feature_cache  # noqa: E402
from engine.generators.flashtalk import models as module  # noqa: E402
from engine.generators.flashtalk.models import (  # noqa: E402
    are_loaded,
    choose_device,
    image_features,
    load_models,
    load_speech_encoder,
    load_vae,
    text_features,
)
from engine.model_store.checkpoint import CheckpointReport, inspect_checkpoint  # noqa: E402

CPU = torch.device("cpu")
PROMPT = "A person is talking."


class Progress:
    """Remembers the stages; raises at the one called `stop`."""

    def __init__(self, stop: str = "") -> None:
        self.stages: list[str] = []
        self.last: tuple[float, float] = (0, 0)
        self._stop = stop

    def update(self, stage, done, total, unit=""):
        self.stages.append(stage)
        self.last = (done, total)
        if stage == self._stop:
            raise Cancelled("It was stopped.")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(feature_cache, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "flashtalk"


@pytest.fixture
def report(tiny_checkpoint) -> CheckpointReport:
    return inspect_checkpoint(*tiny_checkpoint)


@pytest.fixture
def own(tiny_checkpoint, tmp_path) -> tuple[Path, Path]:
    """A copy that a test may damage: (checkpoint, speech encoder)."""
    return tuple(Path(shutil.copytree(path, tmp_path / path.name)) for path in tiny_checkpoint)


def _portrait(value: float = 0.25, size=(48, 32)):
    return torch.linspace(-1, 1, size[0] * size[1]).view(1, 1, 1, *size).expand(1, 3, 1, *size) * value


# --------------------------------------------------------------------------------------------------------- the pool


def test_models_are_loaded_once_and_gone_with_the_last_stream(report):
    assert not are_loaded(report, CPU, "auto")
    one, again = load_models(report, CPU, "auto", Progress()), load_models(report, CPU, "auto", progress := Progress())
    assert one is again and not progress.stages and are_loaded(report, CPU, "auto")
    gone = [weakref.ref(one.dit), weakref.ref(one.vae), weakref.ref(one.speech)]
    del one
    gc.collect()
    assert are_loaded(report, CPU, "auto") and all(ref() is not None for ref in gone)
    del again
    gc.collect()
    assert not are_loaded(report, CPU, "auto") and [ref() for ref in gone] == [None] * 3


def test_another_kernel_is_another_set_of_models(report):
    one, other = (load_models(report, CPU, name, Progress()) for name in ("auto", "sdpa"))
    assert one is not other and not are_loaded(report, CPU, "flash2")


def test_stages_are_told_and_the_last_one_ends_full(report):
    models = load_models(report, CPU, "auto", progress := Progress())
    assert list(dict.fromkeys(progress.stages)) == ["video autoencoder", "speech encoder", "transformer"]
    assert progress.last[0] == progress.last[1] > 0
    assert models.attention.name == "sdpa" and models.device == CPU


@pytest.mark.parametrize("stage", ["video autoencoder", "speech encoder", "transformer"])
def test_a_stopped_load_leaves_nothing_and_can_be_tried_again(report, stage):
    with pytest.raises(Cancelled):
        load_models(report, CPU, "auto", Progress(stage))
    assert not are_loaded(report, CPU, "auto")
    assert load_models(report, CPU, "auto", Progress()).dit is not None


def test_two_threads_load_one_set(report, monkeypatch):
    loads, got = [], []
    real, is_loading, both = module._load, threading.Event(), threading.Barrier(2)

    def slow(*arguments):
        loads.append(arguments)
        is_loading.wait(0.2)  # long enough for the other one to ask as well
        return real(*arguments)

    monkeypatch.setattr(module, "_load", slow)

    def ask():
        both.wait(10)
        got.append(load_models(report, CPU, "auto", Progress()))

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(loads) == 1 and got[0] is got[1]


# ------------------------------------------------------------------------------------------------------------ devices


def test_auto_is_the_cpu_for_a_small_model_only(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", 10_000_000) == CPU
    with pytest.raises(GeneratorError) as raised:
        choose_device("auto", 18_882_046_784)
    assert raised.value.code == "flashtalk.no_cuda" and "GPU" in raised.value.message and raised.value.hint
    assert choose_device("cpu", 18_882_046_784) == CPU  # who asks for it gets it


@pytest.mark.parametrize(("wanted", "there"), [("cuda", 0), ("cuda:0", 0), ("cuda:1", 1), ("cuda:7", 2)])
def test_a_gpu_that_is_not_there_is_refused(monkeypatch, wanted, there):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    with pytest.raises(GeneratorError) as raised:
        choose_device(wanted, 1)
    assert raised.value.code == "flashtalk.no_cuda" and wanted in raised.value.message and raised.value.hint


def test_a_gpu_that_is_there_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1", 1) == torch.device("cuda", 1)


@pytest.mark.parametrize("wanted", ["", "gpu", "cuda:x", "cpu core", "cuda:-1"])
def test_a_name_that_is_no_device_is_refused(wanted):
    with pytest.raises(UsageError) as raised:
        choose_device(wanted, 1)
    assert raised.value.hint


# ----------------------------------------------------------------------------------------------------------- features


def _features(report, which: str, device=CPU):
    if which == "text":
        return text_features(report, PROMPT, device, Progress())
    return image_features(report, _portrait(), "digest", device, Progress())


class _Encoders:
    """Counts the encodings, and can forbid them."""

    def __init__(self, monkeypatch) -> None:
        self.ran: list[str] = []
        self.are_forbidden = False
        for name in ("encode_text", "encode_image"):
            monkeypatch.setattr(module, name, self._counted(name, getattr(module, name)))
        monkeypatch.setattr(module, "read_pth", self._counted("read", module.read_pth))

    def _counted(self, name, real):
        def run(*arguments):
            assert not self.are_forbidden, f"{name} ran"
            self.ran.append(name)
            return real(*arguments)

        return run


@pytest.fixture
def encoders(monkeypatch) -> _Encoders:
    return _Encoders(monkeypatch)


def test_the_second_start_needs_neither_encoder(report, encoders):
    text, image = (
        text_features(report, PROMPT, CPU, Progress()),
        image_features(report, _portrait(), "digest", CPU, Progress()),
    )
    assert encoders.ran == ["read", "encode_text", "read", "encode_image"]
    assert text.dim() == 2 and text.shape[1] == 24 and image.shape == (1, 257, 32)
    encoders.are_forbidden = True
    assert torch.equal(text_features(report, PROMPT, CPU, progress := Progress()), text) and not progress.stages
    assert torch.equal(image_features(report, _portrait(), "digest", CPU, Progress()), image)


def test_another_prompt_is_encoded_and_the_same_in_other_spaces_is_not(report, encoders, cache):
    one = text_features(report, PROMPT, CPU, Progress())
    text_features(report, f"  {PROMPT}\n", CPU, Progress())
    assert encoders.ran.count("encode_text") == 1
    other = text_features(report, "The person is talking.", CPU, Progress())
    assert encoders.ran.count("encode_text") == 2 and not torch.equal(one, other)
    assert len(list(cache.iterdir())) == 2


def test_another_portrait_or_size_is_encoded(report, encoders, cache):
    for portrait, digest in (
        (_portrait(), "digest"),
        (_portrait(0.5), "other"),
        (_portrait(size=(32, 48)), "digest"),
        (_portrait(), "digest"),
    ):
        image_features(report, portrait, digest, CPU, Progress())
    assert encoders.ran.count("encode_image") == 3 and len(list(cache.iterdir())) == 3


@pytest.mark.parametrize("which", ["text", "image"])
def test_other_weights_are_other_features(own, encoders, which):
    report = inspect_checkpoint(*own)

    before = _features(report, which)
    path = report.text_encoder if which == "text" else report.image_encoder
    state = {name: value.clone() for name, value in torch.load(path, weights_only=True).items()}
    for value in state.values():
        value.mul_(0.9)
    torch.save(state, path)
    after = _features(report, which)
    assert encoders.ran.count(f"encode_{which}") == 2 and not torch.equal(before, after)


def test_a_stopped_encoding_stores_nothing(report, cache):
    with pytest.raises(Cancelled):
        text_features(report, PROMPT, CPU, Progress("text encoder"))
    with pytest.raises(Cancelled):
        image_features(report, _portrait(), "digest", CPU, Progress("image encoder"))
    assert not cache.exists()


def test_encoders_are_freed_once_they_have_spoken(report, monkeypatch):
    built = []
    for name in ("build_text_encoder", "build_image_encoder"):
        real = getattr(module, name)

        def keep(*arguments, real=real):
            model = real(*arguments)
            built.append(weakref.ref(model))
            return model

        monkeypatch.setattr(module, name, keep)
    text_features(report, PROMPT, CPU, Progress())
    image_features(report, _portrait(), "digest", CPU, Progress())
    gc.collect()
    assert [ref() for ref in built] == [None, None]


@pytest.mark.parametrize("which", ["text", "image"])
def test_an_encoder_without_room_beside_a_stream_runs_on_the_cpu(report, monkeypatch, caplog, cache, which):
    on_cpu = _features(report, which)
    shutil.rmtree(cache)
    monkeypatch.setattr(module, "free_bytes", lambda _: 1000)
    beside = _features(report, which, torch.device("meta"))  # where nothing can be computed
    assert torch.equal(beside, on_cpu) and "has no room on meta and runs on the CPU" in caplog.text


def test_room_is_asked_for_the_weights_in_use(monkeypatch):
    """The image encoder's file is four times as large: it holds a text encoder, too, in float32."""
    state, place = {"a": torch.zeros(600), "b": torch.zeros(20, 20)}, torch.device("meta")
    for free, wanted in ((2200, place), (2199, CPU), (None, place)):
        monkeypatch.setattr(module, "free_bytes", lambda _, free=free: free)
        assert module._with_room(Path("encoder"), state, torch.float16, place) == wanted


# ----------------------------------------------------------------------------------------------------- damaged weights


def _changed(path: Path, change) -> None:
    state = {name: value.clone() for name, value in torch.load(path, weights_only=True).items()}
    change(state)
    path.unlink()
    torch.save(state, path)


def _swap(state, name, value):
    assert name in state
    state[name] = value


def test_a_vae_of_other_tensors_is_refused(own):
    path = own[0] / "Wan2.1_VAE.pth"
    _changed(path, lambda state: state.pop("decoder.conv1.weight"))
    with pytest.raises(ModelFilesError, match=r"missing \(decoder.conv1.weight\)") as raised:
        load_vae(path, CPU, torch.float32)
    assert raised.value.code == "model_files.wrong_weights"


def test_a_vae_that_is_another_model_is_refused(own):
    with pytest.raises(ModelFilesError) as raised:
        load_vae(own[0] / "models_t5_umt5-xxl-enc-bf16.pth", CPU, torch.float32)
    assert raised.value.code == "model_files.wrong_weights" and "…" in raised.value.message


@pytest.mark.parametrize("which", ["text", "image"])
@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "another model"])
def test_encoders_of_other_tensors_are_refused(own, which, fault):
    report = inspect_checkpoint(*own)
    path = report.text_encoder if which == "text" else report.image_encoder
    name = "blocks.0.attn.k.weight" if which == "text" else "visual.transformer.0.attn.proj.weight"
    if fault == "another model":
        shutil.copy(report.vae, path)
    else:
        changes = {
            "missing": lambda state: state.pop(name),
            "unknown": lambda state: state.update({name.replace("0", "0.adapter"): torch.zeros(2)}),
            "shape": lambda state: _swap(state, name, torch.zeros(3, 5)),
        }
        _changed(path, changes[fault])
    with pytest.raises(ModelFilesError) as raised:
        _features(report, which)
    assert raised.value.code == "model_files.wrong_weights" and path.name in raised.value.message and raised.value.hint


@pytest.mark.parametrize("fault", ["missing", "shape", "another model"])
def test_a_speech_encoder_of_other_tensors_is_refused(own, fault):
    path, name = own[1] / "pytorch_model.bin", "wav2vec2.encoder.layers.3.attention.q_proj.weight"
    if fault == "another model":
        shutil.copy(own[0] / "Wan2.1_VAE.pth", path)
    else:
        change = (lambda s: s.pop(name)) if fault == "missing" else (lambda s: _swap(s, name, torch.zeros(3, 5)))
        _changed(path, change)
    with pytest.raises(ModelFilesError) as raised:
        load_speech_encoder(own[1], path, CPU)
    assert raised.value.code == "model_files.wrong_weights" and path.name in raised.value.message and raised.value.hint


def test_a_speech_encoder_in_safetensors_is_the_same(own):
    """A pull request of the publisher's offers that format, with the newer names of the weight norm."""
    state = torch.load(own[1] / "pytorch_model.bin", weights_only=True)
    renamed = {
        name.replace("conv.weight_g", "conv.parametrizations.weight.original0").replace(
            "conv.weight_v", "conv.parametrizations.weight.original1"
        ): value.contiguous()
        for name, value in state.items()
    }
    assert set(renamed) != set(state)
    save_file(renamed, own[1] / "model.safetensors")
    loaded = [load_speech_encoder(own[1], own[1] / name, CPU) for name in ("pytorch_model.bin", "model.safetensors")]
    one, other = (model.state_dict() for model in loaded)
    assert set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)
    assert len(load_file(own[1] / "model.safetensors")) == len(renamed)


def test_old_torch_files_will_do(own):
    """Bare pickles, from before torch wrote archives."""
    before = load_vae(own[0] / "Wan2.1_VAE.pth", CPU, torch.float32).state_dict()
    state = torch.load(own[0] / "Wan2.1_VAE.pth", weights_only=True)
    torch.save(state, own[0] / "old.pth", _use_new_zipfile_serialization=False)
    after = load_vae(own[0] / "old.pth", CPU, torch.float32).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
