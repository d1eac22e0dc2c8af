"""Who may import whom, and that importing does nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

QUIET_IMPORT = """
import importlib, pathlib, sys, threading
before = threading.active_count()
root = pathlib.Path(sys.argv[1])
names = sorted(
    ".".join(path.relative_to(root).with_suffix("").parts)
    for path in (root / "engine").rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py", "lockstep.py", "supervisor.py")
    and not {"flashtalk", "parallel"} & set(path.parts)
)
for name in names:
    importlib.import_module(name)
heavy = sorted({module.split(".")[0] for module in sys.modules} & {"torch", "PySide6", "transformers", "app"})
print(len(names), threading.active_count() - before, "sounddevice" in sys.modules, heavy)
"""


def test_contracts_are_kept():
    """The contracts of pyproject.toml, which see imports inside functions too."""
    result = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as main; main()", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def test_the_engine_loads_neither_torch_nor_qt_and_starts_nothing(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", QUIET_IMPORT, str(ROOT)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    count, threads, sound_library, heavy = result.stdout.strip().split(" ", 3)
    assert int(count) > 20
    assert threads == "0"
    assert sound_library == "False", "sounddevice looks for devices when it is imported: do that inside functions"
    assert heavy == "[]"
    assert list(tmp_path.iterdir()) == []


def test_the_protocol_is_standard_library_only_but_for_its_codec():
    """The window imports it before anything is on the screen."""
    probe = (
        "import sys, engine.protocol.messages; "
        "print(sorted({'numpy', 'cv2', 'av', 'sounddevice', 'PySide6', 'torch'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]", result.stderr


def test_the_folder_packaging_does_not_shadow_the_library_of_that_name():
    assert not (ROOT / "packaging" / "__init__.py").exists()
    probe = "import packaging.version, packaging; print(packaging.__file__)"
    result = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "site-packages" in result.stdout, result.stderr


@pytest.mark.parametrize("package", ["app", "engine"])
def test_package_files_are_empty(package):
    filled = [str(path) for path in (ROOT / package).rglob("__init__.py") if path.read_text(encoding="utf-8").strip()]
    assert filled == []
