"""CUDA_VISIBLE_DEVICES: which GPUs a process may use, and in which order it counts them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from engine.gpus.types import Gpu
from engine.protocol.messages import Reason


def visible(gpus: list[Gpu], environment: Mapping[str, str]) -> tuple[list[Gpu], Reason | None, list[Reason]]:
    """What CUDA_VISIBLE_DEVICES leaves, by CUDA's rules: in its order, and up to the first entry that is no GPU."""
    value = environment.get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return gpus, None, []
    entries = [entry.strip() for entry in value.split(",")]
    picked: list[Gpu] = []
    for entry in entries:
        gpu = _named(entry, gpus)
        if gpu is None:
            break
        picked.append(gpu)
    if len({(gpu.uuid, gpu.parts) for gpu in picked}) < len(picked):
        picked, entries = [], []
    if not picked:
        hidden = f'CUDA_VISIBLE_DEVICES is "{value}", which leaves none of {len(gpus)} GPUs.'
        return [], Reason(code="gpu.hidden", message=hidden, hint="Remove or correct this variable."), []
    notes = []
    if len(picked) < len(entries):
        wrong = (
            f'CUDA_VISIBLE_DEVICES names "{entries[len(picked)]}", which is no GPU here; it and the rest do not count.'
        )
        notes.append(Reason(code="gpu.visible_devices", message=wrong, hint="Correct this variable."))
    if _is_order_unsure(gpus, entries, environment):
        notes.append(
            Reason(
                code="gpu.order",
                message="CUDA may number these different GPUs in another order than nvidia-smi does.",
                hint="Set CUDA_DEVICE_ORDER=PCI_BUS_ID, or name them by UUID.",
            )
        )
    return picked, None, notes


def _named(entry: str, gpus: Iterable[Gpu]) -> Gpu | None:
    """The GPU of an index, of the beginning of a UUID, or with the one part of a MIG UUID."""
    if entry.isdigit():
        return next((gpu for gpu in gpus if gpu.system_index == int(entry)), None)
    if entry.startswith("MIG-"):
        pairs = [(gpu, part) for gpu in gpus for part in gpu.parts if part.uuid == entry]
        return replace(pairs[0][0], parts=(pairs[0][1],)) if pairs else None
    matching = [gpu for gpu in gpus if entry.startswith("GPU-") and gpu.uuid.startswith(entry)]
    return matching[0] if len(matching) == 1 else None


def _is_order_unsure(gpus: list[Gpu], entries: list[str], environment: Mapping[str, str]) -> bool:
    is_mixed = len({gpu.name for gpu in gpus}) > 1
    return is_mixed and entries[0].isdigit() and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID"
