"""Addresses that show wrong credentials, as one gateway sees them: after some distinct ones each next try must wait.

It decides how long, by GCRA (the generic cell rate algorithm, ITU-T I.371): a burst of distinct wrong credentials, then
one a pause. One credential shown wrongly again and again counts once: that is a forgotten configuration, no guess.
What this gateway has proven before is never held back, so neighbours behind one address go on. In memory and bounded:
who failed longest ago is forgotten first. Over all gateways and for longer, the abuse loop watches whole networks
(`abuse/guessing`). Called by `auth`.
"""

import dataclasses
import hashlib
from collections import OrderedDict

from forestay.clock import Clock
from forestay.fleet.networks import Address, prefix_of

MAX_ADDRESSES = 20_000
REMEMBERED = 16  # wrong credentials of an address that count no second time


@dataclasses.dataclass(slots=True)
class _Tries:
    """One address: when the next wrong credential would be in its time (monotonic), and which came last."""

    expected_at: float = 0.0
    seen: list[bytes] = dataclasses.field(default_factory=list[bytes])


class Guesses:
    """Wrong credentials by address; `burst` at once, then one in `pause_seconds`. A burst of 0 turns it off."""

    def __init__(self, clock: Clock, burst: int, pause_seconds: float) -> None:
        self._clock = clock
        self._burst = burst
        self._pause = pause_seconds
        self._tries: OrderedDict[str, _Tries] = OrderedDict()

    def wait_seconds(self, address: Address | None) -> float:
        """Return how long the address must wait before its next try; 0 when it may try now."""
        tries = self._tries.get(_name_of(address)) if self._burst else None
        if tries is None:
            return 0.0
        return max(0.0, tries.expected_at - (self._burst - 1) * self._pause - self._clock.monotonic())

    def failed(self, address: Address | None, credential: str) -> None:
        """Take a wrong credential; kept is a short digest of it, and not for long."""
        name = _name_of(address)
        if not self._burst or not name:
            return
        tries = self._tries.pop(name, None) or _Tries()
        self._tries[name] = tries
        if len(self._tries) > MAX_ADDRESSES:
            self._tries.popitem(last=False)
        digest = hashlib.blake2b(credential.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        if digest in tries.seen:
            return
        tries.seen = [*tries.seen[-(REMEMBERED - 1) :], digest]
        tries.expected_at = max(tries.expected_at, self._clock.monotonic()) + self._pause


def _name_of(address: Address | None) -> str:
    """Return what stands for one caller; empty when nothing is known."""
    return "" if address is None else prefix_of(address)
