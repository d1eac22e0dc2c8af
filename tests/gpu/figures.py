"""Every figure of FlashTalk that needs a GPU, one part after the other, into one JSON that is written after each.

    python tests/gpu/figures.py [--out FILE] [--seconds 450] [--reference DIR] [--small]

A part that fails says why in the file and costs the others nothing; parts for which no time is left are named. Random
weights of the published size: that is all that speed and memory depend on. --small tries all of it with small models on
a CPU, where its figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import torch

from engine.generators.flashtalk.bench import BenchSettings, bench
from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.kernels.catalog import DIT_KERNELS, VAE_KERNELS
from engine.generators.flashtalk.kernels.quantize import QUANTIZING
from engine.generators.flashtalk.kernels.registry import choose_kernels
from engine.generators.flashtalk.random_models import Sizes
from engine.generators.flashtalk.speech_encoder import SpeechEncoderConfig
from engine.generators.flashtalk.vae_coders import VaeConfig

LEAST_S = 20.0
"""A part is not begun with less time left."""

PLAIN = {"kernels": "none", "graphs": "off"}
FAST = {"kernels": "all", "graphs": "on"}
SMALL_PICTURE = {"size": "512x320"}
RUNS: dict[str, tuple[dict[str, Any], int]] = {
    "plain": (PLAIN, 4),
    "kernels": ({"kernels": "all", "graphs": "off"}, 4),
    "kernels and graphs": (FAST, 6),
    "compiled pointwise": ({"kernels": "compile", "graphs": "off"}, 3),
    "fp8": (FAST | {"precision": "fp8"}, 4),
    "int8": (FAST | {"precision": "int8"}, 3),
    "fp8, 8-bit attention": (FAST | {"precision": "fp8", "attention": "sage"}, 4),
    "512x320": (FAST | SMALL_PICTURE, 6),
    "512x320 fp8": (FAST | SMALL_PICTURE | {"precision": "fp8"}, 4),
    "fp8, 3 steps": (FAST | {"precision": "fp8", "steps": 3}, 3),
    "fp8, 2 steps": (FAST | {"precision": "fp8", "steps": 2}, 3),
    "chunks of 17": (FAST | {"chunk": 17}, 4),
    "all blocks streamed": (PLAIN | {"offload": 0}, 2),
    "fp8, all blocks streamed": (PLAIN | {"precision": "fp8", "offload": 0}, 2),
}
"""Options and chunks. The first is what all others are compared with."""


class Quiet:
    """A `Progress` that says nothing."""

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        """Nothing."""


def parts(arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[float], Any]]]:
    """Name and work of each part; the work is given the seconds that are left."""
    python = sys.executable
    yield "machine", lambda _: machine()
    yield "kernel checks", lambda _: kernel_checks(arguments.small)
    for name, (options, chunks) in RUNS.items():
        yield f"bench: {name}", lambda _, options=options, chunks=chunks: measured(options, chunks, arguments.small)
    yield (
        "kernel errors", lambda left_s: printed([python, "tests/benchmarks/kernels.py", "errors", "--json"], left_s)
    )  # fmt: skip
    yield "kernel times", lambda left_s: printed([python, "tests/benchmarks/kernels.py", "speed", "--json"], left_s)
    pictures = [python, "tests/benchmarks/vae_speed.py", *(["--small"] if arguments.small else [])]
    yield "video autoencoder", lambda left_s: printed(pictures, left_s)
    one_rank = [
        python,
        "tests/benchmarks/one_rank.py",
        "--pairs",
        "6",
        "--device",
        "cpu" if arguments.small else "cuda",
    ]
    yield "one rank", lambda left_s: last_words(one_rank, left_s)
    tests = [python, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    yield "tests", lambda left_s: last_words(tests, left_s)
    if arguments.reference:
        command = [python, "tests/gpu/compare_reference.py", "--reference", str(arguments.reference), "--json"]
        yield "reference", lambda left_s: printed([*command, "kernels=all", "graphs=on"], left_s)


def machine() -> dict[str, Any]:
    """What it was measured on."""
    found: dict[str, Any] = {"torch": torch.__version__, "python": sys.version.split()[0]}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {"gpu": properties.name, "memory_gb": round(properties.total_memory / 1e9, 1)}
        found |= {"capability": f"{properties.major}.{properties.minor}", "cuda": torch.version.cuda}
    return found


def kernel_checks(is_small: bool) -> dict[str, Any]:
    """Which fused kernels agree with their eager twins here; what `kernels=all` switches off."""
    device = torch.device("cpu" if is_small else "cuda")
    dtype = torch.float32 if is_small else torch.bfloat16
    eight_bits = (kernel for kernels in QUANTIZING.values() for kernel in kernels.values())
    every = (*DIT_KERNELS, *eight_bits, *VAE_KERNELS)
    chosen = choose_kernels(every, "all", device, dtype)
    return {"on": [kernel.name for kernel in every if kernel in chosen], "all": [kernel.name for kernel in every]}


def measured(options: dict[str, Any], chunks: int, is_small: bool) -> dict[str, Any]:
    """The bench's own report."""
    if not is_small:
        return bench(BenchSettings(options=options, chunks=chunks), Quiet())
    config = DiTConfig(
        dim=96, ffn_dim=128, num_heads=4, num_layers=3, freq_dim=32, text_dim=24, output_dim=48, audio_channels=32
    )
    speech = SpeechEncoderConfig(hidden_size=32, num_attention_heads=4, intermediate_size=48, conv_dim=(16,) * 7)
    settings = BenchSettings(options=options | {"device": "cpu", "size": "64x64"}, chunks=1)
    return bench(settings, Quiet(), Sizes(config=config, vae=VaeConfig(dim=8), speech=speech))


def printed(command: list[str], left_s: float) -> Any:
    """The JSON, or JSON lines, that a program of its own prints."""
    done = _run(command, left_s)
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    try:
        return json.loads(done.stdout)
    except ValueError:
        return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def last_words(command: list[str], left_s: float) -> dict[str, Any]:
    """The last lines of a program that writes for people."""
    done = _run(command, left_s)
    if done.returncode:
        raise RuntimeError(" ".join((done.stderr + done.stdout).strip().splitlines()[-3:]))
    return {"said": done.stdout.strip().splitlines()[-15:]}


def _run(command: list[str], left_s: float) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=left_s, check=False
    )  # fmt: skip


def summary(found: dict[str, Any]) -> list[str]:
    """The runs of the bench in a table, compared with the first."""
    lines = [f"{'':28s}{'chunk s':>9s}{'frames/s':>10s}{'delay s':>9s}{'memory':>10s}{'of roof':>9s}{'times':>8s}"]
    first: float | None = None
    for name in RUNS:
        report = found.get(f"bench: {name}", {})
        if "chunk_s" not in report:
            lines.append(f"{name:28s}{report.get('failed', 'not measured')}")
            continue
        seconds, peak = report["chunk_s"]["median"], report["peak_memory_bytes"] or 0
        first = first or seconds
        lines.append(
            f"{name:28s}{seconds:9.3f}{report['frames_per_s']:10.1f}{report['delay_s']:9.2f}{peak / 1e9:7.1f} GB"
            f"{100 * report['step_share_of_matrix_rate']:7.0f} %{first / seconds:8.2f}"
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-figures.json"), metavar="FILE")
    parser.add_argument("--seconds", type=float, default=450.0, metavar="N", help="in all (default 450)")
    parser.add_argument("--reference", type=Path, metavar="DIR", help="see compare_reference.py")
    parser.add_argument("--small", action="store_true", help="small models on the CPU, to try this program")
    arguments = parser.parse_args()
    if not arguments.small and not torch.cuda.is_available():
        print("There is no GPU that PyTorch can use here.", file=sys.stderr)
        return 1
    started_s, found, failed = time.monotonic(), {}, []
    for name, work in parts(arguments):
        left_s = arguments.seconds - (time.monotonic() - started_s)
        part_s = time.monotonic()
        try:
            found[name] = work(left_s) if left_s > LEAST_S else {"failed": "no time was left"}
        except Exception as error:  # noqa: BLE001 - every other part must still be measured
            found[name] = {"failed": f"{type(error).__name__}: {error}", "where": traceback.format_exc()[-1500:]}
        if isinstance(found[name], dict) and "failed" in found[name]:
            failed.append(name)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        arguments.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
        print(f"{time.monotonic() - part_s:7.1f} s  {name}{'  FAILED' if name in failed else ''}", flush=True)
    print("\n".join(summary(found)))
    print(f"\nall figures: {arguments.out}; {len(failed)} parts failed or had no time: {', '.join(failed) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
