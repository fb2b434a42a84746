"""Which devices a worker owns, and which of them a new replica gets. Pure.

It decides that a worker of a pool of GPUs owns what `CUDA_VISIBLE_DEVICES` of its own environment leaves it (as
NVIDIA's "CUDA Environment Variables" defines it: numbers or beginnings of UUIDs, the first that is unknown ends the
list), and that a replica gets the devices on which the fewest others are. FORESTAY_DEVICES counts how much may run:
more than there are GPUs means that replicas share them. A worker whose pool begins with "cpu" owns none. Called by
`device_watch`.
"""

from collections.abc import Mapping, Sequence

from forestay.fleet.devices import Identity


def owned_by(pool: str, devices: Sequence[Identity], visible: str | None) -> list[Identity]:
    """Return the devices that a worker of this pool may hand out; `visible` None: all."""
    if pool.startswith("cpu"):
        return []
    if visible is None:
        return list(devices)
    found: list[Identity] = []
    for name in (part.strip() for part in visible.split(",")):
        named = [item for item in devices if _is_called(item, name)]
        if len(named) != 1:
            break
        if named[0] in found:  # named twice: CUDA then shows none at all
            return []
        found.append(named[0])
    return found


def _is_called(device: Identity, name: str) -> bool:
    return device.index == int(name) if name.isdecimal() else name.startswith("GPU-") and device.uuid.startswith(name)


def decide_devices(owned: Sequence[Identity], used: Mapping[str, int], wanted: int) -> tuple[str, ...]:
    """Return the UUIDs of the devices for a replica that takes `wanted`: those with the fewest replicas, in order."""
    ordered = sorted(owned, key=lambda item: (used.get(item.uuid, 0), item.index))
    chosen = sorted(ordered[:wanted], key=lambda item: item.index)
    return tuple(item.uuid for item in chosen)
