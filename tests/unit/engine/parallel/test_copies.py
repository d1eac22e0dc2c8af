"""How often self-attention over several ranks copies its tokens, and where it receives: on one rank that is played."""

from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.parallel.distributed import DistributedGroup, RankGroups
from engine.parallel.topology import plan_ranks

HEADS, WIDTH, TOKENS = 12, 4, 24


@pytest.fixture(scope="module")
def meter(fixture_module):
    return fixture_module("collective_meter")


class _Copies(TorchDispatchMode):
    """Bytes that operations write; views and empty tensors write none."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        aliases = [value.alias_info for value in func._schema.returns]
        is_view = any(alias is not None and not alias.is_write for alias in aliases)
        if not is_view and not any(part in func.name() for part in ("empty", "unsafe_view")):
            self.bytes += sum(x.nbytes for x in tree_leaves(out) if isinstance(x, torch.Tensor))
        return out


class _Attention:
    """Computes nothing; keeps what it was given."""

    def __init__(self):
        self.given = []

    def __call__(self, q, k, v):
        self.given.append((q, k, v))
        return torch.empty(q.shape)

    def with_lse(self, q, k, v):
        return self(q, k, v), torch.empty(q.shape[:2])


def _played(meter, world, ulysses, rank=0):
    plan = plan_ranks(world=world, heads=HEADS, tokens=TOKENS, latent_rows=world, ulysses=ulysses)
    sizes = {"world": world, "ulysses": plan.ulysses, "ring": plan.ring}
    peers = {name: meter.Peer(rank % size, size) for name, size in sizes.items()}
    with mock.patch.object(torch.distributed, "get_backend", return_value="gloo"):
        return DistributedGroup(plan, RankGroups(**peers))


@pytest.mark.parametrize(("world", "ulysses", "copies"), [(2, 2, 4), (4, 4, 4), (2, 1, 2), (4, 2, 6)])
def test_tokens_are_copied_once_on_every_way(world, ulysses, copies, meter):
    """q, k and v to where they are sent from and the result to its order of tokens; k and v for the ring."""
    group, attention = _played(meter, world, ulysses), _Attention()
    q, k, v = (torch.randn(TOKENS // world, HEADS, WIDTH) for _ in range(3))
    merging = mock.patch("engine.parallel.distributed.OnlineSoftmax", _NoMerging)
    with meter.CollectiveMeter(wire=False), merging, _Copies() as counted:
        group.attend(q, k, v, attention)
    assert counted.bytes == copies * q.nbytes


class _NoMerging:
    def add(self, out, lse):
        self._out = out

    def result(self, dtype):
        return self._out


def test_the_result_comes_to_where_keys_and_values_were(meter, monkeypatch):
    """No more memory for it, and none of it is handed out: the caller's tensor is its own."""
    group, storages = _played(meter, 4, 4), []  # kept: memory that was given back may be given out again
    with meter.CollectiveMeter(wire=False):
        counted = torch.distributed.all_to_all_single

        def watched(received, send, group):
            storages.append((received.untyped_storage(), send.untyped_storage()))
            return counted(received, send, group=group)

        monkeypatch.setattr(torch.distributed, "all_to_all_single", watched)
        attention = _Attention()
        out = group.attend(*(torch.randn(TOKENS // 4, HEADS, WIDTH) for _ in range(3)), attention)
        monkeypatch.undo()
    (first, sent), (second, sent_back) = [[one.data_ptr() for one in pair] for pair in storages]
    assert first == second and len({first, sent, sent_back}) == 3
    assert all(x.untyped_storage().data_ptr() == first for x in attention.given[0])
    assert out.untyped_storage().data_ptr() != first


@pytest.mark.parametrize("rank", range(4))
def test_the_ring_has_two_buffers(rank, meter, monkeypatch):
    """What is received never goes where something is sent from or attended to at the same time."""
    group, steps = _played(meter, 4, 1, rank), []
    with meter.CollectiveMeter(wire=False):
        counted = torch.distributed.batch_isend_irecv

        def watched(operations):
            steps.append([operation.tensor.data_ptr() for operation in operations])
            return counted(operations)

        monkeypatch.setattr(torch.distributed, "batch_isend_irecv", watched)
        attention = _Attention()
        group.attend(*(torch.randn(TOKENS // 4, HEADS, WIDTH) for _ in range(3)), attention)
        monkeypatch.undo()
    assert [sent for sent, _ in steps[1:]] == [received for _, received in steps[:-1]]
    assert len({place for step in steps for place in step}) == 2 and all(sent != received for sent, received in steps)
    attended = [k.data_ptr() for _, k, _ in attention.given]
    assert attended == [*(sent for sent, _ in steps), steps[-1][1]]
