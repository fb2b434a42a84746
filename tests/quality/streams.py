"""Outputs as workers note them, healthy and changed, drawn from seeds."""

import datetime as dt
import uuid
from collections.abc import Sequence

import numpy as np

from forestay.media.measures import PICTURE_FEATURES
from forestay.telemetry.output_facts import OutputFact

START = dt.datetime(2026, 11, 26, 12, tzinfo=dt.UTC)
WIDTH = len(PICTURE_FEATURES)


def fact(number: int, features: Sequence[float] = (), **changed: object) -> OutputFact:
    """Return one output of a model with replicas; one comes every second."""
    values: dict[str, object] = {
        "at": START + dt.timedelta(seconds=number),
        "request_id": uuid.UUID(int=number + 1),
        "attempt": 1,
        "place": 0,
        "tenant_id": "acme",
        "model_id": "acme/cat",
        "endpoint": "/",
        "revision_id": "r1",
        "replica_id": "a",
        "worker_id": "w-a",
        "device": "gpu-a",
        "kind": "image",
        "parameters": "64x64 12 steps",
        "cluster": 0,
        "features": [float(value) for value in features],
        "prompt": number + 1,
        "position": number + 1,
    }
    return OutputFact(**{**values, **changed})  # type: ignore[arg-type]


def on(replica: str) -> dict[str, object]:
    """Return where a replica runs."""
    return {"replica_id": replica, "worker_id": f"w-{replica}", "device": f"gpu-{replica}"}


def healthy(count: int, seed: int, first: int = 0, replicas: str = "abc", **changed: object) -> list[OutputFact]:
    """Return outputs of all replicas in turn, normal features around 100."""
    rows = 100 + np.random.default_rng(seed).standard_normal((count, WIDTH))
    return [
        fact(first + number, row.tolist(), **{**on(replicas[number % len(replicas)]), **changed})
        for number, row in enumerate(rows)
    ]


def moved(facts: Sequence[OutputFact], feature: str, by: float, replica: str = "") -> list[OutputFact]:
    """Return the same outputs with one feature moved, of one replica or of all."""
    place = PICTURE_FEATURES.index(feature)
    return [
        _with(item, [value + by * (number == place) for number, value in enumerate(item.features)])
        if replica in {"", item.replica_id}
        else item
        for item in facts
    ]


def broken(facts: Sequence[OutputFact], replica: str, check: str = "black") -> list[OutputFact]:
    """Return the same outputs, those of one replica broken."""
    return [_with(item, [], check) if item.replica_id == replica else item for item in facts]


def _with(item: OutputFact, features: list[float], failed: str = "") -> OutputFact:
    values = {name: getattr(item, name) for name in OutputFact.__struct_fields__}
    return OutputFact(**{**values, "features": features, "failed": failed})
