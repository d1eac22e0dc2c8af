"""Records tensor operations on a CPU and runs them again, with the rules of a CUDA graph.

Whatever Python computed is fixed, every result is written where it was the first time, and what would make the host
wait cannot be recorded.
"""

import importlib.util
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

WAITING = {
    "_local_scalar_dense": "a value is read on the host",
    "equal": "a comparison is read on the host",
    "nonzero": "a shape depends on values",
    "masked_select": "a shape depends on values",
    "_unique2": "a shape depends on values",
    "lift_fresh": "numbers of the host are copied",
}
"""Operations that wait for the device, or give it what only the host had at the time."""


class HostWait(RuntimeError):
    """Something in a recorded function needs the host."""


class _Tape(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in WAITING:
            raise HostWait(f"{name}: {WAITING[name]}")
        out = func(*args, **(kwargs or {}))
        aliases = [value.alias_info for value in func._schema.returns]
        writes = any(alias is not None and alias.is_write for alias in aliases)
        is_view = not writes and any(alias is not None for alias in aliases)
        if not is_view:
            self.operations.append((func, args, kwargs or {}, None if writes else tree_leaves(out)))
        return out


class TapeRecorder:
    """Implements `engine.generators.flashtalk.graphs.Recorder`."""

    def __init__(self):
        self.recorded = 0
        self.replays = 0

    def record(self, work):
        work()
        tape = _Tape()
        with tape:
            out = work()
        self.recorded += 1
        # As after a capture: nothing has been computed yet.
        for _, _, _, results in tape.operations:
            for result in results or ():
                if isinstance(result, torch.Tensor) and result.is_floating_point():
                    result.fill_(float("nan"))

        def replay():
            self.replays += 1
            for func, args, kwargs, results in tape.operations:
                fresh = func(*args, **kwargs)
                for place, value in zip(results or (), tree_leaves(fresh) if results else (), strict=True):
                    if isinstance(value, torch.Tensor):
                        place.copy_(value)

        return out, replay


@pytest.fixture
def tape_recorder():
    """A recorder of its own for each test."""
    return TapeRecorder()


def _fixture_module(name: str):
    path = Path(__file__).parents[4] / "fixtures" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def random_conditions():
    """A function: conditions for a denoising step, in random numbers."""
    return _fixture_module("dit_conditions").random_conditions


@pytest.fixture(scope="session")
def peak_bytes():
    """A function: the most bytes that the tensors made by a function held at once."""
    return _fixture_module("peak_meter").peak_bytes
