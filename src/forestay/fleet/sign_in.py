"""How often someone may try to sign in: each failure in a row makes the next try wait longer.

Counted by what was typed as the account (known here or not, so that waiting betrays nothing) and by the network the try
came from. A try counts as failed from its start, so that tries sent together are counted one after another; a success
takes that back. Somebody may thus keep another person waiting, at most `longest_seconds`; never locked out for good.
Pure, with the port of the store that remembers. Called by the gateway's sign-in.
"""

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from typing import Protocol

from forestay.fleet.networks import Address, prefix_of

FORGOTTEN_AFTER = dt.timedelta(days=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Patience:
    """How fast the wait grows."""

    free: int  # failures that cost no wait
    longest_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Failures:
    """Failures in a row, and when the last was."""

    count: int
    last_at: dt.datetime


ACCOUNT, NETWORK = Patience(4, 60.0), Patience(20, 900.0)
_PATIENCE: Mapping[str, Patience] = {"account": ACCOUNT, "network": NETWORK}


class SignInStore(Protocol):
    """Where failures, and proofs that may be shown once, are remembered by all gateways together."""

    async def begin(self, subjects: Sequence[str]) -> float:
        """Count a try for each subject and return 0; or, when one must wait, count nothing and return the seconds."""
        ...

    async def succeeded(self, subjects: Sequence[str]) -> None:
        """Take the try back; the account's earlier failures are forgotten, the network's are not."""
        ...

    async def use_once(self, digest: bytes, life_seconds: float) -> bool:
        """Note that a proof was shown; False when it was shown before. It is remembered for `life_seconds`."""
        ...


def decide_wait(subject: str, failures: Failures | None, now: dt.datetime) -> float:
    """Return for how many seconds a subject must still wait: 1, 2, 4, ... after the free failures, up to a limit."""
    patience = _PATIENCE[subject.partition(":")[0]]
    if failures is None or now - failures.last_at >= FORGOTTEN_AFTER or failures.count <= patience.free:
        return 0.0
    wait = min(patience.longest_seconds, 2.0 ** min(failures.count - patience.free - 1, 30))
    return max(0.0, wait - (now - failures.last_at).total_seconds())


def counted(failures: Failures | None, now: dt.datetime) -> Failures:
    """Return the failures with one more."""
    old = 0 if failures is None or now - failures.last_at >= FORGOTTEN_AFTER else failures.count
    return Failures(old + 1, now)


def subjects_of(account: str, address: Address | None) -> tuple[str, ...]:
    """Name whom a try is counted for; the account by its hash, since it may be anything, a password included."""
    digest = hashlib.sha256(account.encode("utf-8", "surrogatepass")).hexdigest()
    return (f"account:{digest}", f"network:{'unknown' if address is None else prefix_of(address)}")
