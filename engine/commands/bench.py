"""`standin bench`: what this computer needs, stage by stage, and what is best set on it."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import cv2

from engine.commands.console import ProgressLine
from engine.commands.options import add_generator_flags, add_set, given_options
from engine.commands.stage_table import print_stages
from engine.errors import UsageError
from engine.generators.base import Progress
from engine.generators.factory import generator_names, options_help, stage_bench_of
from engine.portrait.load import load_portrait
from engine.tuning.estimates import USES
from engine.tuning.frame_costs import canvas_figures, filled_portrait, generator_figures
from engine.tuning.recommend import Recommendation, recommend
from engine.tuning.store import store

_CANVAS = (1280, 720)
_SQUARES = ((512, 512), (720, 720))


def add_to(commands: argparse._SubParsersAction) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "bench",
        help="measure this computer, and say what is best set on it",
        description="Time of every stage, as the median over many frames or chunks.",
    )
    parser.add_argument("--generator", choices=generator_names(), default="puppet", help="what to measure")
    parser.add_argument(
        "--recommend", action="store_true", help="name the best settings for each use, and keep them for the window"
    )
    parser.add_argument("--frames", type=int, default=250, help="frames per figure (default 250)")
    parser.add_argument("--portrait", default="sample:", metavar="P", help="a picture, or sample:ID")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    group = parser.add_argument_group("flashtalk (random weights at the published size unless --checkpoint is given)")
    group.add_argument("--chunks", type=int, default=20, metavar="N", help="how many are measured (default 20)")
    add_generator_flags(group)
    add_set(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if arguments.frames < 1:
        raise UsageError(f"{arguments.frames} frames are nothing to measure.", hint="Give a number above 0.")
    line = ProgressLine(is_quiet=arguments.json)
    try:
        if arguments.recommend:
            return _recommend(arguments, line)
        measure = stage_bench_of(arguments.generator)
        return _run_frames(arguments, line) if measure is None else _run_stages(measure, arguments, line)
    finally:
        line.end()


def _recommend(arguments: argparse.Namespace, line: ProgressLine) -> int:
    found = recommend(load_portrait(arguments.portrait), line)
    line.end()
    problem = store(found.as_dict())
    if arguments.json:
        print(json.dumps(found.as_dict(), indent=2))
        return 0
    print(_told(found))
    print(problem or "Kept: the window offers these under Settings.")
    return 0


def _told(found: Recommendation) -> str:
    lines = [found.computer, *found.notes, ""]
    lines.append(f"{'':14s}{'setting':44s}{'frames/s':>10s}{'delay':>9s}{'memory':>9s}")
    for use in USES:
        chosen = found.best.get(use)
        if chosen is None:
            lines.append(f"{use:14s}nothing on this computer keeps up")
            continue
        memory = "-" if chosen.memory_bytes is None else f"{chosen.memory_bytes / 1e9:.1f} GB"
        mark = "" if chosen.is_measured else " (predicted)"
        lines.append(f"{use:14s}{chosen.words:44s}{chosen.frames_per_s:10.1f}{chosen.delay_s:7.2f} s{memory:>9s}{mark}")
    return "\n".join(lines)


def _run_stages(measure: Callable[[dict, Progress], dict], arguments: argparse.Namespace, line: ProgressLine) -> int:
    """A generator that measures its own stages, because they run on another device."""
    options = given_options(arguments, options_help(arguments.generator))
    report = measure({"options": options, "chunks": arguments.chunks}, line)
    line.end()
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        print_stages(report)
    return 0


def _run_frames(arguments: argparse.Namespace, line: ProgressLine) -> int:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        figures = _frame_figures(arguments, line)
    finally:
        cv2.setNumThreads(threads)
    line.end()
    report = {"machine": _machine(), "frames": arguments.frames, "figures_ms": figures}
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0


def _frame_figures(arguments: argparse.Namespace, line: ProgressLine) -> dict[str, dict[str, float]]:
    """At the sizes that people use: a square portrait, the default canvas, and a portrait that fills it."""
    portrait, figures = load_portrait(arguments.portrait), {}
    filled = filled_portrait(portrait, _CANVAS)
    for picture, room in [*((portrait, square) for square in _SQUARES), (filled, _CANVAS)]:
        figures |= generator_figures(arguments.generator, picture, room, arguments.frames, line)
    return figures | canvas_figures(portrait, _CANVAS, arguments.frames, line)


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
