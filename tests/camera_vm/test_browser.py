"""What Chromium's getUserMedia, and with it most calls in browsers, sees of the camera."""

from __future__ import annotations

import numpy as np
import pictures
import pytest
from browser import CHROMIUM, Browser
from consumers import SETTLED, Seen

CAMERA, PLAIN = "/dev/video0", "/dev/video4"

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: apt-get install chromium"),
    pytest.mark.timeout(400),
]


def test_chromium_sees_the_camera_by_name_and_comes_back(produce, figure, only_with):
    """One browser for everything: to start it takes longer here than all the rest."""
    only_with("0.15")
    browser = Browser()
    try:
        plain = produce("sink", PLAIN)
        plain.opened()
        hidden = browser.look()
        assert hidden.get("error") == "NotFoundError", "without exclusive_caps browsers list no camera; they do now"
        plain.stop()
        producer = produce("sink", CAMERA)
        producer.opened()
        first, second = browser.look(), browser.look()
        for look in (first, second):
            check(look, figure)
        assert whole_numbers(first)[-1] < whole_numbers(second)[0], "it came back to an old picture"
        assert producer.stop()["restarts"] == 0
    finally:
        browser.close()


def whole_numbers(look: dict) -> list[int]:
    """From the very first picture on; that one may be torn."""
    return [number for number in look["numbers"] if number is not None]


def check(look: dict, figure) -> None:
    assert "error" not in look, look
    assert look["label"].startswith("Standin Camera") and any("Standin Camera" in name for name in look["cameras"])
    seen = Seen(
        numbers=look["numbers"][SETTLED:], times_s=look["times"][SETTLED:], width=look["width"], height=look["height"],
        colour_error=int(np.abs(np.array(look["bars"]) - pictures.BARS.astype(int)).max()),
        notes={"label": look["label"], "told_fps": look["rate"]},
    )  # fmt: skip
    figure("Chromium", seen.figures())
    assert (seen.width, seen.height) == (640, 360)
    assert seen.torn <= 2
    assert seen.new_numbers == sorted(seen.new_numbers), "pictures came out of order"
    assert seen.colour_error <= 12
    assert look["rate"] == pytest.approx(25, abs=0.1)
    assert seen.sent_fps == pytest.approx(25, rel=0.06)
