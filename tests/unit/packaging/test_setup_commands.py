"""The commands as typed, the decision between window and demonstration, and the system's packages."""

import subprocess
import sys
from pathlib import Path

import pytest

BOOTSTRAP = Path(__file__).resolve().parents[3] / "packaging" / "bootstrap.py"


def bootstrap(*arguments: str, folder: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(BOOTSTRAP), *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ""}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("darwin", {}, True),
        ("darwin", {"SSH_CONNECTION": "a b c d"}, False),
        ("win32", {}, True),
    ],
)
def test_where_a_window_can_be_seen(setup_module, platform, variables, expected):
    assert setup_module("setup_commands").has_display(variables, platform) is expected


def test_help_from_another_folder(tmp_path):
    result = bootstrap("--help", folder=tmp_path)
    assert result.returncode == 0
    assert all(command in result.stdout for command in ("run", "test", "setup"))


@pytest.mark.parametrize("arguments", [(), ("walk",), ("run", "--fast")])
def test_wrong_usage(tmp_path, arguments):
    assert bootstrap(*arguments, folder=tmp_path).returncode == 2


def test_wrong_python_is_one_sentence(setup_module, monkeypatch, capsys):
    entry = setup_module("bootstrap")
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    monkeypatch.setattr(entry, "find_supported_python", lambda: None)
    assert entry.main() == 1
    assert "needs Python 3.10 to 3.13 and this is 3.9" in capsys.readouterr().err


def test_status_of_the_job_is_passed_on(setup_module):
    commands = setup_module("setup_commands")
    assert commands._call([sys.executable, "-c", "import sys; sys.exit(5)"]) == 5


@pytest.mark.parametrize(
    ("statuses", "runs", "expected"),
    [((0, 0), 2, 0), ((1, 0), 2, 1), ((0, 1), 2, 1), ((2, 0), 1, 2), ((0, 5), 2, 5), ((137, 0), 1, 137)],
)
def test_whole_suite_is_two_runs_and_one_status(setup_module, monkeypatch, statuses, runs, expected):
    commands, ran, left = setup_module("setup_commands"), [], list(statuses)
    monkeypatch.setattr(commands, "set_up", lambda **_: "python")
    monkeypatch.setattr(commands, "_call", lambda command, folder: ran.append(command) or left.pop(0))
    assert commands.test([]) == expected
    # What the first leaves out is what the second takes.
    assert [command[command.index("pytest") :][-1] for command in ran] == ["not serial", "serial"][:runs]


def test_arguments_go_to_pytest(setup_module, monkeypatch):
    commands, ran = setup_module("setup_commands"), []
    monkeypatch.setattr(commands, "set_up", lambda **_: "python")
    monkeypatch.setattr(commands, "_call", lambda command, folder: ran.append(command) or 0)
    assert commands.test(["tests/unit", "-k", "canvas"]) == 0
    assert ran == [["python", "-m", "pytest", "tests/unit", "-k", "canvas"]]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are another thing there")
def test_job_that_dies_of_a_signal(setup_module):
    died = setup_module("setup_commands")._call([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert died == 137


class TestSystemLibraries:
    @pytest.fixture
    def libraries(self, setup_module):
        return setup_module("system_libraries")

    def test_library_that_is_not_there(self, libraries):
        assert libraries._loads("libstandin-does-not-exist.so.7") is False

    @pytest.mark.skipif(sys.platform != "linux", reason="names are Linux's")
    def test_library_that_is_there(self, libraries):
        assert libraries._loads("libc.so.6") is True

    @pytest.mark.parametrize("manager", ["apt", "dnf", "pacman", "zypper"])
    def test_everything_has_a_name_in_every_distribution(self, libraries, manager):
        needs = (*libraries.SOUND, *libraries.WINDOW, *libraries.TESTS_LINUX, *libraries.TESTS_ANYWHERE, libraries.VENV)
        assert [need.name for need in needs if not need.packages.get(manager)] == []

    def test_ordinary_user_gets_the_one_command(self, libraries, setup_module, monkeypatch):
        absent = libraries.Need(name="libx.so", is_there=lambda: False, packages={"apt": "libx1"})
        monkeypatch.setattr(libraries, "_needs", lambda **_: (absent, absent))
        monkeypatch.setattr(libraries, "_manager", lambda: "apt")
        monkeypatch.setattr(libraries, "_is_root", lambda: False)
        with pytest.raises(setup_module("setup_report").SetupError) as caught:
            libraries.ensure(for_tests=False, for_window=True, for_new_environment=False)
        command = "sudo apt-get update && sudo apt-get install -y --no-install-recommends libx1\n"
        assert command in str(caught.value)

    def test_root_on_debian_has_it_installed(self, libraries, monkeypatch):
        installed = []
        absent = libraries.Need(name="libx.so", is_there=lambda: bool(installed), packages={"apt": "libx1"})
        monkeypatch.setattr(libraries, "_needs", lambda **_: (absent,))
        monkeypatch.setattr(libraries, "_manager", lambda: "apt")
        monkeypatch.setattr(libraries, "_may_install", lambda: True)
        monkeypatch.setattr(libraries, "_apt_install", installed.extend)
        libraries.ensure(for_tests=False, for_window=True, for_new_environment=False)
        assert installed == ["libx1"]

    def test_installing_that_does_not_help_is_told(self, libraries, setup_module, monkeypatch):
        absent = libraries.Need(name="libx.so", is_there=lambda: False, packages={"apt": "libx1"})
        monkeypatch.setattr(libraries, "_needs", lambda **_: (absent,))
        monkeypatch.setattr(libraries, "_install_or_name", lambda missing: None)
        with pytest.raises(setup_module("setup_report").SetupError, match=r"Still missing.*libx\.so"):
            libraries.ensure(for_tests=False, for_window=True, for_new_environment=False)
