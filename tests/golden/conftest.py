"""Cases of the reference implementation: found in a folder, loaded, compared, and the errors reached reported.

The folder is tests/data/golden, or what STANDIN_GOLDEN names. A case is NAME.json with, usually, NAME.safetensors; its
kind is the longest known beginning of its name. A test with an argument `KIND_case` runs for every case of that kind.
"""

import json
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import pytest

KINDS = (
    "audio_window",
    "clip",
    "color",
    "dit",
    "keys",
    "loudness",
    "pipeline_once",
    "pipeline_stream",
    "resize_center",
    "rope",
    "t5",
    "text_misc",
    "timesteps",
    "vae_dec",
    "vae_enc",
    "vae_weights",
    "wav2vec",
)
_HERE = Path(__file__).parent
_REACHED: dict[str, tuple[str, float, float]] = {}


def golden_folder() -> Path:
    return Path(os.environ.get("STANDIN_GOLDEN") or _HERE.parent / "data" / "golden")


def kind_of(name: str) -> str | None:
    return max((kind for kind in KINDS if name == kind or name.startswith(f"{kind}_")), key=len, default=None)


def names_of(kind: str) -> list[str]:
    return sorted(path.stem for path in golden_folder().glob("*.json") if kind_of(path.stem) == kind)


@lru_cache(maxsize=8)
def tensors_of(name: str) -> dict:
    """float8 and bfloat16 only save space: everything that is no whole number is computed with in float32."""
    from safetensors.torch import load_file

    stored = load_file(golden_folder() / f"{name}.safetensors")
    return {
        key: value.float() if value.is_floating_point() and not key.endswith("_f64") else value
        for key, value in stored.items()
    }


@dataclass(frozen=True)
class Case:
    name: str

    @cached_property
    def meta(self) -> dict:
        return json.loads((golden_folder() / f"{self.name}.json").read_text(encoding="utf-8"))

    @property
    def tensors(self) -> dict:
        return tensors_of(self.name)

    def weights(self, part: str | None = None) -> dict:
        """Of the module, or of the `part` of a pipeline."""
        source = self.meta.get("weights_from", self.name)
        return weights_of(source[part] if part else source)

    def other(self, part: str) -> "Case":
        """The case that a pipeline's part has its weights and sizes from."""
        return Case(self.meta["weights_from"][part])

    @property
    def tolerance(self) -> float:
        return self.meta["tolerance"]["value"]

    def check(self, actual, key: str, tolerance: float | None = None) -> None:
        """`actual` against the recorded tensor `key`: max|a - b| / max|b|."""
        expected = self.tensors[key]
        assert tuple(actual.shape) == tuple(expected.shape), (
            f"{key}: {tuple(actual.shape)} is not {tuple(expected.shape)}"
        )
        scale = expected.abs().max().item() or 1.0
        error = (actual - expected).abs().max().item() / scale
        bound = self.tolerance if tolerance is None else tolerance
        worst = _REACHED.get(self.name)
        if worst is None or not error / bound <= worst[1] / worst[2]:
            _REACHED[self.name] = (key, error, bound)
        assert error <= bound, f"{self.name} {key}: {error:.3g}, allowed {bound:g}"


def weights_of(name: str) -> dict:
    return {key[8:]: value for key, value in tensors_of(name).items() if key.startswith("weights.")}


def pytest_generate_tests(metafunc):
    for kind in KINDS:
        argument = f"{kind}_case"
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, [Case(name) for name in names_of(kind)], ids=lambda case: case.name)


def pytest_collection_modifyitems(items):
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.golden)


def pytest_terminal_summary(terminalreporter):
    if _REACHED:
        terminalreporter.section("golden: largest share of the allowed error")
    for name, (key, error, bound) in sorted(_REACHED.items()):
        terminalreporter.write_line(f"{name:28} {error:9.2e} of {bound:7.1e}  {key}")


@pytest.fixture(scope="session")
def every_case():
    """Names of all cases in the folder, and their kinds."""
    return {path.stem: kind_of(path.stem) for path in sorted(golden_folder().glob("*.json"))}


@pytest.fixture
def exact_attention():
    import torch

    from engine.generators.flashtalk.attention import choose_attention

    return choose_attention(torch.device("cpu"), torch.float32).attend


@pytest.fixture(autouse=True)
def _no_gradients():
    import torch

    with torch.no_grad():
        yield
