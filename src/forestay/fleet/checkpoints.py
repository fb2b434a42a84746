"""Signed checkpoints of the audit chains' heads, kept outside the database: what no chain can tell of itself.

A chain betrays a changed or missing row, its head a cut tail. Whoever can write to the database may still remove a
chain with its head, or write one anew from some row on. A checkpoint names every chain's newest row; a later log that
does not hold those very rows was tampered with. A new checkpoint is signed only over a log that holds the one before
it, so the newest alone suffices. Between two checkpoints lies a window, the loop's beat, in which a cut tail with its
head is not seen. Pure: building, reading and comparing. Called by `anchor`.
"""

import dataclasses
import datetime as dt
import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from forestay.fleet.audit import AuditFault

_LABEL = b"forestay audit checkpoint 1\n"  # so that no signature of ours for another purpose reads as a checkpoint's


class Head(msgspec.Struct, frozen=True):
    """The newest row of a chain."""

    sequence: int
    hash: str  # hex


class Checkpoint(msgspec.Struct, frozen=True):
    """Every chain's head at one moment; `previous` is the hex SHA-256 of the one before, empty for the first."""

    number: int
    at: dt.datetime
    previous: str
    heads: dict[str, Head]


class SignedCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint with the signature over it, and the name of the key that made it."""

    checkpoint: Checkpoint
    key_id: str
    signature: str  # hex


class Signer(Protocol):
    """Whoever holds the platform's signing keys."""

    def sign(self, message: bytes) -> tuple[str, str]:
        """Return the key's name and the signature as hex."""
        ...

    def holds(self, message: bytes, key_id: str, signature: str) -> bool:
        """Tell whether this signature was made by the named key of ours."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Tampered:
    """The log does not hold what was signed: nothing new is signed over it."""

    faults: tuple[AuditFault, ...]


def decide_checkpoint(
    last: SignedCheckpoint | None,
    heads: Mapping[str, Head],
    found: Mapping[str, str | None],
    now: dt.datetime,
) -> Checkpoint | Tampered | None:
    """Decide what to sign: the heads as they are, nothing when they have not moved, nothing over a log that lost rows.

    `found`: the hash that the log holds now at each place that `last` names, None where there is no row.
    """
    if last is None:
        return Checkpoint(1, now, "", dict(heads)) if heads else None
    faults = compare(last.checkpoint, found)
    if faults:
        return Tampered(tuple(faults))
    if dict(heads) == last.checkpoint.heads:
        return None
    return Checkpoint(last.checkpoint.number + 1, now, digest_of(last.checkpoint), dict(heads))


def compare(checkpoint: Checkpoint, found: Mapping[str, str | None]) -> list[AuditFault]:
    """Name every chain that no longer holds the row which the checkpoint names."""
    faults: list[AuditFault] = []
    for writer, head in sorted(checkpoint.heads.items()):
        seen = found.get(writer)
        if head.sequence == 0 or seen == head.hash:
            continue
        told = "is gone" if seen is None else "is not the one that was signed"
        what = f"the row {told} that checkpoint {checkpoint.number} of {checkpoint.at.isoformat()} names"
        faults.append(AuditFault(writer, head.sequence, what))
    return faults


def find_gaps(kept: Sequence[SignedCheckpoint]) -> list[AuditFault]:
    """Compare checkpoints that follow one another, oldest first: one that was changed or taken out is betrayed."""
    faults: list[AuditFault] = []
    for before, after in itertools.pairwise(kept):
        number = after.checkpoint.number
        if number != before.checkpoint.number + 1:
            faults.append(AuditFault("checkpoints", number, f"those after {before.checkpoint.number} are missing"))
        elif after.checkpoint.previous != digest_of(before.checkpoint):
            faults.append(AuditFault("checkpoints", number, "it does not continue the one before it"))
    return faults


def seal(checkpoint: Checkpoint, signer: Signer) -> SignedCheckpoint:
    """Sign a checkpoint."""
    key_id, signature = signer.sign(message_of(checkpoint))
    return SignedCheckpoint(checkpoint, key_id, signature)


def is_ours(signed: SignedCheckpoint, signer: Signer) -> bool:
    """Tell whether we signed it."""
    return signer.holds(message_of(signed.checkpoint), signed.key_id, signed.signature)


def message_of(checkpoint: Checkpoint) -> bytes:
    """Return the bytes under the signature: one spelling only."""
    plain = msgspec.to_builtins(checkpoint)
    return _LABEL + json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def digest_of(checkpoint: Checkpoint) -> str:
    """Return the hash by which the next checkpoint names this one."""
    return hashlib.sha256(message_of(checkpoint)).hexdigest()


def parse(data: bytes) -> SignedCheckpoint | None:
    """Read a stored checkpoint; None when it is none."""
    try:
        return msgspec.json.decode(data, type=SignedCheckpoint)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
