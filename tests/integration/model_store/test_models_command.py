"""`standin models` as a person types it, against a hub on this machine."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from engine import cli

NAME = "flashtalk-14b"
REPOSITORY = "Soul-AILab/SoulX-FlashTalk-14B"
SPEECH = "chinese-wav2vec2-base"
SHARD = "diffusion_pytorch_model-00001-of-00002.safetensors"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="where the models lie is set by XDG_DATA_HOME here")


@pytest.fixture
def speech(tmp_path) -> Path:
    """A speech encoder that the user already has: that of the catalogue is known by hash and cannot be imitated."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "wav2vec2"}')
    (folder / "preprocessor_config.json").write_text("{}")
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as file:
        file.writestr("data.pkl", bytes(100))
    return folder


def _models(*arguments, env=None) -> subprocess.CompletedProcess:
    """The command as a process of its own if it needs another environment, else within this one, which is quicker."""
    command = ["models", *map(str, arguments)]
    if env is not None:
        return subprocess.run(
            [sys.executable, "-m", "engine", *command],
            capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, env=env,
        )  # fmt: skip
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = cli.main(command)
        except SystemExit as exit_:
            status = exit_.code
    return subprocess.CompletedProcess(command, status, output.getvalue(), errors.getvalue())


def _one_sentence(done: subprocess.CompletedProcess, status: int = 1) -> str:
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("standin: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_from_nothing_to_removed(hub, home, speech):
    listed = json.loads(_models("list", "--json").stdout)
    assert [(state["name"], state["status"]) for state in listed] == [(NAME, "absent"), (SPEECH, "absent")]
    assert "about 54.4 GB" in _models("list").stdout and list(home.iterdir()) == []
    assert "has not been downloaded" in _one_sentence(_models("path", NAME))

    done = _models("download", SPEECH, "--from-dir", speech)
    assert done.returncode == 0 and "nothing was copied" in done.stdout

    refused = _one_sentence(_models("download", NAME, "--mirror", hub.address), 2)
    assert "--yes" in refused and f"https://huggingface.co/{REPOSITORY}" in refused
    assert hub.served_of(".pth") == 0

    done = _models("download", NAME, "--mirror", hub.address, "--yes")
    assert done.returncode == 0, done.stderr
    assert "licence: apache-2.0" in done.stderr and "610 kB to fetch" in done.stderr and "free in" in done.stderr
    path = Path(_models("path", NAME).stdout.strip())
    assert path.is_relative_to(home / "standin" / "models" / NAME) and (path / SHARD).stat().st_size == 200_000
    assert f"{NAME}          complete" in _models("list").stdout

    # Nothing is asked of a hub any more: there is none at this address.
    done = _models("download", NAME, "--offline", "--mirror", "http://127.0.0.1:9")
    assert done.returncode == 0 and "already here" in done.stdout

    assert "all as published" in _models("verify", NAME).stdout
    freed = json.loads(_models("remove", NAME, "--json").stdout)["freed_bytes"]
    assert freed > 610_000 and not (home / "standin" / "models" / NAME).exists()
    assert "nothing to remove" in _models("remove", NAME).stdout
    assert {entry.name for entry in home.iterdir()} == {"standin"}, "nothing is left anywhere else"
    assert {entry.name for entry in (home / "standin").iterdir()} <= {"models", "logs", "log"}


def test_a_flipped_bit_is_found_and_mended(hub, home, speech):
    _models("download", SPEECH, "--from-dir", speech)
    assert _models("download", NAME, "--mirror", hub.address, "--yes").returncode == 0
    path = Path(_models("path", NAME).stdout.strip())
    content = bytearray((path / SHARD).read_bytes())
    content[100_000] ^= 4
    (path / SHARD).write_bytes(content)
    (path / "config.json").unlink()
    said = _one_sentence(_models("verify", NAME))
    assert f"{SHARD} has changed" in said and "config.json is missing" in said and "Wan2.1" not in said
    assert "is damaged" in _one_sentence(_models("path", NAME))
    assert "damaged" in _models("list").stdout
    hub.served.clear()
    assert _models("download", NAME, "--mirror", hub.address, "--yes").returncode == 0
    assert hub.served_of(SHARD) == 200_000 and hub.served_of(".pth") == 0, "only what was damaged"
    assert "all as published" in _models("verify", NAME).stdout


def test_json_for_programs(hub, home, speech):
    _models("download", SPEECH, "--from-dir", speech)
    done = _models("download", NAME, "--mirror", hub.address, "--json")
    assert done.returncode == 2 and json.loads(done.stdout)["error"]["code"] == "models.licence"
    done = _models("download", NAME, "--mirror", hub.address, "--json", "--yes")
    state = json.loads(done.stdout)
    assert state["status"] == "complete" and state["commit"] == "a1" * 20 and done.stderr == ""
    assert json.loads(_models("path", NAME, "--json").stdout) == {"path": state["path"]}
    assert json.loads(_models("verify", NAME, "--json").stdout)["damaged"] == []
    hub.repositories.clear()
    done = _models("download", NAME, "--mirror", hub.address, "--json", "--yes", "--revision", "main")
    assert done.returncode == 1 and json.loads(done.stdout)["error"]["code"] == "models.unauthorised"


@pytest.fixture
def downloading(hub):
    """Starts the download as a process of its own, which does not outlive the test."""
    command = [sys.executable, "-m", "engine", "models", "download", NAME, "--mirror", hub.address, "--yes"]
    with contextlib.ExitStack() as stack:

        def start(errors=subprocess.PIPE) -> subprocess.Popen:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def _until(condition, *running: subprocess.Popen) -> None:
    """Wait for what processes that are still `running` bring about."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline and all(process.poll() is None for process in running)
        time.sleep(0.01)


def _arrived(home: Path) -> int:
    """Bytes of the first shard on the disk, while it is incomplete."""
    return sum(path.stat().st_size for path in (home / "standin" / "models" / NAME).rglob(f"{SHARD}.part"))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_download_that_is_killed_goes_on_where_it_was(hub, home, speech, fault, downloading, end):
    _models("download", SPEECH, "--from-dir", speech)
    hub.faults.append(fault(path=f"/storage/{REPOSITORY}/{SHARD}", times=9, piece_bytes=4000, gate_at=80_000))
    process = downloading()
    _until(lambda: _arrived(home) >= 60_000, process)
    process.send_signal(end)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and "Traceback" not in errors
    assert "partial" in _models("list").stdout
    arrived = _arrived(home)
    hub.faults[0].times = 0
    hub.served.clear()
    assert _models("download", NAME, "--mirror", hub.address, "--yes").returncode == 0
    assert 60_000 <= arrived <= 80_000 and hub.served_of(SHARD) == 200_000 - arrived, "what had not arrived"
    assert "all as published" in _models("verify", NAME).stdout


def test_two_at_once_fetch_it_once(hub, home, speech, fault, downloading, tmp_path):
    _models("download", SPEECH, "--from-dir", speech)
    slow = fault(path=f"/storage/{REPOSITORY}/{SHARD}", times=9, piece_bytes=10_000, gate_at=20_000)
    hub.faults.append(slow)
    told = [tmp_path / "first", tmp_path / "second"]
    with told[0].open("w") as first, told[1].open("w") as second:
        both = [downloading(first), downloading(second)]
    # Both have said what there is to fetch; the later one may know that from the other.
    _until(lambda: hub.served_of(SHARD) >= 20_000 and all("to fetch" in one.read_text() for one in told), *both)
    assert "another Standin" in _one_sentence(_models("remove", NAME))
    slow.gate.set()
    for process, errors in zip(both, told, strict=True):
        process.communicate(timeout=60)
        assert process.returncode == 0, errors.read_text()
    assert hub.served_of(SHARD) == 200_000
    assert "all as published" in _models("verify", NAME).stdout


def test_the_licence_is_asked_for_on_a_terminal(hub, home, speech):
    import pty  # not on Windows

    _models("download", SPEECH, "--from-dir", speech)
    command = [sys.executable, "-m", "engine", "models", "download", NAME, "--mirror", hub.address]
    for answer, status in (("n\n", 1), ("y\n", 0)):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        os.write(ours, answer.encode())
        _, errors = process.communicate(timeout=60)
        os.close(ours)
        os.close(theirs)
        assert process.returncode == status and "Agree to the licences" in errors
        assert ("Nothing was downloaded." in errors) == (status == 1)


def test_a_directory_of_ones_own_is_used_verified_and_never_touched(home, speech, tmp_path):
    said = _one_sentence(_models("download", NAME, "--from-dir", tmp_path / "mine"))
    assert "is not the whole FlashTalk checkpoint" in said and "54 GB" in said
    assert _models("download", SPEECH, "--from-dir", speech).returncode == 0
    assert _models("path", SPEECH).stdout.strip() == str(speech)
    before = {path.name: path.read_bytes() for path in speech.iterdir()}
    # The catalogue knows the published files of this one, and these are none of them.
    said = _one_sentence(_models("verify", SPEECH))
    assert "pytorch_model.bin has" in said and "Copy these files again" in said
    assert "damaged" in _models("list").stdout and "is damaged" in _one_sentence(_models("path", SPEECH))
    (speech / "config.json").unlink()
    assert "config.json is missing" in _models("list").stdout
    done = _models("remove", SPEECH)
    assert done.returncode == 0 and "left as it is" in done.stdout
    assert {path.name for path in speech.iterdir()} == set(before) - {"config.json"}
    assert "absent" in _models("list").stdout
    assert "fetches nothing" in _one_sentence(_models("download", SPEECH, "--from-dir", speech, "--revision", "x"), 2)


def _copies(home: Path, **sizes: int) -> Path:
    """8-bit weights of those sizes, as loading the model leaves them, and a draft."""
    folder = home / "standin" / "flashtalk-8bit"
    folder.mkdir(parents=True)
    for precision, size in sizes.items():
        (folder / f"{'0f' * 16}-{precision}-v1.safetensors").write_bytes(bytes(size))
    return folder


def test_weights_in_8_bits_are_listed_under_their_model_and_removed_alone(home):
    folder = _copies(home, fp8=14_000, int8=15_000)
    (folder / f"{'0f' * 16}-int8-v1.77-0123abcd.tmp").write_bytes(bytes(1_000))
    flashtalk, speech = json.loads(_models("list", "--json").stdout)
    told = [(copy["precision"], copy["size_bytes"], copy["is_whole"]) for copy in flashtalk["copies"]]
    assert told == [("fp8", 14_000, True), ("int8", 15_000, True), ("int8", 1_000, False)]
    assert flashtalk["disk_bytes"] == 0 and speech["copies"] == []
    assert all(Path(copy["path"]).is_file() for copy in flashtalk["copies"])
    listed = _models("list").stdout
    mine, others = listed.split(SPEECH, 1)
    assert "8 bits, fp8: 14 kB" in mine and "8 bits, int8, unfinished: 1 kB" in mine and "8 bits" not in others
    assert "16 kB freed" in _models("remove", NAME, "--precision", "int8").stdout
    assert [path.name.split("-")[1] for path in folder.iterdir()] == ["fp8"]
    assert json.loads(_models("remove", NAME, "--quantized", "--json").stdout)["freed_bytes"] == 14_000
    assert not list(folder.iterdir()) and "nothing to remove" in _models("remove", NAME, "--quantized").stdout
    for precision in ("int4", ""):
        assert "precision" in _one_sentence(_models("remove", NAME, "--precision", precision), 2)


def test_weights_in_8_bits_go_with_their_model(home, checkpoint_folder):
    """Of a directory of the user's own nothing is deleted but what Standin made of it."""
    _models("download", NAME, "--from-dir", checkpoint_folder)
    folder = _copies(home, int8=15_000)
    before = sorted(checkpoint_folder.rglob("*"))
    assert _models("remove", SPEECH).returncode == _models("remove", NAME, "--old").returncode == 0
    assert len(list(folder.iterdir())) == 1
    done = _models("remove", NAME)
    assert "left as it is" in done.stdout and "15 kB of its weights in 8 bits freed" in done.stdout
    assert not list(folder.iterdir()) and sorted(checkpoint_folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("download", "nope"), 2, "flashtalk-14b"),
        (("download", NAME, "--yes", "--mirror", "ftp://x"), 2, "https://host"),
        (("download", NAME, "--yes", "--offline"), 1, "nothing may be fetched offline"),
        (("verify", NAME), 1, "has not been downloaded"),
        (("download", NAME, "--from-dir", "/nowhere"), 1, "There is no directory /nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(home, arguments, status, words):
    assert words in _one_sentence(_models(*arguments), status)


def test_without_the_library_everything_but_downloading_works(home, speech, tmp_path):
    """The base install lacks huggingface_hub; a folder that cannot be imported stands in for that."""
    (tmp_path / "blocked" / "huggingface_hub").mkdir(parents=True)
    (tmp_path / "blocked" / "huggingface_hub" / "__init__.py").write_text("raise ImportError('not installed')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "blocked")}
    assert _models("list", env=environment).returncode == 0
    assert _models("download", SPEECH, "--from-dir", speech, env=environment).returncode == 0
    said = _one_sentence(_models("download", NAME, "--yes", env=environment))
    assert "huggingface_hub is not installed" in said and "standin[gpu]" in said


def test_a_checkpoint_of_ones_own_is_recorded_then_watched(home, checkpoint_folder):
    done = _models("download", NAME, "--from-dir", checkpoint_folder)
    assert done.returncode == 0, done.stderr
    assert f"It needs {SPEECH}, which is in {checkpoint_folder.parent / SPEECH}." in done.stdout
    assert "recorded for the next time" in _models("verify", NAME).stdout
    done = _models("verify", NAME)
    assert done.returncode == 0 and "unchanged" in done.stdout and done.stderr == ""
    content = bytearray((checkpoint_folder / "Wan2.1_VAE.pth").read_bytes())
    content[60] ^= 1
    (checkpoint_folder / "Wan2.1_VAE.pth").write_bytes(content)
    assert "Wan2.1_VAE.pth has changed" in _one_sentence(_models("verify", NAME))
    assert "Wan2.1_VAE.pth had changed" in _one_sentence(_models("path", NAME))
    assert _models("download", NAME, "--from-dir", checkpoint_folder).returncode == 0, "accepted as it is"
    assert _models("path", NAME).stdout.strip() == str(checkpoint_folder)


@pytest.fixture
def checkpoint_folder(tmp_path) -> Path:
    """The real checkpoint's layout with tiny files, the speech encoder beside it."""
    folder, speech = tmp_path / "have" / "SoulX-FlashTalk-14B", tmp_path / "have" / SPEECH
    for place in (folder / "google" / "umt5-xxl", speech):
        place.mkdir(parents=True)
    header = json.dumps({"head": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    weights = len(header).to_bytes(8, "little") + header + bytes(8)
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text('{"model_type": "i2v"}')
    (folder / "google" / "umt5-xxl" / "tokenizer.json").write_text("{}")
    (speech / "config.json").write_text('{"model_type": "wav2vec2"}')
    (speech / "preprocessor_config.json").write_text("{}")
    for path in (
        folder / "models_t5_umt5-xxl-enc-bf16.pth",
        folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
        folder / "Wan2.1_VAE.pth",
        speech / "pytorch_model.bin",
    ):
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("data.pkl", bytes(100))
    return folder
