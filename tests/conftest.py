"""For every test: no display is needed, and numeric libraries leave the other cores alone."""

import importlib.util
import os
from pathlib import Path

import pytest

# Read when the libraries are loaded, so they are set before any test module is.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")


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


def load_fixture_module(name: str):
    """A module of tests/fixtures; tests are no packages, so they cannot import one another."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "fixtures" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> tuple[Path, Path]:
    """A checkpoint in the published layout and its speech encoder, small and random; read only, please."""
    pytest.importorskip("torch", reason="the photographic generator needs torch")
    return load_fixture_module("tiny_checkpoint").write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def rank_pools(tmp_path_factory):
    """Groups of real rank processes by their size, started when first asked for."""
    pytest.importorskip("torch", reason="ranks are torch processes")
    pools = {}

    def pool_of(world: int):
        if world not in pools:
            pools[world] = load_fixture_module("rank_pool").RankPool(world, tmp_path_factory.mktemp(f"ranks{world}"))
        return pools[world]

    yield pool_of
    for pool in pools.values():
        pool.close()
