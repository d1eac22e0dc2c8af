"""`standin bench`: what this computer needs per frame, stage by stage, on one core."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import soxr

from engine.assets import asset_path
from engine.audio.audio_file import AudioFile, to_mono
from engine.canvas import CanvasComposer
from engine.commands.console import ProgressLine
from engine.errors import UsageError
from engine.generators.base import Progress
from engine.generators.factory import create_generator, generator_names, stage_bench_of
from engine.media import SAMPLE_RATE_HZ, AudioChunk, CanvasFormat, Portrait, first_sample_of
from engine.portrait.load import load_portrait
from engine.settings import CanvasSettings
from engine.sinks.base import PresentedFrame
from engine.sinks.mailbox import Mailbox
from engine.stream.offline import ProgressFunction

_FPS = 25
_WARM_UP = 25


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "bench",
        help="measure this computer, stage by stage",
        description="Time per frame of every stage, as the median over many frames on one core.",
    )
    parser.add_argument("--generator", choices=generator_names(), default="puppet", help="what to measure")
    parser.add_argument("--frames", type=int, default=250, help="frames per figure (default 250)")
    parser.add_argument("--portrait", default="sample:", metavar="P", help="a picture, or sample:ID")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    group = parser.add_argument_group("flashtalk (random weights at the published size unless --checkpoint is given)")
    group.add_argument("--checkpoint", default="", metavar="DIR", help="folder of a checkpoint")
    group.add_argument("--speech-encoder", default="", metavar="DIR", help="folder of chinese-wav2vec2-base")
    group.add_argument("--size", default="768x448", metavar="HxW", help="picture size in px, height x width")
    group.add_argument("--steps", type=int, default=4, metavar="N", help="denoising steps")
    group.add_argument("--chunks", type=int, default=20, metavar="N", help="chunks of 28 frames (default 20)")
    group.add_argument("--device", default="auto", metavar="D", help="cuda, cuda:1, cpu")
    group.add_argument("--attention", default="auto", metavar="NAME", help="attention kernel")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if arguments.frames < 1:
        raise UsageError(f"{arguments.frames} frames are nothing to measure.", hint="Give a number above 0.")
    line = ProgressLine(is_quiet=arguments.json)
    measure = stage_bench_of(arguments.generator)
    if measure is not None:
        return _run_stages(measure, arguments, line)
    cv2.setNumThreads(1)
    portrait = load_portrait(arguments.portrait)
    speech = _speech()
    figures = {}
    for name, picture, room in _cases(portrait):
        figures |= _generator_figures(arguments, name, picture, room, speech, line)
    figures |= _canvas_figures(portrait, arguments.frames, line)
    line.end()
    report = {"machine": _machine(), "frames": arguments.frames, "figures_ms": figures}
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0


def _run_stages(measure: Callable[[dict, Progress], dict], arguments: argparse.Namespace, line: ProgressLine) -> int:
    """A generator that measures its own stages, because they run on another device."""
    names = ("checkpoint", "speech_encoder", "size", "steps", "chunks", "device", "attention")
    try:
        report = measure({name: getattr(arguments, name) for name in names}, line)
    finally:
        line.end()
    if arguments.json:
        print(json.dumps(report, indent=2))
        return 0
    print(f"{report['device']}, torch {report['torch']}, {report['dtype']}, {report['attention']} attention")
    print(f"{report['size']}, {report['steps']} steps, {report['weights']} weights, {report['chunks']} chunks\n")
    rows = {"chunk": report["chunk_s"], "first frame": report["first_frame_s"], **report["stages_s"]}
    print(f"{'':14s}{'median s':>10s}{'p95 s':>10s}")
    for name, figure in rows.items():
        print(f"{name:14s}{figure['median']:10.4f}{figure['p95']:10.4f}")
    roof, peak = report["roofline"], report["peak_memory_bytes"]
    print(
        f"\n{report['frames_per_s']:.1f} frames a second; {report['step_tflop_per_s']:.1f} TFLOP/s in a step, "
        f"{100 * report['step_share_of_matrix_rate']:.0f} % of a large matrix product's "
        f"{roof['matrix_tflop_per_s']:.1f}; memory copies at {roof['copy_gb_per_s']:.0f} GB/s"
    )
    if peak is not None:
        print(f"peak memory {peak / 1e9:.1f} GB")
    return 0


def _cases(portrait: Portrait) -> list[tuple[str, Portrait, tuple[int, int]]]:
    """The sizes that people use: a square portrait, the default canvas, and a portrait that fills it."""
    wide = CanvasComposer(CanvasSettings())
    wide.set_backdrop(portrait.image)
    side = min(portrait.image.shape[:2])
    square = cv2.resize(portrait.image, (720 * portrait.image.shape[1] // side, 720 * portrait.image.shape[0] // side))
    filled = replace(portrait, image=wide.compose(square).copy(), annotations={}, person_mask=None, alpha=None)
    return [
        ("512x512", portrait, (512, 512)),
        ("720x720", portrait, (720, 720)),
        ("1280x720", filled, (1280, 720)),
    ]


def _generator_figures(
    arguments: argparse.Namespace,
    name: str,
    portrait: Portrait,
    room: tuple[int, int],
    speech: np.ndarray,
    line: ProgressLine,
) -> dict[str, dict[str, float]]:
    generator = create_generator(arguments.generator, seed=1, fps=_FPS)
    started_s = time.perf_counter()
    generator.prepare(portrait, room, ProgressFunction(lambda *_: None))
    prepare_s = time.perf_counter() - started_s
    spec = generator.spec
    image = np.empty((spec.height, spec.width, 3), np.uint8)
    writer = _OneImage(image)

    def step(index: int) -> None:
        first = first_sample_of(index * spec.chunk.frames, _FPS)
        count = first_sample_of(spec.chunk.frames, _FPS) + spec.chunk.lookahead_samples
        samples = np.take(speech, np.arange(first, first + count), mode="wrap")
        chunk = AudioChunk(
            first_frame=index * spec.chunk.frames,
            frames=spec.chunk.frames,
            first_sample=first,
            samples=samples,
        )
        generator.generate(chunk, writer)

    times = _measured(step, arguments.frames, f"{arguments.generator} {name}", line)
    generator.close()
    return {
        f"{arguments.generator} {name}": _summary(times),
        f"{arguments.generator} {name} prepare": {"wall": 1000 * prepare_s},
    }


def _canvas_figures(portrait: Portrait, frames: int, line: ProgressLine) -> dict[str, dict[str, float]]:
    composer = CanvasComposer(CanvasSettings())
    composer.set_backdrop(portrait.image)
    image = cv2.resize(portrait.image, composer.room_for((portrait.image.shape[1], portrait.image.shape[0])))
    box = Mailbox(_Nowhere(), CanvasFormat(width=1280, height=720, fps=_FPS))
    canvas = composer.compose(image)
    figures = {
        "canvas 1280x720": _summary(_measured(lambda _: composer.compose(image), frames, "canvas", line)),
        "hand-over to one sink": _summary(
            _measured(
                lambda i: box.put(PresentedFrame(image=canvas, tick=i, frame=i, due_s=0.0)),
                frames,
                "hand-over",
                line,
            )
        ),
    }
    box.close()
    return figures


def _measured(step: Callable[[int], object], frames: int, stage: str, line: ProgressLine) -> list[tuple[float, float]]:
    """(CPU ms of this thread, wall ms) of each step after the warm-up."""
    times = []
    for index in range(frames + _WARM_UP):
        cpu, wall = time.thread_time(), time.perf_counter()
        step(index)
        if index >= _WARM_UP:
            times.append((1000 * (time.thread_time() - cpu), 1000 * (time.perf_counter() - wall)))
            line.update(stage, len(times), frames, "frames")
    return times


def _summary(times: list[tuple[float, float]]) -> dict[str, float]:
    cpu = [t[0] for t in times]
    wall = sorted(t[1] for t in times)
    return {
        "cpu": round(statistics.median(cpu), 3),
        "wall": round(statistics.median(wall), 3),
        "wall_p95": round(wall[int(0.95 * len(wall))], 3),
    }


def _speech() -> np.ndarray:
    """The sample speech at 16 kHz."""
    file = AudioFile(asset_path("speech/welcome.flac"))
    return soxr.resample(to_mono(file.read_all()), file.rate_hz, SAMPLE_RATE_HZ).astype(np.float32)


def _machine() -> dict[str, object]:
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [row.split(":", 1)[1].strip() for row in info.read_text().splitlines() if row.startswith("model name")]
        name = models[0] if models else name
    return {"cpu": name, "cores": os.cpu_count(), "system": platform.system(), "opencv": cv2.__version__}


def _print(report: dict) -> None:
    machine = report["machine"]
    print(f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, OpenCV {machine['opencv']}, one thread")
    print(f"{'':28s}{'CPU ms':>9s}{'wall ms':>9s}{'p95 ms':>9s}")
    for name, figure in report["figures_ms"].items():
        cells = "".join(f"{figure[key]:9.2f}" if key in figure else " " * 9 for key in ("cpu", "wall", "wall_p95"))
        print(f"{name:28s}{cells}")


class _OneImage:
    """A `FrameWriter` that forgets."""

    def __init__(self, image: np.ndarray) -> None:
        self._image = image

    def next_image(self) -> np.ndarray:
        return self._image

    def commit(self, frame: int) -> None:
        pass


class _Nowhere:
    """A sink that takes everything."""

    name = "nowhere"

    def open(self, canvas: CanvasFormat) -> None:
        pass

    def send(self, frame: PresentedFrame) -> None:
        pass

    def close(self) -> None:
        pass
