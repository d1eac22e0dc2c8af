"""Runs the tests that need a real camera, on a computer that has none.

    python3 tests/camera_vm/run.py [--build] [--machine FOLDER] [--figures FILE] [PYTEST ARGUMENTS]

Builds the small machine (build.sh: once, some minutes; kept in the user's cache folder), boots it with each version of
the camera driver and runs the tests of this folder in it. It needs the environment that `bootstrap.py test` sets up.
Chromium and the whole product take longest and run with one driver each; STANDIN_CAMERA_VM_ALL=1 runs all with both.
Where the machine cannot be built it says why and ends with status 0; a test that fails ends it with 1.
Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PYTHON = ROOT / ".venv" / "bin" / "python"
BUILD_INPUTS = ("build.sh", "kernel.config")
BUILD_TIMEOUT_S = 1500
BOOT_TIMEOUT_S = 1500
MEMORY_MB = 2560
CAMERAS = (
    "devices=3",
    "video_nr=0,2,4",
    'card_label="Standin Camera,Second Camera,Plain Camera"',
    "exclusive_caps=1,1,0",
)
"""Two cameras that browsers list and one that they do not."""

PROGRAMS = {
    "insmod": "kmod",
    "ip": "iproute2",
    "v4l2-ctl": "v4l-utils",
    "ffmpeg": "ffmpeg",
}
"""What the tests run, and the Debian package that brings it."""

BUILD_PACKAGES = ("flex", "bison", "bc", "make", "gcc", "xz-utils", "libc6-dev", "libelf-dev")
"""What build.sh would install by itself."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class CannotRun(Exception):
    """Why the tests cannot run on this computer."""


def main() -> int:
    """Build if needed, then one boot for each driver; the exit status."""
    parser = argparse.ArgumentParser(description="Run the tests that need a real camera.")
    parser.add_argument("--build", action="store_true", help="only see that everything is there that the tests need")
    parser.add_argument("--machine", type=Path, help="a folder that build.sh made")
    parser.add_argument("--figures", type=Path, help="keep the measured figures there, one JSON object a line")
    arguments, for_pytest = parser.parse_known_args()
    try:
        check_computer()
        machine = arguments.machine or cache_folder() / build_key()
        install_programs(needs_build=not is_built(machine))
        build(machine)
        check_starts(machine)
    except CannotRun as reason:
        say(f"skipped: {reason}")
        return 0
    if arguments.build:
        return 0
    drivers = sorted(machine.glob("v4l2loopback-*.ko"))
    statuses = [run_in(machine, driver, for_pytest, arguments.figures) for driver in drivers]
    return 1 if any(statuses) or not statuses else 0


def check_computer() -> None:
    """Raise `CannotRun` for a computer on which there is no point in trying."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise CannotRun("the small machine runs on Linux on x86-64 only")
    if os.geteuid() != 0:
        raise CannotRun("it reads and gives away devices, for which it must be root")
    if not PYTHON.exists():
        raise CannotRun("there is no environment yet: python3 packaging/bootstrap.py setup --test")


def install_programs(*, needs_build: bool) -> None:
    """Whatever is missing, through apt in one go; without Chromium where that fails: its test skips then."""
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing or needs_build:
        need_apt()
    wanted = [*missing, *(BUILD_PACKAGES if needs_build else ())]
    if not any(shutil.which(name) for name in BROWSERS) and shutil.which("apt-get"):
        say("installing Chromium and what else is missing")
        reason = apt_install([*wanted, "chromium"])
        if not reason:
            return
        say(f"going on without Chromium: {reason}")
    if wanted:
        reason = apt_install(wanted)
        if reason:
            raise CannotRun(f"apt could not install {', '.join(wanted)}: {reason}")


def apt_install(packages: list[str]) -> str:
    """Install them; why not, if it failed."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq"]
    for command in ([*apt, "update"], [*apt, "install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            return last_line(done.stdout.decode(errors="replace"))
    return ""


def need_apt() -> None:
    if shutil.which("apt-get") is None or not any(Path("/usr/share/keyrings").glob("debian-archive-keyring.*")):
        raise CannotRun("it is built from Debian's packages, and this is no Debian")


def is_built(folder: Path) -> bool:
    """Whether build.sh has finished there."""
    return (folder / "complete").exists()


def build(folder: Path) -> None:
    """Make the machine in `folder`, if it is not there yet."""
    if is_built(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    say(f"building the small machine, once, in {folder}")
    started_s = time.monotonic()
    with only_one(folder):
        try:
            done = subprocess.run(
                ["bash", str(HERE / "build.sh"), str(folder)], stdin=subprocess.DEVNULL, timeout=BUILD_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise CannotRun(f"the machine was not built within {BUILD_TIMEOUT_S // 60} minutes") from error
    if done.returncode:
        raise CannotRun("the machine could not be built (its messages are above)")
    say(f"built in {time.monotonic() - started_s:.0f} s")


def check_starts(machine: Path) -> None:
    """Raise `CannotRun` where such a kernel cannot run at all (a container that forbids ptrace, say). With `true` as
    its first process it starts, has nothing to do, and says so."""
    command = ["linux", "mem=64M", "rootfstype=hostfs", "ro", "init=/bin/true", "con=null", "con0=null,fd:1"]
    try:
        done = subprocess.run(
            ["bash", "-c", 'ulimit -c 0; exec "$0" "$@"', str(machine / command[0]), *command[1:]],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise CannotRun("a User Mode Linux hangs here") from error
    if b"Attempted to kill init" not in done.stdout:
        said = last_line(done.stdout.decode(errors="replace"))
        raise CannotRun(f"a User Mode Linux does not start here: {said}")


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "standin" / "camera_vm"


def build_key() -> str:
    """Changes with whatever goes into the build."""
    digest = hashlib.sha256()
    for name in BUILD_INPUTS:
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def only_one(folder: Path):
    """A second build of the same machine waits for the first, and then finds it complete."""
    import fcntl  # Linux only, which has been checked by now

    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run_in(machine: Path, driver: Path, for_pytest: list[str], figures: Path | None) -> int:
    """The tests with one driver; pytest's exit status."""
    version = driver.stem.partition("-")[2]
    say(f"the tests with v4l2loopback {version}")
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="standin-camera-vm-") as out:
        job = Path(out) / "job.sh"
        job.write_text(job_script(version, driver, for_pytest), encoding="utf-8")
        with host_times_in(Path(out)):
            status = subprocess.call(
                ["bash", str(HERE / "boot.sh"), str(machine), str(driver), str(job), out, *CAMERAS],
                env={**os.environ, "CAMERA_VM_MEMORY_MB": str(MEMORY_MB), "CAMERA_VM_TIMEOUT_S": str(BOOT_TIMEOUT_S)},
            )
        keep_figures(Path(out) / "figures.jsonl", figures)
    say(f"v4l2loopback {version}: status {status} after {time.monotonic() - started_s:.0f} s")
    return status


@contextlib.contextmanager
def host_times_in(folder: Path):
    """Adds a line to `folder`/host_times twice a second: idle and all seconds of this computer's cores."""
    is_over = threading.Event()
    written: list[str] = []

    def write() -> None:
        while not is_over.wait(0.5):
            times = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
            written.append(f"{times[3] / 100} {sum(times) / 100}\n")
            draft = folder / "host_times.new"  # a reader inside never sees half a line
            draft.write_text("".join(written))
            draft.replace(folder / "host_times")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        is_over.set()
        writer.join()


def job_script(version: str, driver: Path, for_pytest: list[str]) -> str:
    """What the small machine runs. One core: libraries that start a thread for each would only wait for each other. The
    time limit is for the test's own function, and so for each attempt (run_again.py)."""
    settings = {
        "STANDIN_CAMERA_VM": version,
        "STANDIN_CAMERA_KO": str(driver),
        "STANDIN_CAMERA_VM_ALL": os.environ.get("STANDIN_CAMERA_VM_ALL", ""),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "LANG": "C.UTF-8",
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
    }
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    options = ["-p", "no:cacheprovider", "-o", "timeout_func_only=true", "--color=no", "--tb=short", "--durations=5"]
    options += for_pytest or ["-q"]
    command = " ".join(shlex.quote(word) for word in [str(PYTHON), "-m", "pytest", *options, str(HERE)])
    return f"export {exports}\ncd {shlex.quote(str(ROOT))}\nexec {command}\n"


def keep_figures(written: Path, figures: Path | None) -> None:
    if figures is None or not written.exists():
        return
    text = written.read_text(encoding="utf-8")
    for line in text.splitlines():
        json.loads(line)
    with open(figures, "a", encoding="utf-8") as file:
        file.write(text)


def last_line(output: str) -> str:
    lines = output.strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def say(line: str) -> None:
    print(f"camera machine: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
