"""The state of the signals as bytes and back, in parts, so that a restart forgets nothing and one part stays small.

Pure. A snapshot of another version is no snapshot: the loop then reads the facts again. Called by the loop.
"""

import dataclasses
import datetime as dt
import hashlib
import zlib
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from forestay.abuse.clusters import Clusters
from forestay.abuse.counters import Window
from forestay.abuse.guessing import Guessing
from forestay.abuse.labels import Labels
from forestay.abuse.signals import KeyState, Signals

Kind = TypeVar("Kind")
VERSION = 1
SHARDS = 32


@dataclasses.dataclass(slots=True)
class Meta:
    """How far a snapshot goes."""

    version: int = VERSION
    serial: int = 0  # rises with every save; another one in the store means that somebody else has led since
    position: int = 0
    at: dt.datetime | None = None  # of the last fact
    counted: str = ""  # digest of the counters that the windows belong to
    labels: Labels = dataclasses.field(default_factory=dict[str, dict[str, dt.datetime]])


def shard_of(key: str) -> int:
    """Return the part that a key is kept in."""
    return zlib.crc32(key.encode()) % SHARDS


def parts_about(key: str) -> list[str]:
    """Return the names of the parts that say anything of a key; of everybody together when it is empty."""
    return ["meta", "clusters", "guessing", "counters", *([f"keys-{shard_of(key):02}"] if key else [])]


def parts_of(signals: Signals, meta: Meta, shards: frozenset[int]) -> dict[str, bytes]:
    """Return the parts to write: everything that all keys share, and the given shards of keys."""
    kept: dict[int, dict[str, KeyState]] = {shard: {} for shard in shards}
    for key, state in signals.keys.items():
        shard = shard_of(key)
        if shard in kept:
            kept[shard][key] = state
    parts = {
        "meta": _packed(dataclasses.replace(meta, counted=_counted(signals))),
        "clusters": _packed(signals.clusters),
        "guessing": _packed(signals.guessing),
        "counters": _packed(signals.counters.windows),
    }
    return parts | {f"keys-{shard:02}": _packed(states) for shard, states in kept.items()}


def read_meta(data: bytes | None) -> Meta | None:
    """Return what a snapshot says of itself; None when there is none that can be read here."""
    if data is None:
        return None
    try:
        meta = _unpacked(data, Meta)
    except (msgspec.MsgspecError, zlib.error):
        return None
    return meta if meta.version == VERSION else None


def restore(parts: Mapping[str, bytes], signals: Signals) -> Meta | None:
    """Fill the signals from a snapshot and return how far it goes; None, and nothing filled, when it cannot be read."""
    meta = read_meta(parts.get("meta"))
    if meta is None:
        return None
    try:
        clusters = _unpacked(parts["clusters"], Clusters)
        guessing = _unpacked(parts["guessing"], Guessing)
        windows = _unpacked(parts["counters"], dict[str, dict[str, Window]])
        keys: dict[str, KeyState] = {}
        for shard in range(SHARDS):
            data = parts.get(f"keys-{shard:02}")
            keys.update(_unpacked(data, dict[str, KeyState]) if data is not None else {})
    except (KeyError, msgspec.MsgspecError, zlib.error):
        return None
    signals.clusters, signals.guessing = clusters, guessing
    if meta.counted == _counted(signals):  # else other rules count now, from nothing
        signals.counters.windows = windows
    signals.keys = dict(sorted(keys.items(), key=lambda item: item[1].habits.last_at))  # least recently used first
    return meta


def _counted(signals: Signals) -> str:
    return hashlib.sha256(repr(signals.counters.specs).encode()).hexdigest()[:16]


def _packed(value: object) -> bytes:
    return zlib.compress(msgspec.msgpack.encode(value), level=1)


def _unpacked(data: bytes, kind: type[Kind]) -> Kind:
    return msgspec.msgpack.decode(zlib.decompress(data), type=kind)
