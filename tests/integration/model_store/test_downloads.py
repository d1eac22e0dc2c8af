"""Downloads as the window asks for them, from a hub on this machine."""

from __future__ import annotations

import dataclasses
import queue
import time

import pytest

from engine.errors import UsageError
from engine.model_store.catalog import CATALOGUE
from engine.model_store.downloads import Downloads
from engine.model_store.store import ModelStore
from engine.protocol.codec import decode_event, encode
from engine.protocol.messages import ModelDownloaded, ModelPlanned, ModelProgressed

NAME, SPEECH = "flashtalk-14b", "chinese-wav2vec2-base"
T5 = "models_t5_umt5-xxl-enc-bf16.pth"
_WITHIN_S = 60


@pytest.fixture
def store(hub, tmp_path) -> ModelStore:
    return ModelStore(
        tmp_path / "models",
        endpoint=hub.address,
        # Without the hashes that only the real files have.
        catalogue={name: dataclasses.replace(entry, known={}) for name, entry in CATALOGUE.items()},
        timeout_s=60.0,
        pause_s=0.01,
        reserve_bytes=0,
    )


@pytest.fixture
def told() -> queue.Queue:
    return queue.Queue()


@pytest.fixture
def downloads(store, told) -> Downloads:
    return Downloads(told.put, lambda: store)


def _next(told, kind):
    """The next event of that kind, as it arrives at the window."""
    while True:
        event = decode_event(encode(told.get(timeout=_WITHIN_S)))
        if isinstance(event, kind):
            return event


def _planned(downloads, told) -> ModelPlanned:
    downloads.plan(NAME)
    return _next(told, ModelPlanned)


def test_a_plan_says_what_how_much_and_under_which_licence(downloads, told, store, hub):
    planned = _planned(downloads, told)
    assert [(part.name, part.licence) for part in planned.parts] == [(SPEECH, "mit"), (NAME, "apache-2.0")]
    assert planned.parts[1].page == "https://huggingface.co/Soul-AILab/SoulX-FlashTalk-14B"
    assert planned.folder == str(store.folder) and planned.error is None
    assert planned.missing_bytes == sum(part.missing_bytes for part in planned.parts) > 600_000
    assert planned.free_bytes > 0 and not hub.served, "nothing is fetched before somebody has agreed"


def test_a_plan_that_fails_says_why(downloads, told, hub):
    hub.repositories.clear()
    assert "token" in _planned(downloads, told).error.message
    with pytest.raises(UsageError, match="no model"):
        downloads.plan("puppet-14b")


def test_a_download_tells_how_far_it_is_and_when_it_is_done(downloads, told, store):
    downloads.begin(NAME)
    seen = [_next(told, (ModelProgressed, ModelDownloaded))]
    while not isinstance(seen[-1], ModelDownloaded):
        seen.append(_next(told, (ModelProgressed, ModelDownloaded)))
    last = seen[-2]
    assert seen[-1].error is None and store.path(NAME).is_dir() and store.path(SPEECH).is_dir()
    assert (last.stage, last.done_bytes) == ("download", last.total_bytes)
    assert last.total_bytes == sum(store.state(name).size_bytes for name in (NAME, SPEECH))
    assert _planned(downloads, told).parts == []


def test_one_that_is_stopped_goes_on_where_it_was(downloads, told, store, hub, fault):
    slow = fault(path=T5, piece_bytes=4096, gate_at=81_920)
    hub.faults.append(slow)
    downloads.begin(NAME)
    with pytest.raises(UsageError, match="already"):
        downloads.begin(NAME)
    deadline_s = time.monotonic() + _WITHIN_S
    while _arrived(store, T5) < 60_000:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    downloads.stop()
    slow.gate.set()
    assert _next(told, ModelDownloaded).error.code == "cancelled"
    assert store.state(NAME).status == "partial"
    # It is stopped by the next bytes that come.
    arrived = _arrived(store, T5)
    assert 0 < _planned(downloads, told).missing_bytes < 300_000
    hub.served.clear()
    downloads.begin(NAME)
    assert _next(told, ModelDownloaded).error is None
    assert hub.served_of(T5) == 120_000 - arrived and hub.served_of("of-00002.safetensors") == 0, "fetched once"


def _arrived(store, name: str) -> int:
    """Bytes of that file on the disk, whole or not."""
    return sum(path.stat().st_size for path in store.folder.rglob(f"{name}*"))


def test_stopped_before_it_began_it_does_not_begin(downloads, told, hub):
    downloads.begin(NAME)
    downloads.stop()
    assert _next(told, ModelDownloaded).error.code == "cancelled"
    downloads.stop()


def test_a_failure_is_one_sentence_and_leaves_room_for_another_try(downloads, told, hub, fault):
    hub.faults.append(fault(path="Wan2.1_VAE.pth", wrong_at=7))
    downloads.begin(NAME)
    error = _next(told, ModelDownloaded).error
    assert (error.code, "Wan2.1_VAE.pth" in error.message) == ("models.wrong_bytes", True)
    downloads.begin(NAME)
    assert _next(told, ModelDownloaded).error is None


def test_what_nobody_expected_is_told_as_well(told, caplog):
    downloads = Downloads(told.put, lambda: 1 / 0)
    downloads.begin(NAME)
    assert _next(told, ModelDownloaded).error.code == "internal"
    assert "a download failed" in caplog.text
