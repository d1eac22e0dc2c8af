"""For every test: no display is needed, and numeric libraries leave the other cores alone.

With `-n` (pytest-xdist) a file's tests stay in one process, and so do all files that use groups of ranks: each process
would start groups of its own.
"""

import functools
import importlib.util
import os
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

# Read when the libraries are loaded, so they are set before any test module is.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Programs that tests start write their logs there (on Linux), and not among those of whoever works here.
_LOGS = f"standin-tests-{getattr(os, 'getuid', int)()}"
os.environ.setdefault("XDG_STATE_HOME", str(Path(tempfile.gettempdir()) / _LOGS))
# Without an NVIDIA GPU, Triton's kernels are tried in its interpreter.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")

# In the background of a shell Ctrl-C is ignored, and so it would be by all that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_ROOT = Path(__file__).resolve().parents[1]
_WITHOUT_CLOCK = (
    "model_store/",
    "test_command_line.py",
    "test_flashtalk_commands.py",
    "test_microphone_hotplug.py",
    "test_own_voice.py",
    "test_parallel_",
    "test_pipeline_manual_clock.py",
    "test_puppet_speaks.py",
    "test_slow_ranks.py",
    "test_torchrun.py",
    "test_window.py",
    "test_window_display.py",
    "test_window_use.py",
    "test_worker_",
)
"""Of tests/integration: what a busy computer makes slower but not wrong. All the rest there is marked `serial`."""
_WITH_RANKS = ("test_flashtalk_commands.py", "test_worker_")
"""Those that start ranks by way of a command or the engine."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    for item in items:
        path = item.path.as_posix().partition("/tests/integration/")[2]
        if path and not path.startswith(_WITHOUT_CLOCK):
            item.add_marker(pytest.mark.serial)
        elif not path and item.get_closest_marker("serial"):
            raise pytest.UsageError(f"{item.nodeid} would not be run: what is serial belongs into tests/integration.")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return _group_of(super()._split_scope(nodeid))

    # In the order of the folders, in which what takes long comes first; by itself it begins with the most tests.
    config.option.loadscopereorder = False
    return Scheduling(config, log)


@functools.cache
def _group_of(file: str) -> str:
    """Groups of ranks take every core that there is, so that whatever starts some comes one after the other."""
    has_ranks = "rank_pools" in (_ROOT / file).read_text(encoding="utf-8")
    return "ranks" if has_ranks or Path(file).name.startswith(_WITH_RANKS) else file


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real portraits and voices beside the checkout; they belong to other projects and are never committed."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the folder shared/data with real portraits and voices is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def astronaut():
    """A public-domain photograph of a smiling astronaut, RGB uint8 (512, 512, 3)."""
    data = pytest.importorskip("skimage.data", reason="scikit-image brings the photograph")
    return data.astronaut()


def load_module(path: Path):
    """The module in a file; tests are no packages, so they cannot import one another."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_fixture_module(name: str):
    """A module of tests/fixtures."""
    return load_module(Path(__file__).parent / "fixtures" / f"{name}.py")


@pytest.fixture(scope="session")
def fixture_module():
    """A function: the module of that name in tests/fixtures."""
    return functools.cache(load_fixture_module)


@pytest.fixture(scope="session")
def module_at():
    """A function: the module in a file, such as one whose functions ranks call, for one rank in this process."""
    return functools.cache(load_module)


class _Quiet:
    def update(self, stage, done, total, unit=""):
        """Nobody looks."""


@pytest.fixture(scope="session")
def quiet():
    """A `Progress` that nobody looks at."""
    return _Quiet()


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint in the published layout and its speech encoder, small and random; read only, please."""
    pytest.importorskip("torch", reason="the photographic generator needs torch")
    return load_fixture_module("tiny_checkpoint").write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def rank_pools(tmp_path_factory):
    """Groups of real rank processes by their size, started when first asked for, and anew after a failure."""
    pytest.importorskip("torch", reason="ranks are torch processes")
    pools = {}

    def pool_of(world: int):
        if world not in pools or pools[world].is_closed:
            pools[world] = load_fixture_module("rank_pool").RankPool(world, tmp_path_factory.mktemp(f"ranks{world}"))
        return pools[world]

    yield pool_of
    for pool in pools.values():
        pool.close()
