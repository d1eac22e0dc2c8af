"""What 8-bit weights and tokens cost in exactness, against float32, with random weights that have outliers.

    python tests/benchmarks/flashtalk_precision.py [tiny|middle]

Prints tables in Markdown: relative root mean square errors of every kind of quantised layer, of a block and of the
latents of a chunk, and the peak signal-to-noise ratio of frames, chunk after chunk. The model is a small one on a CPU;
layers are given the inputs that they have in it. No time is measured.
"""

from __future__ import annotations

import importlib.util
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from engine.generators.flashtalk.generator import FlashTalkGenerator
from engine.generators.flashtalk.layers import KeyValue
from engine.generators.flashtalk.quantization.linear import QuantizedLinear, is_quantized, quantize_module
from engine.generators.flashtalk.quantization.products import choose_product
from engine.generators.flashtalk.quantization.scheme import FP8, INT8, SCHEMES, Scheme
from engine.media import AudioChunk
from engine.portrait.load import load_portrait

CPU = torch.device("cpu")
MODELS = {
    "tiny": ({"dim": 96, "ffn_dim": 128, "num_heads": 4, "num_layers": 2}, "64x48"),
    "middle": ({"dim": 512, "ffn_dim": 1408, "num_heads": 4, "num_layers": 8, "intermediate_dim": 64}, "96x64"),
}
CHUNKS, STEPS = 2, 4
OUTLIERS, OUTLIER_GAIN = 4, 20.0
"""Channels of every norm's gain and modulation that are so much larger than the others, as in trained transformers."""
PLAIN_INT8 = Scheme(name="int8 not rotated", dtype=torch.int8, largest=127.0, is_rotated=False)


class _Quiet:
    def update(self, *_arguments) -> None:
        """Nothing is told."""


class _Writer:
    def __init__(self, height: int, width: int) -> None:
        self._shape, self.images = (height, width, 3), []

    def next_image(self) -> np.ndarray:
        self.images.append(np.zeros(self._shape, np.uint8))
        return self.images[-1]

    def commit(self, _number: int) -> None:
        """The frame is complete."""


def main(which: str) -> None:
    """Everything about one of `MODELS`."""
    sizes, size = MODELS[which]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        checkpoint = _write(Path(folder), sizes)
        exact, inputs = _run(checkpoint, size, "fp32", None)
        print(f"\n{which}: {sizes}, {size}, {STEPS} steps, outliers {OUTLIERS} x {OUTLIER_GAIN:g}\n")
        _print_layers(inputs)
        print("\n| tokens, weights | block | latents of a chunk | PSNR of frames, dB: " + ", ".join(
            f"chunk {n + 1}" for n in range(CHUNKS)) + " |\n|---|---:|---:|---|")  # fmt: skip
        for precision, scheme in (("bf16", None), ("bf16", FP8), ("bf16", INT8), ("bf16", PLAIN_INT8)):
            found, _ = _run(checkpoint, size, precision, scheme, inputs)
            _print_run(precision, scheme, found, exact)


def _write(folder: Path, sizes: dict) -> str:
    spec = importlib.util.spec_from_file_location(
        "tiny_checkpoint", Path(__file__).parents[1] / "fixtures" / "tiny_checkpoint.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.DIT.update(sizes)
    plain = module._dit_weights

    def with_outliers() -> dict:
        weights = plain()
        random = torch.Generator().manual_seed(1)
        for name, tensor in weights.items():
            if name.endswith(("norm3.weight", "norm_x.weight", "blocks.0.modulation")) or "modulation" in name:
                tensor[..., torch.randperm(tensor.shape[-1], generator=random)[:OUTLIERS]] *= OUTLIER_GAIN
        return weights

    module._dit_weights = with_outliers
    return str(module.write_checkpoint(folder)[0])


class _Run:
    """`layers`: name -> (layer, input); `blocks`: (input arguments, output) of the first step; `latents`, `frames`."""

    def __init__(self) -> None:
        self.layers: dict[str, tuple[nn.Linear, Tensor]] = {}
        self.blocks: list[tuple[tuple, Tensor]] = []
        self.latents: list[Tensor] = []
        self.frames: list[np.ndarray] = []
        self.block_errors: list[float] = []


@torch.no_grad()
def _run(checkpoint: str, size: str, precision: str, scheme: Scheme | None, given: _Run | None = None):
    height, width = map(int, size.split("x"))
    options = {"checkpoint": checkpoint, "size": size, "steps": STEPS, "device": "cpu", "precision": precision}
    generator = FlashTalkGenerator(**options)
    generator.prepare(load_portrait("sample:maya"), (1, 1), _Quiet())
    dit = generator.models.dit
    if scheme is not None:
        for block in dit.blocks:
            block.self_attn._packed = None
        product = (
            choose_product(scheme, CPU, dit.dtype) if scheme.name in SCHEMES else choose_product(INT8, CPU, dit.dtype)
        )
        quantize_module(dit, scheme, product)
    run = _Run()
    if given is not None:
        for block, (arguments, out) in zip(dit.blocks, given.blocks, strict=True):
            run.block_errors.append(_error(block(*(_cast(value, dit.dtype) for value in arguments)), out))
    with _watched(dit, run) if given is None else _nothing():
        chunks(generator, run, height, width)
    generator.close()
    return run, run


def _cast(value, dtype: torch.dtype):
    """A block's tokens, keys and values in that precision; gates, positions and all else as they are."""
    if isinstance(value, KeyValue):
        return replace(value, k=value.k.to(dtype), v=value.v.to(dtype))
    return value.to(dtype) if isinstance(value, Tensor) and value.dim() == 2 and value.shape[0] != 6 else value


def chunks(generator: FlashTalkGenerator, run: _Run, height: int, width: int) -> None:
    """Make the chunks; every precision hears the same sound and has the same noise."""
    count = generator.spec.chunk.frames
    samples = count * 16000 // 25
    for number in range(CHUNKS):
        sound = (np.random.default_rng(number).standard_normal(samples) * 0.05).astype(np.float32)
        writer = _Writer(height, width)
        stream = generator._stream
        assert stream is not None
        real = stream.frames
        stream.frames = lambda latents, real=real: (run.latents.append(latents.float().clone()), real(latents))[1]
        generator.generate(
            AudioChunk(first_frame=count * number, frames=count, first_sample=samples * number, samples=sound), writer
        )
        stream.frames = real
        run.frames.append(np.stack(writer.images))


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _watched(dit: nn.Module, run: _Run) -> Iterator[None]:
    """Keeps what goes into each layer and block the first time."""
    handles = []
    for block in dit.blocks:
        block.self_attn._packed = None
        handles.append(block.register_forward_hook(_keep_block(run, len(handles))))
    for name, layer in dit.named_modules():
        if isinstance(layer, nn.Linear) and is_quantized(f"{name}.weight", layer.weight.shape):
            handles.append(layer.register_forward_hook(_keep_layer(run, name)))
    yield
    for handle in handles:
        handle.remove()


def _keep_block(run: _Run, index: int):
    def keep(_block, inputs, output) -> None:
        if len(run.blocks) == index:
            run.blocks.append((tuple(inputs), output.clone()))

    return keep


def _keep_layer(run: _Run, name: str):
    def keep(layer, inputs, _output) -> None:
        run.layers.setdefault(name, (layer, inputs[0].clone()))

    return keep


def _error(found: Tensor, exact: Tensor) -> float:
    return ((found.double() - exact.double()).norm() / exact.double().norm()).item()


def _print_layers(run: _Run) -> None:
    columns = ("bf16", "fp8", "int8", "int8 not rotated")
    print("| layer | largest input / its RMS | " + " | ".join(columns) + " |\n|---|---:|" + "---:|" * len(columns))
    kinds = dict.fromkeys(name.split(".", 2)[2] for name in run.layers)
    for kind in kinds:
        of_kind = [pair for name, pair in run.layers.items() if name.split(".", 2)[2] == kind]
        errors = [[_layer_error(layer, x, column) for column in columns] for layer, x in of_kind]
        crest = np.mean([(x.abs().max() / x.square().mean().sqrt()).item() for _, x in of_kind])
        mean = " | ".join(f"{value:.4f}" for value in np.mean(errors, axis=0))
        print(f"| {kind} | {crest:.0f} | {mean} |")


@torch.no_grad()
def _layer_error(layer: nn.Linear, x: Tensor, how: str) -> float:
    exact = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    if how == "bf16":
        parts = (x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16())
        return _error(nn.functional.linear(*parts), exact)
    scheme = PLAIN_INT8 if how == PLAIN_INT8.name else SCHEMES[how]
    return _error(QuantizedLinear.of(layer, scheme)(x), exact)


def _print_run(precision: str, scheme: Scheme | None, found: _Run, exact: _Run) -> None:
    blocks = np.sqrt(np.mean(np.square(found.block_errors)))
    latents = _error(found.latents[0], exact.latents[0])
    ratios = [_psnr_db(*pair) for pair in zip(found.frames, exact.frames, strict=True)]
    name = f"{precision}, {scheme.name if scheme else precision}"
    print(f"| {name} | {blocks:.4f} | {latents:.4f} | {', '.join(f'{ratio:.1f}' for ratio in ratios)} |")


def _psnr_db(found: np.ndarray, exact: np.ndarray) -> float:
    error = np.mean((found.astype(float) - exact.astype(float)) ** 2)
    return 10 * math.log10(255**2 / error) if error else math.inf


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or MODELS:
        main(chosen)
