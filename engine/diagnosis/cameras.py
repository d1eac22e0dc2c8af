"""The virtual camera: every device with its trouble, and the exact reason where there is none.

The order of the questions on Linux is that of what can be missing: package, build, signature, load, device.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from engine.camera.linux_devices import lists_in_browsers, programs_using
from engine.diagnosis.catalogue import Catalogue, Finding
from engine.diagnosis.system import System
from engine.protocol.messages import CameraDevice, DevicesListed

LOAD = "sudo modprobe v4l2loopback exclusive_caps=1 card_label='Standin Camera'"
_PACKAGES = {
    "debian": "v4l2loopback-dkms", "fedora": "v4l2loopback", "arch": "v4l2loopback-dkms",
    "suse": "v4l2loopback-kmp-default",
}  # fmt: skip
_MODULE = "/sys/module/v4l2loopback"
_UBUNTU_KEY, _DKMS_KEY = "/var/lib/shim-signed/mok/MOK.der", "/var/lib/dkms/mok.pub"
_OBS_32_BIT = r"SOFTWARE\WOW6432Node\Classes\CLSID\{A3FCE0F5-3493-419F-958A-ABA1250EC20B}"
_REFUSED_KEY = "Key was rejected by service"
_NEW_KERNEL, _DRIVER_FOR_NEW = (6, 18), (0, 15, 3)


def cameras(system: System, texts: Catalogue, devices: DevicesListed) -> list[Finding]:
    """Devices that can be used, those that cannot, and why there is none."""
    ready = [camera for camera in devices.cameras if camera.problem is None or camera.device in system.own_cameras]
    findings = [texts.found("camera", "camera.good", label=c.label, device=c.device) for c in ready]
    for camera in devices.cameras:
        # PipeWire is a second way, which nobody has to have.
        if camera not in ready and camera.backend != "pipewire":
            findings.append(_problem(system, texts, camera, is_only_one=not ready))
    if system.is_linux:
        findings += _linux_driver(system, texts, devices, ready)
    elif system.platform == "win32" and ready and not system.has_registry_key(_OBS_32_BIT):
        findings.append(texts.found("camera", "camera.no_32bit"))
    return findings


def _problem(system: System, texts: Catalogue, camera: CameraDevice, *, is_only_one: bool) -> Finding:
    problem = camera.problem
    assert problem is not None
    programs = ""
    if problem.code == "camera.busy" and system.is_linux:
        programs = ", ".join(programs_using(system.linux, Path(camera.device)))
    code = problem.code if problem.code in texts.codes() else "camera.setup"
    state = texts.entry(code).state if is_only_one else "limited"
    values = {"device": camera.device, "label": camera.label, "programs": programs or "another program"}
    return texts.found("camera", code, state=state, load=LOAD, command=_command(code, camera.device), **values)


def _command(code: str, device: str) -> str:
    return {
        "camera.permission": "sudo usermod -aG video $USER",
        "camera.format_kept": f"sudo v4l2-ctl -d {device} -c keep_format=0",
        "camera.setup": f"sudo modprobe -r v4l2loopback && {LOAD}",
    }.get(code, "")


def _linux_driver(system: System, texts: Catalogue, devices: DevicesListed, ready: list[CameraDevice]) -> list[Finding]:
    reload = f"sudo modprobe -r v4l2loopback && {LOAD}"
    findings = []
    if all(camera.backend == "pipewire" for camera in devices.cameras):
        why = _why_none(system, texts)
        return [replace(why, state="limited") if ready else why]
    for camera in ready:
        if camera.backend == "v4l2" and not lists_in_browsers(camera.device, system.linux):
            found = texts.found("camera", "camera.no_exclusive_caps", device=camera.device, load=LOAD, command=reload)
            findings.append(found)
    version = system.read(f"{_MODULE}/version") or ""
    if version.startswith("0.12"):
        findings.append(texts.found("camera", "camera.reopen_bug", version=version))
    return findings


def _why_none(system: System, texts: Catalogue) -> Finding:
    if system.exists(_MODULE):
        command = f"sudo modprobe -r v4l2loopback && {LOAD}"
        return texts.found("camera", "camera.no_device", load=LOAD, command=command)
    if not system.run(["modinfo", "v4l2loopback"]).is_good:
        return _why_no_module(system, texts)
    if _is_blocked(system):
        key = _UBUNTU_KEY if system.exists(_UBUNTU_KEY) else _DKMS_KEY
        command = f"sudo mokutil --import {key}"
        return texts.found("camera", "camera.secure_boot", key=key, command=command)
    return texts.found("camera", "camera.not_loaded", load=LOAD, command=LOAD)


def _why_no_module(system: System, texts: Catalogue) -> Finding:
    if system.exists("/.dockerenv") or system.exists("/run/.containerenv"):
        return texts.found("camera", "camera.container")
    version = _source_version(system)
    if version is None:
        command = system.install_command(_PACKAGES)
        code = "camera.no_driver_fedora" if system.distribution == "fedora" else "camera.no_driver"
        return texts.found("camera", code, command=command, load=LOAD)
    kernel = system.kernel
    if version and _numbers(kernel)[:2] >= _NEW_KERNEL and _numbers(version) < _DRIVER_FOR_NEW:
        return texts.found("camera", "camera.too_old", version=version, kernel=kernel)
    command = "sudo dkms autoinstall"
    return texts.found("camera", "camera.not_built", kernel=kernel, load=LOAD, command=command)


def _source_version(system: System) -> str | None:
    """Of the driver's source that dkms would build; None if there is none."""
    for name in system.list_folder("/usr/src"):
        if name.startswith("v4l2loopback-"):
            return name.partition("-")[2]
    status = system.run(["dkms", "status", "v4l2loopback"])
    found = re.search(r"v4l2loopback[/, ]+([0-9.]+)", status.output) if status.is_good else None
    return found[1] if found is not None else None


def _is_blocked(system: System) -> bool:
    """Secure Boot is on, and the driver bears no signature or has been refused already."""
    if "SecureBoot enabled" not in system.run(["mokutil", "--sb-state"]).output:
        return False
    if not system.run(["modinfo", "-F", "signer", "v4l2loopback"]).output.strip():
        return True
    log = system.run(["journalctl", "-k", "-b", "--no-pager", "-g", "v4l2loopback|rejected"])
    return _REFUSED_KEY in log.output or "module verification failed" in log.output


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
