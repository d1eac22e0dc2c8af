"""How fast a download is, from what the engine tells a few times a second."""

from __future__ import annotations

import pytest

from app.controllers import model_download
from app.controllers.model_download import ModelDownload
from engine.protocol import messages as m


@pytest.fixture
def told(make_broadcast, monkeypatch):
    """Tells a download that so many bytes are there at a time."""
    client, broadcast = make_broadcast()
    download = ModelDownload(client, broadcast)
    now_s = [0.0]
    monkeypatch.setattr(model_download.time, "monotonic", lambda: now_s[0])

    def tell(at_s: float, done: int, stage: str = "download") -> float:
        now_s[0] = at_s
        client.model_progressed.emit(m.ModelProgressed(name="m", stage=stage, done_bytes=done, total_bytes=10**9))
        return download.speed

    return tell


def test_speed_is_that_of_the_last_ten_seconds(told):
    assert [told(0.0, 0), told(0.5, 1_000_000)] == [0.0, 0.0], "too early to say"
    assert told(2.0, 4_000_000) == pytest.approx(2e6)
    assert told(20.0, 4_000_000) == 0.0
    assert told(22.0, 5_000_000) == pytest.approx(5e5)


def test_what_was_there_before_is_no_speed(told):
    """A download that goes on reads the files that have arrived, and looks up what there is."""
    told(0.0, 0, "look up")
    told(3.0, 900_000_000)
    assert told(5.0, 902_000_000) == pytest.approx(1e6)


def test_bytes_that_are_fetched_again_are_no_speed_backwards(told):
    told(0.0, 5_000_000)
    assert told(2.0, 1_000_000) == 0.0
