"""A report of `standin bench --generator flashtalk`, for people."""

from __future__ import annotations

from typing import Any

_BAR_WIDTH = 60
_HEARD = "heard"


def print_stages(report: dict[str, Any]) -> None:
    """Print the tables and the bar."""
    print("\n".join(told(report)))


def told(report: dict[str, Any]) -> list[str]:
    """Lines: the device, seconds of each stage, what is reached of what the device can do, and the delay as a bar."""
    chunk = f"chunks of {report['chunk_frames']} frames"
    rows = {"chunk": report["chunk_s"], "first frame": report["first_frame_s"], **report["stages_s"]}
    roof, peak = report["roofline"], report["peak_memory_bytes"]
    return [
        f"{report['device']}, torch {report['torch']}, {_precision(report)}, {report['attention']} attention",
        f"{report['size']}, {report['steps']} steps, {chunk}, {report['weights']} weights, {report['chunks']} chunks",
        *report["notices"],
        "",
        f"{'':14s}{'median s':>10s}{'p95 s':>10s}",
        *(f"{name:14s}{figure['median']:10.4f}{figure['p95']:10.4f}" for name, figure in rows.items()),
        "",
        f"{report['frames_per_s']:.1f} frames a second; {report['step_tflop_per_s']:.1f} TFLOP/s in a step, "
        f"{100 * report['step_share_of_matrix_rate']:.0f} % of a large matrix product's "
        f"{roof['matrix_tflop_per_s']:.1f}; memory copies at {roof['copy_gb_per_s']:.0f} GB/s",
        *([f"peak memory {peak / 1e9:.1f} GB"] if peak is not None else []),
        "",
        *delay_bar(report),
    ]


def delay_bar(report: dict[str, Any], width: int = _BAR_WIDTH) -> list[str]:
    """From the first sample of a chunk to its first frame: what is waited for, to scale, and a legend.

    The chunk must be heard, its stages run until the first frame has left, and what is left over is kept so that no
    later frame is late.
    """
    medians = {stage: figure["median"] for stage, figure in report["stages_s"].items()}
    before = {stage: seconds for stage, seconds in medians.items() if stage == "audio" or stage.startswith("step")}
    first_s, delay_s = report["first_frame_s"]["median"], report["delay_s"]
    parts = {
        _HEARD: report["heard_s"],
        "audio": before.get("audio", 0.0),
        "steps": sum(seconds for stage, seconds in before.items() if stage != "audio"),
        "first frame": max(0.0, first_s - sum(before.values())),
    }
    parts["margin"] = max(0.0, delay_s - sum(parts.values()))
    letters = dict(zip(parts, "HASFM", strict=True))
    bar = "".join(letters[name] * max(seconds > 0, round(width * seconds / delay_s)) for name, seconds in parts.items())
    legend = "  ".join(f"{letters[name]} {name} {seconds:.2f}" for name, seconds in parts.items())
    return [f"delay {delay_s:.2f} s from a word to its picture:", f"|{bar}|", legend]


def _precision(report: dict[str, Any]) -> str:
    wanted = report["options"].get("precision", "auto")
    return report["dtype"] if wanted == "auto" else f"{wanted} ({report['dtype']})"
