"""The environment: brought up to date once, left alone afterwards, mended after an interruption. pip is replaced by
a recorder: what pip itself does is tried by every run of the set-up."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def environment(setup_module):
    return setup_module("python_environment")


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "a folder"
    root.mkdir()
    (root / "pyproject.toml").write_text("[project]\nname = 'x'\n", encoding="utf-8")
    return root


@pytest.fixture
def pip_calls(environment, monkeypatch):
    calls = []
    monkeypatch.setattr(environment, "_pip_install", lambda folder, *what: calls.append(what))
    return calls


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """An environment as Python makes it, which takes seconds."""
    folder = tmp_path_factory.mktemp("fresh") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder


@pytest.fixture
def project_with_environment(project, fresh):
    """A copy of `fresh` lies in it, which nothing has been installed into."""
    shutil.copytree(fresh, project / ".venv", symlinks=True)
    return project


def test_first_run_installs_and_second_does_nothing(environment, project, pip_calls):
    python = environment.ensure(project, for_tests=False)
    assert environment.is_whole(python)
    assert pip_calls == [("--editable", f"{project}[gui]")]
    assert environment.ensure(project, for_tests=False) == python
    assert len(pip_calls) == 1


def test_tests_bring_the_pinned_torch_first(environment, project_with_environment, pip_calls):
    project = project_with_environment
    environment.ensure(project, for_tests=True)
    torch, ours, noise = pip_calls
    assert (torch, ours) == (("torch==2.13.0",), ("--editable", f"{project}[gpu,gui,test]"))
    assert noise == ("--no-deps", "--only-binary=:all:", "pyrnnoise==0.4.5"), "only the library in it is used"
    environment.ensure(project, for_tests=False)
    assert len(pip_calls) == 3, "an environment for tests also runs the program"


def test_noise_suppression_that_a_system_lacks_is_left_out(environment, project_with_environment, monkeypatch, capsys):
    def refuse(folder, *what):
        if "--no-deps" in what:
            raise environment.SetupError("There is none.")

    monkeypatch.setattr(environment, "_pip_install", refuse)
    python = environment.ensure(project_with_environment, for_tests=True)
    assert "pyrnnoise==0.4.5 is left out" in "".join(capsys.readouterr())
    assert environment.is_whole(python) and (project_with_environment / ".venv" / "standin-setup.json").is_file()


def test_changed_dependencies_are_installed(environment, project_with_environment, pip_calls):
    project = project_with_environment
    environment.ensure(project, for_tests=False)
    (project / "pyproject.toml").write_text("[project]\nname = 'y'\n", encoding="utf-8")
    environment.ensure(project, for_tests=False)
    assert len(pip_calls) == 2


def test_interrupted_installation_is_done_again(environment, project_with_environment, pip_calls, monkeypatch):
    project = project_with_environment

    def interrupt(folder, *what):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(environment, "_pip_install", interrupt)
        with pytest.raises(KeyboardInterrupt):
            environment.ensure(project, for_tests=False)
    environment.ensure(project, for_tests=False)
    assert len(pip_calls) == 1


@pytest.mark.parametrize("damage", ["no interpreter", "only a folder"])
def test_half_made_environment_is_mended(environment, project, fresh, pip_calls, damage):
    python = environment.venv_python(project / ".venv")
    if damage == "no interpreter":
        shutil.copytree(fresh, project / ".venv", symlinks=True)
        environment.ensure(project, for_tests=False)
        python.unlink()
    else:
        (project / ".venv").mkdir()
    assert not environment.is_whole(python)
    environment.ensure(project, for_tests=False)
    assert environment.is_whole(python)


def test_settings_that_would_send_packages_elsewhere_are_dropped(environment, monkeypatch):
    monkeypatch.setenv("PIP_TARGET", "/elsewhere")
    monkeypatch.setenv("PIP_PROXY", "kept")
    settings = environment.pip_environment()
    assert "PIP_TARGET" not in settings
    assert settings["PIP_PROXY"] == "kept"


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("Retrying ... NewConnectionError('...: Failed to establish a new connection')", "out of reach"),
        ("ERROR: Could not find a version that satisfies hatchling (from versions: none)", "out of reach"),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("error: metadata-generation-failed", "pip could not install"),
    ],
)
def test_what_pip_said_becomes_a_sentence(environment, output, words):
    assert words in str(environment.explain_pip(output, Path("x.log")))


def test_layout_of_this_system(environment):
    python = environment.venv_python(Path("v"))
    assert python == (Path("v/Scripts/python.exe") if os.name == "nt" else Path("v/bin/python"))
