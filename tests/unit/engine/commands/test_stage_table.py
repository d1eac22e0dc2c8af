"""The report of a generator's stages, for people."""

import pytest

from engine.commands.stage_table import delay_bar, told


@pytest.fixture
def report():
    stages = {"audio": 0.02, "step 1": 0.2, "step 2": 0.2, "decode": 0.3, "colour": 0.01, "re-encode": 0.1}
    return {
        "device": "a GPU", "torch": "2.11", "dtype": "bfloat16", "attention": "sdpa", "size": "768x448", "steps": 2,
        "chunk_frames": 33, "weights": "random", "chunks": 3, "notices": ["A sentence."], "options": {},
        "chunk_s": {"median": 0.83, "p95": 0.9}, "first_frame_s": {"median": 0.5, "p95": 0.55},
        "stages_s": {name: {"median": seconds, "p95": seconds} for name, seconds in stages.items()},
        "frames_per_s": 33.7, "step_tflop_per_s": 700.0, "step_share_of_matrix_rate": 0.85, "heard_s": 1.12,
        "delay_s": 1.7, "peak_memory_bytes": 38_000_000_000,
        "roofline": {"matrix_tflop_per_s": 800.0, "copy_gb_per_s": 4000.0},
    }  # fmt: skip


def test_the_bar_is_to_scale_and_adds_up_to_the_delay(report):
    title, bar, legend = delay_bar(report, width=170)
    assert title == "delay 1.70 s from a word to its picture:"
    counts = {letter: bar.count(letter) for letter in "HASFM"}
    assert counts == {"H": 112, "A": 2, "S": 40, "F": 8, "M": 8}
    assert legend == "H heard 1.12  A audio 0.02  S steps 0.40  F first frame 0.08  M margin 0.08"


def test_what_takes_no_time_has_no_letter(report):
    report["stages_s"]["audio"] = {"median": 0.0, "p95": 0.0}
    assert "A" not in delay_bar(report)[1]


def test_all_figures_are_there(report):
    text = "\n".join(told(report))
    for words in ("a GPU, torch 2.11, bfloat16, sdpa", "A sentence.", "85 % of a large", "peak memory 38.0 GB"):
        assert words in text
    report["options"], report["peak_memory_bytes"] = {"precision": "fp8"}, None
    assert "fp8 (bfloat16)" in told(report)[0] and "peak" not in "\n".join(told(report))
