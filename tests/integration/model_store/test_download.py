"""Models fetched from a hub that behaves, and from one that does not."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import itertools
import json
import random
import subprocess
from pathlib import Path

import pytest

from engine.errors import Cancelled, ModelFilesError, UsageError
from engine.model_store.catalog import CATALOGUE, KnownFile
from engine.model_store.store import ModelStore

FLASHTALK = "flashtalk-14b"
REPOSITORY = "Soul-AILab/SoulX-FlashTalk-14B"
SHARD = "diffusion_pytorch_model-00001-of-00002.safetensors"
COMMIT = "a1" * 20
PIECE_BYTES = 1 << 16
"""As much of what arrived may be lost with a connection, in libraries that hand out full pieces only."""


class Steps:
    """A `Progress` that remembers, and cancels when `limit_bytes` of the stage "download" are done."""

    def __init__(self, limit_bytes: int | None = None) -> None:
        self.seen: list[tuple[str, float, float, str]] = []
        self._limit_bytes = limit_bytes

    def update(self, stage: str, done: float, total: float, unit: str = "") -> None:
        self.seen.append((stage, done, total, unit))
        if self._limit_bytes is not None and stage == "download" and done >= self._limit_bytes:
            raise Cancelled("Stopped.")


def _catalogue(repositories) -> dict:
    """The real one, but for the hashes that only the real files have."""
    return {name: dataclasses.replace(entry, known={}) for name, entry in CATALOGUE.items()}


@pytest.fixture
def store(hub, tmp_path) -> ModelStore:
    return ModelStore(
        tmp_path / "models",
        endpoint=hub.address,
        catalogue=_catalogue(hub.repositories),
        timeout_s=5.0,
        pause_s=0.01,
        reserve_bytes=0,
    )


def _files(store: ModelStore) -> dict[str, str]:
    """Everything in the store's folder but locks: path -> SHA-256."""
    return {
        path.relative_to(store.folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in store.folder.rglob("*")
        if path.is_file() and ".locks" not in path.parts
    }


def _failure(store: ModelStore, name: str = FLASHTALK, **options) -> ModelFilesError:
    with pytest.raises(ModelFilesError) as caught:
        store.download(name, Steps(), **options)
    error = caught.value
    assert error.message.endswith(".") and "\n" not in str(error) and error.code.startswith("models.")
    assert all(state.status != "complete" or state.name != name for state in store.states())
    return error


def test_fetches_what_is_needed_and_nothing_else(hub, store):
    assert [state.status for state in store.states()] == ["absent", "absent"]
    steps = Steps()
    state = store.download(FLASHTALK, steps)
    assert state.status == "complete" and state.commit == COMMIT and state.licence == "apache-2.0"
    published = hub.repositories[REPOSITORY].files
    there = {p.relative_to(state.path).as_posix(): p.read_bytes() for p in state.path.rglob("*") if p.is_file()}
    del there["standin-manifest.json"]
    unneeded = {".gitattributes", "README.md", "assets/picture 1.png", "xlm-roberta-large/tokenizer.json"}
    assert there == {path: content for path, content in published.items() if path not in unneeded}
    assert store.state("chinese-wav2vec2-base").status == "complete", "the model is of no use without it"
    assert hub.served_of("fairseq-ckpt.pt") == 0 and hub.served_of(".png") == 0
    assert state.path == store.path(FLASHTALK) == store.folder / FLASHTALK / COMMIT
    downloads = [step for step in steps.seen if step[0] == "download"]
    assert (
        downloads[-1][1]
        == downloads[-1][2]
        == sum(map(len, there.values())) + store.state("chinese-wav2vec2-base").size_bytes
    )
    assert {unit for _, _, _, unit in downloads} == {"B"}
    assert all(before[1] <= after[1] for before, after in itertools.pairwise(downloads))


def test_the_manifest_records_commit_sizes_and_hashes(hub, store):
    path = store.download(FLASHTALK, Steps()).path
    manifest = json.loads((path / "standin-manifest.json").read_text())
    assert manifest["commit"] == COMMIT
    for record in manifest["files"]:
        content = hub.repositories[REPOSITORY].files[record["path"]]
        assert record["size_bytes"] == len(content)
        assert record["sha256"] == hashlib.sha256(content).hexdigest(), "filled in for small files, too"


def test_main_is_pinned_at_the_first_download(hub, store):
    with pytest.raises(Cancelled):
        store.download(FLASHTALK, Steps(limit_bytes=150_000))
    hub.repositories[REPOSITORY].commit = "b2" * 20
    hub.repositories[REPOSITORY].files["config.json"] = b'{"model_type": "i2v", "newer": true}'
    # The commit that was begun with is asked for, and the hub has that no more in this test.
    assert _failure(store).code == "models.no_revision"
    hub.repositories[REPOSITORY].commit = COMMIT
    hub.repositories[REPOSITORY].files["config.json"] = b'{"model_type": "i2v"}'
    assert store.download(FLASHTALK, Steps()).commit == COMMIT
    hub.requests.clear()
    assert store.download(FLASHTALK, Steps()).commit == COMMIT
    assert hub.requests == [], "what is complete needs no network"


def test_another_revision_replaces_the_pin_and_leaves_the_old_one_until_told(hub, store):
    store.download(FLASHTALK, Steps())
    old = store.state(FLASHTALK)
    hub.repositories[REPOSITORY].commit = "b2" * 20
    hub.repositories[REPOSITORY].files["config.json"] = b'{"model_type": "i2v", "newer": true}'
    with pytest.raises(Cancelled):
        store.download(FLASHTALK, Steps(limit_bytes=1000), revision="main")
    assert store.path(FLASHTALK) == old.path, "the old one serves until the new one is complete"
    new = store.download(FLASHTALK, Steps(), revision="main")
    assert new.commit == "b2" * 20 and b"newer" in (new.path / "config.json").read_bytes()
    assert old.path.is_dir() and new.disk_bytes > new.size_bytes * 1.9
    assert store.remove(FLASHTALK, only_old=True) > old.size_bytes
    assert store.path(FLASHTALK) == new.path and not old.path.exists()


def test_a_connection_cut_at_40_percent_is_resumed_at_once(hub, store, fault):
    hub.faults.append(fault(path=f"/storage/{REPOSITORY}/{SHARD}", cut_after=80_000))
    assert store.download(FLASHTALK, Steps()).status == "complete"
    ranges = [
        headers.get("range") for _, path, headers in hub.requests if path.startswith("/storage") and SHARD in path
    ]
    first, second = ranges
    start = int(second.removeprefix("bytes=").removesuffix("-"))
    assert first is None and 80_000 - PIECE_BYTES <= start <= 80_000
    assert hub.served_of(SHARD) == 80_000 + (200_000 - start), "80 kB, then only the rest"


def test_a_connection_that_stays_cut_is_resumed_by_the_next_download(hub, store, fault):
    hub.faults += [
        fault(path=f"/storage/{REPOSITORY}/{SHARD}", cut_after=80_000),
        fault(path=f"/storage/{REPOSITORY}/{SHARD}", status=503, times=5),
    ]
    error = _failure(store)
    assert error.code == "models.connection" and SHARD in error.message and "503" in error.message
    state = store.state(FLASHTALK)
    assert state.status == "partial" and state.path is None and state.disk_bytes > 10_000
    with pytest.raises(ModelFilesError, match="in part"):
        store.path(FLASHTALK)
    steps = Steps()
    assert store.download(FLASHTALK, steps).status == "complete"
    assert 200_000 <= hub.served_of(SHARD) <= 200_000 + PIECE_BYTES < 280_000
    assert not list(store.folder.rglob("*.part"))


def test_a_lost_manifest_is_made_again_from_the_files(hub, store):
    """Nobody can say then which files are good: all are hashed, only bad ones fetched."""
    path = store.download(FLASHTALK, Steps()).path
    (path / "standin-manifest.json").write_text("{")
    content = bytearray((path / SHARD).read_bytes())
    content[7] ^= 1
    (path / SHARD).write_bytes(content)
    state = store.state(FLASHTALK)
    assert state.status == "damaged" and "standin-manifest.json" in state.problems[0]
    hub.served.clear()
    error = _failure(store)
    assert error.code == "models.wrong_bytes" and SHARD in error.message
    assert store.download(FLASHTALK, Steps()).status == "complete"
    assert hub.served_of(SHARD) == 200_000 and hub.served_of(".pth") == 0
    assert store.verify(FLASHTALK, Steps()).damaged == ()


def test_a_server_without_ranges_begins_again(hub, store, fault):
    hub.has_ranges = False
    hub.faults.append(fault(path=f"/storage/{REPOSITORY}/{SHARD}", cut_after=80_000))
    assert store.download(FLASHTALK, Steps()).status == "complete"
    assert hub.served_of(SHARD) == 280_000


def test_wrong_bytes_name_the_file_and_remove_it(hub, store, fault):
    hub.faults.append(fault(path=f"/storage/{REPOSITORY}/{SHARD}", wrong_at=123))
    error = _failure(store)
    assert error.code == "models.wrong_bytes" and SHARD in error.message
    assert not any(SHARD in path for path in _files(store))
    assert store.download(FLASHTALK, Steps()).status == "complete"


@pytest.mark.parametrize("name", ["google/umt5-xxl/tokenizer.json", "config.json"])
def test_wrong_bytes_in_a_small_file_are_found_by_its_git_hash(hub, store, fault, name):
    hub.faults.append(fault(path=f"{REPOSITORY}/resolve/{COMMIT}/{name}", wrong_at=1))
    error = _failure(store)
    assert error.code == "models.wrong_bytes" and error.message.startswith(name)


def test_a_file_longer_than_announced_does_not_fill_the_disk(hub, store, fault):
    hub.faults.append(fault(path=f"/storage/{REPOSITORY}/{SHARD}", extra_bytes=40_000_000))
    error = _failure(store)
    assert error.code == "models.wrong_bytes" and "longer" in error.message
    assert hub.served_of(SHARD) < 30_000_000, "the connection was given up; what the system buffers is not ours"
    assert store.state(FLASHTALK).disk_bytes < 20_000


def test_a_repository_that_is_not_there(hub, store):
    del hub.repositories[REPOSITORY]
    hub.repositories["TencentGameMate/chinese-wav2vec2-base"].commit = "c3" * 20
    assert _failure(store, "chinese-wav2vec2-base").code == "models.no_revision"
    hub.repositories["TencentGameMate/chinese-wav2vec2-base"].commit = "3991242c806928916fff4a8c0e4f76acf661b743"
    error = _failure(store)
    assert error.code == "models.unauthorised" and REPOSITORY in error.message


def test_a_revision_and_a_file_that_are_not_there(hub, store, fault):
    error = _failure(store, revision="v9")
    assert error.code == "models.no_revision" and '"v9"' in error.message
    del hub.repositories[REPOSITORY].files["Wan2.1_VAE.pth"]
    error = _failure(store)
    assert error.code == "models.no_file" and "Wan2.1_VAE.pth" in error.message
    hub.faults.append(fault(path="/api/models/", status=404, times=9))
    assert _failure(store).code == "models.no_repository"


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [
        (403, {}, "models.forbidden"),
        (403, {"X-Error-Code": "GatedRepo"}, "models.gated"),
        (401, {"X-Error-Code": "GatedRepo"}, "models.gated"),
        (401, {}, "models.unauthorised"),
        (404, {}, "models.no_file"),
        (410, {}, "models.refused"),
    ],
)
def test_a_refusal_says_what_to_do(hub, store, fault, status, headers, code):
    hub.faults.append(fault(path=f"{REPOSITORY}/resolve/{COMMIT}/{SHARD}", status=status, headers=headers))
    error = _failure(store)
    assert error.code == code
    if status in (401, 403):
        assert f"https://huggingface.co/{REPOSITORY}" in error.hint and "HF_TOKEN" in error.hint


def test_a_gated_listing_says_to_accept_the_licence(hub, store, fault):
    hub.faults.append(fault(path=f"/api/models/{REPOSITORY}", status=403, headers={"X-Error-Code": "GatedRepo"}))
    error = _failure(store)
    assert error.code == "models.gated" and "licence" in error.message and "HF_TOKEN" in error.hint


def test_too_many_requests_are_waited_for_as_long_as_asked(hub, store, fault, monkeypatch):
    waits = []
    monkeypatch.setattr("engine.model_store.meter.Meter.wait", lambda _meter, duration_s: waits.append(duration_s))
    hub.faults += [
        fault(path=f"/api/models/{REPOSITORY}", status=429, headers={"Retry-After": "7"}),
        fault(path=f"{REPOSITORY}/resolve/{COMMIT}/{SHARD}", status=429, headers={"Retry-After": "11"}),
    ]
    assert store.download(FLASHTALK, Steps()).status == "complete"
    assert waits == [7.0, 11.0]


def test_too_many_requests_for_long_is_said(hub, store, fault):
    hub.faults.append(fault(path=f"/api/models/{REPOSITORY}", status=429, headers={"Retry-After": "1800"}))
    error = _failure(store)
    assert error.code == "models.busy" and "30 minutes" in error.message


def test_a_server_that_is_away_and_one_that_says_nothing(hub, store, fault, tmp_path):
    away = ModelStore(tmp_path / "models", endpoint="http://127.0.0.1:9", pause_s=0.001, reserve_bytes=0)
    assert _failure(away).code == "models.connection"
    silent = ModelStore(
        tmp_path / "models",
        endpoint=hub.address,
        catalogue=_catalogue(hub.repositories),
        timeout_s=0.2,
        pause_s=0.001,
        reserve_bytes=0,
    )
    hub.faults.append(fault(path=f"/storage/{REPOSITORY}/{SHARD}", times=6, stall_s=0.6))
    assert _failure(silent).code == "models.connection"


def test_a_page_that_wants_a_login_is_no_hub(hub, store, fault):
    """As hotels and airports answer: status 200, and not the protocol."""
    hub.faults.append(fault(path=f"/api/models/{REPOSITORY}", page=b"<html>Welcome to our hotel</html>"))
    error = _failure(store)
    assert error.code == "models.bad_server" and "login" in error.hint


def test_a_slow_server_is_put_up_with(hub, store, fault):
    hub.faults.append(fault(path=f"/storage/{REPOSITORY}/Wan2.1_VAE.pth", pause_s=0.02, piece_bytes=2000))
    assert store.download(FLASHTALK, Steps()).status == "complete"


def test_cancelling_keeps_what_has_arrived(hub, store):
    with pytest.raises(Cancelled):
        store.download("chinese-wav2vec2-base", Steps(limit_bytes=30_000))
    assert store.state("chinese-wav2vec2-base").status == "partial"
    assert store.download("chinese-wav2vec2-base", Steps()).status == "complete"
    assert hub.served_of("pytorch_model.bin") < 2 * 60_000 + 1


def test_not_enough_room_is_said_before_a_byte_is_fetched(hub, store, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 400_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _folder: usage)
    store.download("chinese-wav2vec2-base", Steps())
    error = _failure(store)
    assert error.code == "models.no_room"
    assert "610 kB needed" in error.message and "400 kB free" in error.message and str(store.folder) in error.message
    assert hub.served_of(".pth") == 0
    store.remove("chinese-wav2vec2-base")
    hub.served.clear()
    assert "670 kB needed" in _failure(store).message and not hub.served, "room for one of two is not enough"


class FullDisk:
    """A file that takes `room_bytes` and no more."""

    def __init__(self, file, room_bytes: int) -> None:
        self._file, self._room_bytes = file, room_bytes

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_reason) -> None:
        self._file.close()

    def write(self, piece: bytes) -> int:
        self._room_bytes -= len(piece)
        if self._room_bytes < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self._file.write(piece)


def test_a_disk_that_fills_up_meanwhile(hub, store, monkeypatch):
    real_open = Path.open

    def open_on_full_disk(path, mode="r", *arguments, **options):
        file = real_open(path, mode, *arguments, **options)
        return FullDisk(file, 40_000) if "a" in mode else file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", open_on_full_disk)
        error = _failure(store, "chinese-wav2vec2-base")
    assert error.code == "models.disk_full" and str(store.folder) in error.message
    assert store.state("chinese-wav2vec2-base").status == "partial"
    assert store.download("chinese-wav2vec2-base", Steps()).status == "complete"


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, timeout=10, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], timeout=10, check=True)


def test_a_real_disk_that_is_too_small_or_fills_up(hub, small_disk, monkeypatch):
    store = ModelStore(
        small_disk / "models", endpoint=hub.address, catalogue=_catalogue(hub.repositories), reserve_bytes=0
    )
    assert _failure(store).code == "models.no_room"
    # Someone else fills it after the look at it.
    monkeypatch.setattr("engine.model_store.store._free_bytes", lambda _folder: 1 << 40)
    error = _failure(store)
    assert error.code == "models.disk_full" and "Free some space" in error.hint
    assert store.state(FLASHTALK).status == "partial"
    assert store.remove(FLASHTALK) > 100_000
    assert store.state(FLASHTALK).status == "absent"


def test_a_folder_that_cannot_be_written(hub, store):
    store.folder.write_text("a file is in the way")
    assert _failure(store).code == "models.folder"


@pytest.mark.parametrize(
    "path",
    [
        "../evil.safetensors",
        "google/umt5-xxl/../../../evil",
        "/etc/evil",
        "C:/evil",
        "a\\..\\evil",
        "x/./y",
        "nul",
        "a//b",
    ],
)
def test_a_listing_that_leads_out_of_the_folder_is_refused(hub, store, path, tmp_path):
    hub.repositories[REPOSITORY].files[path] = b"evil"
    before = sorted(tmp_path.rglob("*"))
    error = _failure(store)
    assert error.code == "models.unsafe_path" and "evil" not in "".join(
        map(str, set(tmp_path.rglob("*")) - set(before))
    )


def test_names_that_differ_only_in_case_are_refused(hub, store):
    hub.repositories[REPOSITORY].files["CONFIG.json"] = b"{}"
    assert _failure(store).code == "models.unsafe_path"


@pytest.mark.parametrize("size_differs", [True, False])
def test_a_mirror_cannot_offer_other_files_than_the_publisher(hub, tmp_path, size_differs):
    name = "chinese-wav2vec2-base"
    content = hub.repositories["TencentGameMate/chinese-wav2vec2-base"].files["pytorch_model.bin"]
    published = KnownFile(size_bytes=len(content) + size_differs, sha256="ab" * 32)
    catalogue = {name: dataclasses.replace(CATALOGUE[name], known={"pytorch_model.bin": published})}
    store = ModelStore(tmp_path / "models", endpoint=hub.address, catalogue=catalogue, reserve_bytes=0)
    error = _failure(store, name)
    assert error.code == "models.unexpected_file" and hub.served_of(".bin") == 0


def test_what_the_catalogue_is_certain_of_is_not_left_to_the_mirror(hub, tmp_path):
    """The mirror's own listing agrees with what it serves; the publisher's hash does not."""
    name = "chinese-wav2vec2-base"
    content = hub.repositories["TencentGameMate/chinese-wav2vec2-base"].files["preprocessor_config.json"]
    published = KnownFile(size_bytes=len(content), sha256="ab" * 32)
    catalogue = {name: dataclasses.replace(CATALOGUE[name], known={"preprocessor_config.json": published})}
    store = ModelStore(tmp_path / "models", endpoint=hub.address, catalogue=catalogue, reserve_bytes=0)
    error = _failure(store, name)
    assert error.code == "models.wrong_bytes" and "preprocessor_config.json" in error.message


def test_the_catalogue_knows_the_small_file_whose_content_the_format_fixes():
    """Written out as transformers writes it, it has the size and hash that the catalogue expects of it."""
    settings = {
        "do_normalize": False,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
        "sampling_rate": 16_000,
    }
    content = json.dumps(settings, indent=2).encode() + b"\n"
    known = CATALOGUE["chinese-wav2vec2-base"].known["preprocessor_config.json"]
    assert (len(content), hashlib.sha256(content).hexdigest()) == (known.size_bytes, known.sha256)


def test_a_mirror_that_lists_no_sizes_is_asked_for_its_tree(hub, store):
    hub.lists_sizes = False
    assert store.download(FLASHTALK, Steps()).status == "complete"


def test_a_token_goes_to_a_mirror_only_from_the_environment_and_never_to_its_storage(hub, store, monkeypatch, tmp_path):
    (tmp_path / "token").write_text("hf_stored")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    store.download("chinese-wav2vec2-base", Steps())
    assert not any("authorization" in headers for _, _, headers in hub.requests), "a stored one is for the usual hub"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.requests.clear()
    store.download(FLASHTALK, Steps())
    for _, path, headers in hub.requests:
        assert ("authorization" in headers) == (not path.startswith("/storage")), path
        assert "torch" not in headers["user-agent"] and "agent/" not in headers["user-agent"]


def test_a_bad_address_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError):
        ModelStore(tmp_path, endpoint="mirror.example")


def test_nothing_is_written_outside_the_store(hub, store, tmp_path):
    store.download(FLASHTALK, Steps())
    assert {path.name for path in tmp_path.iterdir()} == {"models"}


def test_large_files_arrive_whole_over_many_pieces(hub, store):
    content = random.Random(5).randbytes(3_000_000)
    hub.repositories[REPOSITORY].files["Wan2.1_VAE.pth"] = content
    assert (store.download(FLASHTALK, Steps()).path / "Wan2.1_VAE.pth").read_bytes() == content
