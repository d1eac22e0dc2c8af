"""What the code for several ranks costs where there is one: chunks made with a process group of one rank, in which all
collectives are called, in turns with chunks made the plain way, which is what one rank does in the product.

python tests/benchmarks/one_rank.py                     CPU, a smaller model with random weights
python tests/benchmarks/one_rank.py --device cuda       the published sizes, random weights; or --checkpoint FOLDER

Both ways make the same chunks with the same models. Their ratio is taken pair by pair; the order changes from pair to
pair, because what comes second finds a warmer machine.
"""

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from engine.generators.flashtalk.config import DiTConfig
from engine.generators.flashtalk.generator import FlashTalkGenerator
from engine.generators.flashtalk.options import FlashTalkOptions
from engine.generators.flashtalk.random_models import Sizes, random_features, random_models
from engine.generators.flashtalk.vae_coders import VaeConfig
from engine.media import SAMPLE_RATE_HZ, AudioChunk
from engine.parallel.launch import RankGroup
from engine.portrait.load import load_portrait

SMALLER = DiTConfig(dim=512, ffn_dim=2048, num_heads=8, num_layers=8)
SMALLER_VAE = VaeConfig(dim=32)
SMALLER_SIZE = "128x128"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one chunk, in seconds: on the wall's clock, of the processor in all threads of this process, and each stage on
    the device's clock."""

    wall_s: float
    used_s: float
    stages_s: dict[str, float]


class OneOfMany(RankGroup):
    """One rank that takes the way of many."""

    def plan(self, **sizes):
        """See `RankGroup.plan`."""
        self.group, bands = super().plan(**sizes)
        return self.group, bands

    def pretend(self) -> None:
        """That there is another rank, or the model leaves out what one rank alone does not need."""
        self.group.size = 2


class Way:
    """A generator and the stream that it is in the middle of."""

    def __init__(self, group: OneOfMany | None, arguments: argparse.Namespace, models) -> None:
        options = _options(arguments)
        self.generator = FlashTalkGenerator(seed=1, group=group, **options.as_dict())
        if arguments.checkpoint:
            shape = options.shape
            self.generator.prepare(load_portrait("sample:"), (shape.width, shape.height), self)
        else:
            torch.manual_seed(0)
            self.generator.prepare_from(models, *random_features(models.dit.config, options.shape, models.device))
        if isinstance(group, OneOfMany):
            group.pretend()
        self._spec, self._random, self._chunks = self.generator.spec, np.random.default_rng(0), 0
        self._times = self.generator.measure()
        self._image = np.empty((self._spec.height, self._spec.width, 3), np.uint8)

    def chunk(self) -> Cost:
        """Make the next one."""
        frames = self._spec.chunk.frames
        count = frames * SAMPLE_RATE_HZ // self._spec.chunk.fps
        samples = (0.1 * self._random.standard_normal(count)).astype(np.float32)
        chunk = AudioChunk(
            first_frame=self._chunks * frames, frames=frames, first_sample=self._chunks * count, samples=samples
        )
        self._chunks += 1
        wall_s, used_s = time.perf_counter(), time.process_time()
        self.generator.generate(chunk, self)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        wall_s, used_s = time.perf_counter() - wall_s, time.process_time() - used_s
        return Cost(wall_s=wall_s, used_s=used_s, stages_s=self._times[-1].stages_s)

    def next_image(self) -> np.ndarray:
        """See `FrameWriter`."""
        return self._image

    def commit(self, frame: int) -> None:
        """See `FrameWriter`."""

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        """See `Progress`."""


def main() -> None:
    """Measure, and print a line for docs/benchmarks.md."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        is_gpu = arguments.device.startswith("cuda")
        dist.init_process_group(
            "nccl" if is_gpu else "gloo", store=dist.FileStore(str(Path(folder) / "store"), 1), rank=0, world_size=1
        )
        models = None if arguments.checkpoint else _models(arguments, is_gpu)
        ways = {"plain": Way(None, arguments, models), "ranks": Way(OneOfMany(dist.group.WORLD), arguments, models)}
        costs = _measured(ways, arguments)
        dist.destroy_process_group()
    print(f"{len(costs)} pairs of {arguments.size}, {arguments.steps} steps, on {arguments.device}; medians")
    print("| | plain, s | one rank, s | ratio | middle half of the ratios |")
    print("|---|---:|---:|---:|---|")
    _say("wall", [(plain.wall_s, rank.wall_s) for plain, rank in costs])
    _say("processor", [(plain.used_s, rank.used_s) for plain, rank in costs])
    for stage in costs[0][0].stages_s:
        _say(stage, [(plain.stages_s[stage], rank.stages_s[stage]) for plain, rank in costs])


def _say(what: str, pairs: list[tuple[float, float]]) -> None:
    ratios = sorted(rank / plain for plain, rank in pairs if plain)
    if not ratios:
        return
    plain_s, rank_s = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    quarter = len(ratios) // 4
    middle = f"{ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f}"
    print(f"| {what} | {plain_s:.3f} | {rank_s:.3f} | {statistics.median(ratios):.3f} | {middle} |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--checkpoint", default="", help="random weights without one")
    parser.add_argument("--size", default="", help="HEIGHTxWIDTH (default: 128x128 on the CPU, else 768x448)")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=8)
    arguments = parser.parse_args()
    is_small = arguments.device == "cpu" and not arguments.checkpoint
    arguments.size = arguments.size or (SMALLER_SIZE if is_small else "768x448")
    return arguments


@torch.no_grad()
def _models(arguments: argparse.Namespace, is_gpu: bool):
    torch.manual_seed(0)
    sizes = None if is_gpu else Sizes(config=SMALLER, vae=SMALLER_VAE)
    return random_models(_options(arguments), torch.device(arguments.device), sizes)


def _options(arguments: argparse.Namespace) -> FlashTalkOptions:
    names = ("checkpoint", "device", "size", "steps")
    return FlashTalkOptions.of({name: getattr(arguments, name) for name in names})


def _measured(ways: dict[str, Way], arguments: argparse.Namespace) -> list[tuple[Cost, Cost]]:
    """(plain, one rank) for each pair, after two chunks of each that may compile."""
    for _ in range(2):
        for way in ways.values():
            way.chunk()
    pairs = []
    for pair in range(arguments.pairs):
        names = ["plain", "ranks"] if pair % 2 else ["ranks", "plain"]
        found = {name: ways[name].chunk() for name in names}
        pairs.append((found["plain"], found["ranks"]))
    return pairs


if __name__ == "__main__":
    main()
