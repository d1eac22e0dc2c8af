"""A download in words: how much, how fast, how long, and what to do when it fails."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.controllers.model_download import Stage
from app.windows.model_words import part_text, problem_words, progress_words
from engine.protocol import messages as m

ASKING = "Asking the server what there is..."


def _download(stage: str, done: int, total: int, speed: float = 0.0, now: Stage = Stage.DOWNLOADING):
    progress = m.ModelProgressed(name="flashtalk-14b", stage=stage, done_bytes=done, total_bytes=total)
    return SimpleNamespace(progress=progress, speed=speed, stage=now)


@pytest.mark.parametrize(
    ("download", "said"),
    [
        (
            SimpleNamespace(progress=None, speed=0.0, stage=Stage.DOWNLOADING),
            ("Asking the server what there is...", ""),
        ),
        (_download("look up", 0, 0), ("Asking the server what there is...", "")),
        (_download("waiting", 0, 0), ("Waiting for another Standin that downloads it...", "")),
        (_download("download", 5_000_000_000, 50_000_000_000), ("Downloading: 10 %", "5.0 GB of 50.0 GB.")),
        (
            _download("download", 5_000_000_000, 50_000_000_000, 25e6),
            ("Downloading: 10 %", "5.0 GB of 50.0 GB, 25.0 MB a second, 30 min left."),
        ),
        (
            _download("download", 49_000_000_000, 50_000_000_000, 25e6),
            ("Downloading: 98 %", "49.0 GB of 50.0 GB, 25.0 MB a second, 40 s left."),
        ),
        (
            _download("download", 0, 50_000_000_000, 5e6),
            ("Downloading: 0 %", "0 bytes of 50.0 GB, 5.0 MB a second, 2.8 h left."),
        ),
        (
            _download("download", 5_000_000, 10_000_000, 25e6, Stage.STOPPED),
            ("Downloading: 50 %", "5.0 MB of 10.0 MB."),
        ),
    ],
)
def test_how_far_it_is(download, said):
    assert progress_words(download) == said


def test_what_a_server_names_is_text_and_no_markup():
    part = m.ModelPart(
        name="x", title="A <b>model</b>", licence="", page='https://x"><script>', size_bytes=100, missing_bytes=100
    )
    text = part_text(part)
    assert "&lt;b&gt;model" in text and "<script>" not in text and "not named by its publisher" in text
    assert "here already" not in text


def test_hints_about_commands_become_ones_about_the_window():
    typed = m.Reason(code="models.connection", message="It broke off.", hint="The same command goes on with it.")
    assert "another try" in problem_words(typed)
    gated = m.Reason(code="models.gated", message="Accepted first.", hint="Accept it on the page, then set HF_TOKEN.")
    assert problem_words(gated) == gated.hint
