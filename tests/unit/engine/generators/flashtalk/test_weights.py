"""Published files to modules: strict, mapped, never run as code, and every damage one sentence."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from pathlib import Path
from random import Random

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from engine.errors import Cancelled, ModelFilesError  # noqa: E402
from engine.generators.flashtalk.config import DiTConfig  # noqa: E402
from engine.generators.flashtalk.transformer import DiT, is_set_up_only  # noqa: E402
from engine.generators.flashtalk.weights import (  # noqa: E402
    assign,
    cast,
    check_names,
    load_dit,
    precision_for,
    read_pth,
    read_safetensors,
)
from engine.parallel.group import LocalGroup  # noqa: E402

CPU = torch.device("cpu")


class Progress:
    """Remembers what was said; raises after `limit` updates."""

    def __init__(self, limit: int | None = None) -> None:
        self.said: list[tuple] = []
        self.limit = limit

    def update(self, stage, done, total, unit=""):
        self.said.append((stage, done, total, unit))
        if self.limit is not None and len(self.said) >= self.limit:
            raise Cancelled("It was stopped.")


@pytest.fixture
def checkpoint(tiny_checkpoint: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    for path in tiny_checkpoint[0].glob("*.*"):
        if path.suffix in (".json", ".safetensors"):
            shutil.copy(path, tmp_path)
    return tmp_path


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _load(folder: Path, dtype=torch.float32, progress=None) -> DiT:
    config = DiTConfig.from_file(folder / "config.json")
    dit = load_dit(config, _shards(folder), CPU, dtype, progress or Progress())
    assert {name for name, value in dit.named_parameters() if value.is_meta} == set(filter(is_set_up_only, _names(dit)))
    dit.bring()
    assert not any(value.is_meta for value in dit.parameters())
    return dit


def _names(dit: DiT) -> list[str]:
    return [name for name, _ in dit.named_parameters()]


def _rewrite(path: Path, change) -> None:
    """Through memory: the old file may still be mapped."""
    tensors = {name: value.clone() for name, value in load_file(path).items()}
    change(tensors)
    path.unlink()
    save_file(tensors, path)


# --------------------------------------------------------------------------------------------- the transformer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_tensor_is_the_files_in_the_wanted_precision(tiny_checkpoint, dtype):
    dit = _load(tiny_checkpoint[0], dtype)
    stored = {name: value for path in _shards(tiny_checkpoint[0]) for name, value in load_file(path).items()}
    state = dit.state_dict()
    assert set(state) == set(stored)
    for name, value in state.items():
        wanted = torch.float32 if name.startswith("head.head") else dtype
        wanted = stored[name].dtype if is_set_up_only(name) else wanted
        assert value.dtype == wanted and value.device == CPU, name
        assert torch.equal(value, stored[name].to(dtype).to(wanted)), name
    assert not any(parameter.requires_grad for parameter in dit.parameters()) and not dit.training


def test_a_file_in_another_precision_is_rounded_as_the_reference_does(checkpoint):
    """fp32 files: weights are rounded to bf16, the head too, before it is kept wide."""
    for path in _shards(checkpoint):
        _rewrite(path, lambda tensors: tensors.update({n: v.float() * 1.001 for n, v in tensors.items()}))
    dit = _load(checkpoint, torch.bfloat16)
    stored = {name: value for path in _shards(checkpoint) for name, value in load_file(path).items()}
    assert dit.blocks[0].ffn[0].weight.dtype == torch.bfloat16 and dit.head.head.weight.dtype == torch.float32
    assert torch.equal(dit.head.head.weight, stored["head.head.weight"].bfloat16().float())
    assert torch.equal(dit.blocks[0].ffn[0].weight, stored["blocks.0.ffn.0.weight"].bfloat16())
    assert {value.dtype for value in _load(checkpoint).state_dict().values()} == {torch.float32}
    assert {v.dtype for n, v in dit.state_dict().items() if is_set_up_only(n)} == {torch.float32}, "as in the file"


def test_set_up_weights_are_rounded_when_they_are_used(checkpoint):
    """They rest in the file's precision, and make what they would make had they been rounded while loading."""
    for path in _shards(checkpoint):
        _rewrite(path, lambda tensors: tensors.update({n: v.float() * 1.001 for n, v in tensors.items()}))
    lazy, eager = _load(checkpoint, torch.bfloat16), _load(checkpoint, torch.bfloat16)
    with torch.no_grad():
        for name, value in eager.named_parameters():
            if is_set_up_only(name):
                assert dict(lazy.named_parameters())[name].dtype == torch.float32
                value.data = value.data.bfloat16()
        source = torch.Generator().manual_seed(1)
        text, image = torch.randn(5, 24, generator=source), torch.randn(7, 32, generator=source)
        steps = torch.tensor([1000.0, 300.0])
        for one, other in zip(lazy.time_vectors(steps), eager.time_vectors(steps), strict=True):
            assert one.dtype == torch.float32 and torch.equal(one, other)
        for make, features in (("text_keys", text), ("image_keys", image)):
            pairs = zip(*(getattr(dit, make)(features, LocalGroup()) for dit in (lazy, eager)), strict=True)
            assert all(torch.equal(a.k, b.k) and torch.equal(a.v, b.v) for a, b in pairs)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_stays_on_the_host_is_the_mapped_file(tiny_checkpoint, dtype):
    """No byte of it is copied whatever the precision, so that 8 GB cost no memory of their own."""
    dit = _load(tiny_checkpoint[0], dtype)
    maps = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(".safetensors") and str(tiny_checkpoint[0]) in line:
            maps.append(tuple(int(part, 16) for part in line.split()[0].split("-")))
    stay = {name: value for name, value in dit.named_parameters() if is_set_up_only(name)}
    assert len(stay) > 20 and maps
    for name, value in stay.items():
        assert any(start <= value.data_ptr() < end for start, end in maps), name


def test_progress_goes_from_nothing_to_all_bytes(tiny_checkpoint):
    progress = Progress()
    dit = _load(tiny_checkpoint[0], torch.bfloat16, progress)
    total = 2 * sum(value.numel() for name, value in dit.named_parameters() if not is_set_up_only(name))
    done = [said[1] for said in progress.said]
    assert {(stage, of, unit) for stage, _, of, unit in progress.said} == {("transformer", total, "bytes")}
    assert done == sorted(done) and done[-1] == total


@pytest.mark.parametrize("limit", [1, 20])
def test_progress_can_stop_it(tiny_checkpoint, limit):
    with pytest.raises(Cancelled):
        _load(tiny_checkpoint[0], progress=Progress(limit))


def test_a_missing_tensor_is_named(checkpoint):
    _rewrite(_shards(checkpoint)[0], lambda tensors: tensors.pop("blocks.0.ffn.0.weight"))
    with pytest.raises(ModelFilesError) as raised:
        _load(checkpoint)
    assert raised.value.code == "model_files.wrong_weights"
    assert "1 missing (blocks.0.ffn.0.weight)" in raised.value.message and str(checkpoint) in raised.value.message


def test_an_extra_tensor_is_named(checkpoint):
    _rewrite(_shards(checkpoint)[1], lambda tensors: tensors.update({"lora.up": torch.zeros(2)}))
    with pytest.raises(ModelFilesError, match=r"1 unknown \(lora.up\)"):
        _load(checkpoint)


def test_wrong_shapes_name_the_first_few(checkpoint):
    def widen(tensors):
        for name in list(tensors):
            if name.endswith(("ffn.0.weight", "ffn.0.bias")):
                tensors[name] = torch.zeros(4, *tensors[name].shape[1:])

    for path in _shards(checkpoint):
        _rewrite(path, widen)
    with pytest.raises(ModelFilesError) as raised:
        _load(checkpoint)
    message = raised.value.message
    assert "4 of another shape (" in message and "…" in message and message.count("instead of") == 3
    assert "blocks.0.ffn.0.weight [4, 96] instead of [128, 96]" in message


def test_a_missing_shard_is_said_to_be_missing(checkpoint):
    shards = _shards(checkpoint)
    config = DiTConfig.from_file(checkpoint / "config.json")
    shards[1].unlink()
    with pytest.raises(ModelFilesError) as raised:
        load_dit(config, shards, CPU, torch.float32, Progress())
    assert raised.value.code == "model_files.missing" and shards[1].name in raised.value.message


@pytest.mark.parametrize("kept", [0, 4, 100, -1, -5000])
def test_a_truncated_shard_is_said_to_be_damaged(checkpoint, kept):
    path = _shards(checkpoint)[1]
    data = path.read_bytes()
    path.write_bytes(data[: kept if kept >= 0 else len(data) + kept])
    with pytest.raises(ModelFilesError) as raised:
        _load(checkpoint)
    assert raised.value.code == "model_files.damaged" and path.name in raised.value.message
    assert raised.value.hint and "\n" not in str(raised.value)


# -------------------------------------------------------------------------------------------------- torch files


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "old pickle"])
def test_both_of_torchs_formats_are_read(tmp_path, is_zip):
    state = {"a": torch.randn(3, 4), "b": torch.randn(5).half(), "c": torch.arange(3)}
    torch.save(state, tmp_path / "state.pth", _use_new_zipfile_serialization=is_zip)
    read = read_pth(tmp_path / "state.pth")
    assert list(read) == list(state)
    for name, value in state.items():
        assert read[name].dtype == value.dtype and torch.equal(read[name], value)


class _Malicious:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self):
        return (os.mkdir, (str(self._path),))


@pytest.mark.parametrize("kind", ["zip", "old pickle", "bare pickle"])
def test_a_file_that_would_run_code_is_refused_unrun(tmp_path, kind):
    path, trace = tmp_path / "state.pth", tmp_path / "trace"
    state = {"a": torch.zeros(2), "b": _Malicious(trace)}
    if kind == "bare pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ModelFilesError) as raised:
        read_pth(path)
    assert raised.value.code == "model_files.damaged" and not trace.exists()
    pickle.loads(pickle.dumps(_Malicious(trace)))  # it would have worked
    assert trace.exists()


def _zip(path: Path) -> bytes:
    torch.save({"a": torch.randn(500)}, path)
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["empty", "cut off", "text", "zeros", "html", "other zip", "list", "numbers"])
def test_a_file_that_is_no_table_of_tensors_is_refused(tmp_path, damage):
    path = tmp_path / "state.pth"
    whole = _zip(path)
    contents = {
        "empty": b"", "cut off": whole[:1000], "text": b"hello world\n" * 9, "zeros": bytes(4096),
        "html": b"<!doctype html><html><body>404</body></html>",
    }  # fmt: skip
    if damage in contents:
        path.write_bytes(contents[damage])
    elif damage == "other zip":
        path.unlink()
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "a.txt").write_text("a")
        shutil.move(shutil.make_archive(str(tmp_path / "archive"), "zip", tmp_path / "folder"), path)
    else:
        torch.save([torch.zeros(2)] if damage == "list" else {"a": torch.zeros(2), "epoch": 7}, path)
    with pytest.raises(ModelFilesError) as raised:
        read_pth(path)
    assert raised.value.code == "model_files.damaged" and str(path) in raised.value.message
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "old pickle"])
def test_changed_bytes_are_read_or_refused_in_words(tmp_path, is_zip):
    """Nothing else, whatever torch's reader makes of them; no warning either."""
    path, random = tmp_path / "state.pth", Random(0)
    torch.save({f"a{n}": torch.randn(5) for n in range(5)}, path, _use_new_zipfile_serialization=is_zip)
    whole, refused = path.read_bytes(), 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(random.randint(1, 6)):
            data[random.randrange(min(len(data), 2500))] = random.randrange(256)
        path.unlink()  # the one before may still be mapped
        path.write_bytes(data)
        try:
            read_pth(path)
        except ModelFilesError:
            refused += 1
    assert refused > 75


def test_a_torch_file_that_is_not_there(tmp_path):
    with pytest.raises(ModelFilesError) as raised:
        read_pth(tmp_path / "state.pth")
    assert raised.value.code == "model_files.missing" and raised.value.hint
    with pytest.raises(ModelFilesError) as raised:
        read_safetensors(tmp_path / "model.safetensors")
    assert raised.value.code == "model_files.missing"


def test_safetensors_are_read_whole(tmp_path):
    save_file({"a": torch.ones(2, 3), "b": torch.zeros(4).half()}, tmp_path / "model.safetensors")
    read = read_safetensors(tmp_path / "model.safetensors")
    assert torch.equal(read["a"], torch.ones(2, 3)) and read["b"].dtype == torch.float16


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/maps")
def test_a_torch_file_is_mapped(tmp_path):
    torch.save({"a": torch.randn(1 << 16)}, tmp_path / "state.pth")
    tensor = read_pth(tmp_path / "state.pth")["a"]
    lines = [line for line in Path("/proc/self/maps").read_text().splitlines() if str(tmp_path) in line]
    ranges = [tuple(int(part, 16) for part in line.split()[0].split("-")) for line in lines]
    assert any(start <= tensor.data_ptr() < end for start, end in ranges)


# ---------------------------------------------------------------------------------------------------- small parts


def test_whole_numbers_are_not_cast():
    state = cast({"a": torch.ones(2), "ids": torch.arange(3)}, CPU, torch.bfloat16)
    assert state["a"].dtype == torch.bfloat16 and state["ids"].dtype == torch.int64


def test_agreeing_names_are_no_error():
    module = torch.nn.Linear(2, 3)
    check_names(module.state_dict(), module.state_dict(), Path("x"))


def test_assigned_modules_hold_the_tensors_themselves():
    with torch.device("meta"):
        module = torch.nn.Linear(2, 3)
    state = {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}
    assign(module, state)
    assert module.weight.data_ptr() == state["weight"].data_ptr() and not module.weight.requires_grad


def test_precision_is_the_references_on_a_gpu_and_full_elsewhere():
    cpu, gpu = precision_for(CPU), precision_for(torch.device("cuda"))
    assert {cpu.dit, cpu.vae, cpu.text, cpu.image, cpu.speech} == {torch.float32}
    assert (gpu.dit, gpu.vae, gpu.text, gpu.image) == (torch.bfloat16,) * 3 + (torch.float16,)
    assert gpu.speech == torch.float32
