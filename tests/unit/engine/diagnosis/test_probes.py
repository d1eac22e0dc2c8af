"""Every cause in the catalogue, produced by the answers that mean it, and by nothing else."""

from __future__ import annotations

import hashlib
import os
from types import SimpleNamespace

import pytest

from engine.audio.pulse_modules import owner_of
from engine.diagnosis import cameras, software, sound
from engine.diagnosis.catalogue import Catalogue
from engine.diagnosis.system import Ran, read_text
from engine.errors import DeviceError, MicrophoneError
from engine.generators.puppet import models as face_models
from engine.model_store import store
from engine.protocol.messages import CameraDevice, Reason

SAID_ELSEWHERE = {"doctor.timeout", "doctor.failed"}
"""By `engine.doctor` itself."""


def _raise(error):
    raise error


def _audio(code):
    return Reason(code=code, message="The sound library did not answer.", hint="x")


def _cameras(code, device="/dev/video42", label="Standin Camera", backend="v4l2"):
    return [CameraDevice(device=device, label=label, backend=backend, problem=Reason(code=code, message="It is so."))]


def _owned(c, *, is_running):
    """The server holds a virtual microphone of this process, which runs or has ended since."""
    files = {"/proc/sys/kernel/random/boot_id": "abcdef0123"}
    process = f"/proc/{os.getpid()}/stat"
    owner = owner_of(os.getpid(), (files | {process: _stat(started=77)}).get)
    if is_running:
        files[process] = _stat(started=77)
    c.files |= files
    line = f'9\tmodule-null-sink\tsink_properties="standin.owner={owner} x"\n'
    c.commands["pactl list"] = Ran(status=0, output=line)


def _stat(started):
    return f"1 (a) b) S {'0 ' * 18}{started} 0"


def _no_cameras(c):
    c.listed(cameras=[])
    c.there.discard("/sys/module/v4l2loopback")


def _no_module(c):
    _no_cameras(c)
    c.commands["modinfo v4l2loopback"] = Ran(status=1, output="modinfo: ERROR: Module v4l2loopback not found.")


def _unbuilt(c, version="0.15.3", kernel="6.12.1"):
    _no_module(c)
    c.sources = [f"v4l2loopback-{version}"]
    c.but(kernel=kernel)


def _secure_boot(c, key=""):
    _no_cameras(c)
    c.commands["mokutil --sb-state"] = Ran(status=0, output="SecureBoot enabled\n")
    c.commands["modinfo -F"] = Ran(status=0, output="\n")
    c.there |= {key}


def _no_caps(c):
    parameters = c.system.linux.sys / "module" / "v4l2loopback" / "parameters"
    parameters.mkdir(parents=True)
    (parameters / "exclusive_caps").write_text("N")
    (parameters / "video_nr").write_text("42")


LINUX = [
    ("python.good", lambda c: None),
    ("python.unsupported", lambda c: c.but(python=(3, 15, 0))),
    ("package.missing", lambda c: c.but(has_package=lambda name: name != "soxr")),
    ("package.opencv_twice", lambda c: c.but(package_version=lambda name: "5.0")),
    ("window.good", lambda c: None),
    ("window.no_qt", lambda c: c.but(has_package=lambda name: name != "PySide6")),
    ("window.no_display", lambda c: c.but(environment={})),
    ("microphone.heard", lambda c: None),
    ("microphone.none", lambda c: c.listed(microphones=[])),
    ("microphone.none", lambda c: (c.listed(microphones=[]), c.commands.update({"pactl info": Ran(status=None)}))),
    ("audio.no_server", lambda c: (c.listed(microphones=[]), c.commands.update({"pactl info": Ran(status=1)}))),
    ("audio.no_portaudio", lambda c: c.listed(microphones=[], audio_reason=_audio("audio.no_portaudio"))),
    ("audio.hangs", lambda c: c.listed(microphones=[], audio_reason=_audio("audio.hangs"))),
    ("microphone.failed", lambda c: c.listed(microphones=[], audio_reason=_audio("device"))),
    ("microphone.all_zero", lambda c: c.but(listen=lambda: float("-inf"))),
    ("microphone.no_sound", lambda c: c.but(listen=lambda: None)),
    ("microphone.busy", lambda c: c.but(listen=lambda: _raise(MicrophoneError("x", code="microphone.busy")))),
    ("microphone.permission", lambda c: c.but(listen=lambda: _raise(DeviceError("x", code="microphone.permission")))),
    ("microphone.failed", lambda c: c.but(listen=lambda: _raise(MicrophoneError("x", code="microphone.rate")))),
    ("voice_out.good", lambda c: None),
    ("voice_out.none", lambda c: c.listed(voice_outs=[])),
    ("virtual_microphone.good", lambda c: None),
    ("virtual_microphone.no_tools", lambda c: c.commands.update({"pactl list": Ran(status=None)})),
    ("virtual_microphone.no_server", lambda c: c.commands.update({"pactl list": Ran(status=1)})),
    ("virtual_microphone.stale", lambda c: _owned(c, is_running=False)),
    ("virtual_microphone.good", lambda c: _owned(c, is_running=True)),
    ("camera.good", lambda c: None),
    ("camera.no_exclusive_caps", _no_caps),
    ("camera.reopen_bug", lambda c: c.files.update({"/sys/module/v4l2loopback/version": "0.12.7"})),
    ("camera.permission", lambda c: c.listed(cameras=_cameras("camera.permission"))),
    ("camera.busy", lambda c: c.listed(cameras=_cameras("camera.busy"))),
    ("camera.no_output", lambda c: c.listed(cameras=_cameras("camera.no_output"))),
    ("camera.format_kept", lambda c: c.listed(cameras=_cameras("camera.format_kept"))),
    ("camera.setup", lambda c: c.listed(cameras=_cameras("camera.something_new"))),
    ("camera.no_device", lambda c: c.listed(cameras=[])),
    ("camera.not_loaded", _no_cameras),
    ("camera.secure_boot", _secure_boot),
    ("camera.no_driver", _no_module),
    ("camera.no_driver_fedora", lambda c: (_no_module(c), c.files.update({"/etc/os-release": "ID=fedora"}))),
    ("camera.container", lambda c: (_no_module(c), c.there.add("/.dockerenv"))),
    ("camera.not_built", _unbuilt),
    ("camera.not_built", lambda c: _unbuilt(c, "0.12.7", "6.1.0-30-amd64")),
    ("camera.too_old", lambda c: _unbuilt(c, "0.15.2", "6.18.1-generic")),
    ("camera.not_built", lambda c: (_no_module(c), c.commands.update({"dkms status": Ran(
        status=0, output="v4l2loopback/0.15.3: added\n")}))),
    ("samples.good", lambda c: None),
    ("samples.missing", lambda c: c.but(exists=lambda path: False)),
    ("recording.good", lambda c: None),
    ("recording.no_codec", lambda c: c.patch.setattr(software, "_has_codec", lambda name: name != "aac")),
    ("recording.no_folder", lambda c: c.but(exists=lambda path: "index.json" in path)),
    ("recording.not_writable", lambda c: c.but(is_writable=lambda path: path.name != c.clips.name)),
    ("disk.good", lambda c: None),
    ("disk.low", lambda c: c.but(free_bytes=lambda path: 100 << 20)),
    ("data.not_writable", lambda c: c.but(is_writable=lambda path: False)),
    ("priority.good", lambda c: None),
    ("priority.shared", lambda c: c.but(has_real_time=lambda: False)),
    ("memory.no_shared", lambda c: c.but(exists=lambda path: path != "/dev/shm")),
    ("memory.small_shared", lambda c: c.but(free_bytes=lambda path: 8 << 20)),
]  # fmt: skip
WINDOWS = [
    ("camera.good", lambda c: None),
    ("camera.no_driver", lambda c: c.listed(cameras=_cameras("camera.no_driver", "OBS Virtual Camera"))),
    ("camera.busy", lambda c: c.listed(cameras=_cameras("camera.busy", "OBS Virtual Camera"))),
    ("camera.no_32bit", lambda c: c.but(has_registry_key=lambda key: "WOW6432Node" not in key)),
    ("virtual_microphone.good", lambda c: None),
    ("virtual_microphone.no_cable", lambda c: c.listed(voice_outs=c.devices.voice_outs[:1])),
    ("microphone.none", lambda c: c.listed(microphones=[])),
    ("microphone.all_zero", lambda c: c.but(listen=lambda: float("-inf"))),
]
MACOS = [
    ("camera.good", lambda c: None),
    ("camera.no_driver", lambda c: c.listed(cameras=_cameras("camera.no_driver", "OBS Virtual Camera"))),
    ("camera.not_allowed", lambda c: c.listed(cameras=_cameras("camera.not_allowed", "OBS Virtual Camera"))),
    ("camera.not_loaded", lambda c: c.listed(cameras=_cameras("camera.not_loaded", "OBS Virtual Camera"))),
    ("virtual_microphone.good", lambda c: None),
    ("virtual_microphone.no_cable", lambda c: c.listed(voice_outs=c.devices.voice_outs[:1])),
    ("audio.no_portaudio", lambda c: c.listed(microphones=[], audio_reason=_audio("audio.no_portaudio"))),
    ("microphone.all_zero", lambda c: c.but(listen=lambda: float("-inf"))),
]
OF_FILES = {"face_models.good", "face_models.missing", "face_models.damaged", "models.partial", "models.damaged"}
"""Tested with files, below."""


def _examined(c):
    texts = Catalogue(c.platform)
    found = [*software.python(c.system, texts), *software.window(c.system, texts), *software.samples(c.system, texts)]
    found += [*software.recording(c.system, texts), *software.disk(c.system, texts)]
    found += [*software.shared_memory(c.system, texts), *software.priority(c.system, texts)]
    for probe in (sound.microphones, sound.outputs, sound.virtual_microphone, cameras.cameras):
        found += probe(c.system, texts, c.devices)
    return found


@pytest.fixture
def broken(computer, monkeypatch, tmp_path):
    """From a platform and what is wrong to the findings."""
    clips = tmp_path / "Videos"
    clips.mkdir()
    monkeypatch.setattr(software, "recordings_folder", lambda: clips)

    def make(platform, spoil):
        c = computer(platform)
        c.patch, c.clips = monkeypatch, clips
        spoil(c)
        return _examined(c)

    return make


CASES = [(p, code, spoil) for p, cases in (("linux", LINUX), ("win32", WINDOWS), ("darwin", MACOS)) for code, spoil in cases]  # fmt: skip  # noqa: E501


@pytest.mark.parametrize(("platform", "code", "spoil"), CASES, ids=[f"{p}-{code}" for p, code, _ in CASES])
def test_each_cause_is_named(broken, platform, code, spoil):
    findings = broken(platform, spoil)
    entry = Catalogue(platform).entry(code)
    if entry.state == "good":
        titles = [finding.title for finding in findings if finding.state == "good"]
        assert entry.title in titles
    else:
        (finding,) = [finding for finding in findings if finding.code == code]
        assert finding.state in ("limited", "bad") and finding.title and finding.hint
    for finding in findings:
        assert "{" not in finding.message + finding.hint + finding.command
        assert "?" not in finding.message + finding.hint, "every placeholder has its value"


@pytest.mark.parametrize("platform", ["linux", "win32", "darwin"])
def test_good_computer_has_nothing_else(broken, platform):
    assert {finding.state for finding in broken(platform, lambda c: None)} == {"good"}


def test_every_entry_of_the_catalogue_is_found_by_something():
    tested = {(p, code) for p, code, _ in CASES}
    for platform in ("linux", "win32", "darwin"):
        special = {key for key in Catalogue(platform)._texts if key.endswith(f"@{platform}")}
        for key in special:
            assert (platform, key.partition("@")[0]) in tested, key
    covered = {code for _, code in tested} | SAID_ELSEWHERE | OF_FILES | {"virtual_microphone.no_cable"}
    assert {key for key in Catalogue("linux")._texts if "@" not in key} <= covered


def test_virtual_microphone_that_is_in_use_is_not_left_behind(computer):
    """The owner is what this very process writes, and its process is real."""
    c = computer()
    line = f'9\tmodule-null-sink\tsink_properties="standin.owner={owner_of(os.getpid())} x"\n'
    c.commands["pactl list"] = Ran(status=0, output=line)
    c.but(read=read_text)
    (finding,) = sound.virtual_microphone(c.system, Catalogue("linux"), c.devices)
    assert finding.state == "good"


def test_one_camera_that_works_makes_the_trouble_of_others_smaller(broken):
    findings = broken("linux", lambda c: c.listed(cameras=[*c.devices.cameras, *_cameras("camera.permission", "/dev/video43")]))  # fmt: skip  # noqa: E501
    (other,) = [finding for finding in findings if finding.code == "camera.permission"]
    assert other.state == "limited" and "/dev/video43" in other.message and other.command.startswith("sudo usermod")


def test_camera_that_we_feed_ourselves_is_good(broken):
    def spoil(c):
        c.listed(cameras=_cameras("camera.busy"))
        c.but(own_cameras=frozenset({"/dev/video42", "Standin Camera"}))

    assert [f.state for f in broken("linux", spoil) if f.name == "camera"] == ["good"]


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ("ID=ubuntu\nID_LIKE=debian\n", "sudo apt install v4l2loopback-dkms"),
        ('ID="fedora"\n', "sudo dnf install v4l2loopback"),
        ("ID=manjaro\nID_LIKE=arch\n", "sudo pacman -S v4l2loopback-dkms"),
        ('ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "sudo zypper install v4l2loopback-kmp-default"),
        (None, "sudo apt install v4l2loopback-dkms"),
    ],
)
def test_commands_are_those_of_the_distribution(broken, release, command):
    findings = broken("linux", lambda c: (_no_module(c), c.files.update({"/etc/os-release": release})))
    (camera,) = [finding for finding in findings if finding.code.startswith("camera.no_driver")]
    assert camera.command == command and command in camera.hint and "sudo modprobe v4l2loopback" in camera.hint


@pytest.mark.parametrize(
    ("spoil", "key"),
    [
        (_secure_boot, "/var/lib/dkms/mok.pub"),
        (lambda c: _secure_boot(c, "/var/lib/shim-signed/mok/MOK.der"), "/var/lib/shim-signed/mok/MOK.der"),
    ],
)
def test_secure_boot_names_the_key_of_the_distribution(broken, spoil, key):
    (camera,) = [f for f in broken("linux", spoil) if f.name == "camera"]
    assert camera.command == f"sudo mokutil --import {key}"


def test_signed_driver_that_was_refused_is_secure_boot_and_one_that_was_not_is_only_not_loaded(broken):
    def signed(c, log):
        _secure_boot(c)
        c.commands["modinfo -F"] = Ran(status=0, output="DKMS module signing key\n")
        c.commands["journalctl -k"] = Ran(status=0, output=log)

    refused = "kernel: Loading of module with unavailable key is rejected\nmodprobe: Key was rejected by service\n"
    assert [f.code for f in broken("linux", lambda c: signed(c, refused)) if f.name == "camera"] == ["camera.secure_boot"]  # fmt: skip  # noqa: E501
    assert [f.code for f in broken("linux", lambda c: signed(c, "")) if f.name == "camera"] == ["camera.not_loaded"]


def test_face_models_are_there_missing_or_damaged(computer, tmp_path, monkeypatch):
    texts, system = Catalogue("linux"), computer().system
    (missing,) = software.face_models(system, texts, tmp_path)
    assert missing.code == "face_models.missing" and "3 of three" in missing.message
    data = {model.name: model.name.encode() for model in face_models.FACE_MODELS}
    for model in face_models.FACE_MODELS:
        (tmp_path / model.name).write_bytes(data[model.name])
    (damaged,) = software.face_models(system, texts, tmp_path)
    assert damaged.code == "face_models.damaged" and "face_landmark.tflite" in damaged.message
    good = tuple(
        face_models.FaceModelFile(
            name=m.name, wheel_path=m.wheel_path, size_bytes=1, sha256=hashlib.sha256(data[m.name]).hexdigest()
        )
        for m in face_models.FACE_MODELS
    )
    monkeypatch.setattr(face_models, "FACE_MODELS", good)
    assert [f.state for f in software.face_models(system, texts, tmp_path)] == ["good"]


@pytest.mark.parametrize(("status", "code"), [("partial", "models.partial"), ("damaged", "models.damaged"), ("absent", None)])  # fmt: skip  # noqa: E501
def test_models_that_were_begun(computer, monkeypatch, status, code):
    state = SimpleNamespace(name="flashtalk", status=status, problems=("A file is short.",))
    monkeypatch.setattr(store.ModelStore, "states", lambda self: [state])
    findings = software.models(computer().system, Catalogue("linux"))
    assert [f.code for f in findings] == ([code] if code else [])
