"""What requests are told apart by in a rollout: endpoint, size, tenant; and how that is said to a person. Pure.

It decides the names of slices and strata, not which of them are followed (`canary/evidence`, `shadow/decide`). A size
is a power of two of pixels, told as the side of a square, since callers ask for sides. Called by `observe` and by the
worker's offers.
"""

import math

TENANT = "tenant "
_ENDPOINT, _SIZE = "endpoint ", "about "
_PREPOSITIONS = {_ENDPOINT: "on", _SIZE: "at", TENANT: "for"}


def slices_of(endpoint: str, pixels: object, tenant_id: str) -> tuple[str, ...]:
    """Return the slices of a request; `pixels` as its input says, anything else has no size."""
    size = size_of(pixels)
    return (f"{_ENDPOINT}{endpoint}", *([size] if size else []), *([f"{TENANT}{tenant_id}"] if tenant_id else []))


def size_of(pixels: object) -> str:
    """Return the order of a size in words; empty where there is none."""
    if not isinstance(pixels, int | float) or not math.isfinite(pixels) or pixels < 1:
        return ""
    side = round(math.sqrt(2 ** round(math.log2(pixels))))
    return f"{_SIZE}{side}x{side} pixels"


def where(name: str) -> str:
    """Return a slice as the end of a sentence: " at about 1024x1024 pixels"; empty for the whole."""
    if not name:
        return ""
    word = next((said for start, said in _PREPOSITIONS.items() if name.startswith(start)), "in")
    return f" {word} {name}"
