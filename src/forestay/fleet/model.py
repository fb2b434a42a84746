"""The fleet's words: what should be (revisions, routes, placements) and what is (workers, replicas).

Pure values. Desired state is written only through `fleet/apply`; observed state only by the worker it describes.
Gateways and workers read desired state and report observed state, and nothing else tells them what to do.
"""

import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping

from forestay.fleet.spec import ModelSpec
from forestay.fleet.standing import Standing
from forestay.ids import ModelId, ReplicaId, RevisionId, TenantId, WorkerId


class ReplicaState(enum.StrEnum):
    """The life of a loaded revision on one worker."""

    SETUP = "setup"
    READY = "ready"
    DRAINING = "draining"
    BACKOFF = "backoff"  # its last start failed; tried again later
    STOPPED = "stopped"


@dataclasses.dataclass(frozen=True, slots=True)
class Revision:
    """An immutable version of a model."""

    revision_id: RevisionId
    model_id: ModelId
    digest: str
    spec: ModelSpec
    bundle_key: str | None
    openapi: Mapping[str, object] | None
    created_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """The share of a model's traffic that a revision serves: buckets [bucket_from, bucket_to) of 10,000."""

    model_id: ModelId
    revision_id: RevisionId
    bucket_from: int
    bucket_to: int


@dataclasses.dataclass(frozen=True, slots=True)
class PendingRoute:
    """A deploy that waits: the revision takes all of the model's traffic once a replica of it is ready."""

    model_id: ModelId
    revision_id: RevisionId
    since: dt.datetime
    until: dt.datetime  # given up when no replica is ready by then
    given_up: str = ""  # why; empty while it is waited for
    held: bool = False  # only loaded: a rollout decides what traffic it gets


@dataclasses.dataclass(frozen=True, slots=True)
class Placement:
    """How many replicas of a revision a worker shall hold; 0 means: drain, then unload."""

    worker_id: WorkerId
    revision_id: RevisionId
    replicas: int
    reason: str
    ending: tuple[ReplicaId, ...] = ()  # these do not count among them and end, whatever else stays


@dataclasses.dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker says of itself every second or so."""

    worker_id: WorkerId
    pool: str
    address: str
    devices: int
    memory_mb: int
    state: str  # ready | draining | stopped
    started_at: dt.datetime
    seen_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class ReplicaReport:
    """What a worker says of one replica."""

    replica_id: ReplicaId
    worker_id: WorkerId
    revision_id: RevisionId
    model_id: ModelId
    state: ReplicaState
    slots: int
    devices: int
    direct_url: str | None
    hints: tuple[str, ...]
    detail: str
    failures: int
    started_at: dt.datetime
    ready_at: dt.datetime | None
    last_used_at: dt.datetime | None
    seen_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model as callers may address it."""

    model_id: ModelId
    tenant_id: TenantId
    visibility: str  # private | shared | public | review (not let in yet: administrators of its tenant alone)
    spec: ModelSpec


@dataclasses.dataclass(frozen=True, slots=True)
class Fleet:
    """One consistent read of everything above; small, read whole, cached by version."""

    version: int
    now: dt.datetime  # the database's clock at the read
    models: Mapping[ModelId, ModelEntry]
    revisions: Mapping[RevisionId, Revision]
    routes: tuple[Route, ...]
    placements: tuple[Placement, ...]
    workers: Mapping[WorkerId, WorkerReport]
    replicas: Mapping[ReplicaId, ReplicaReport]
    demand: Mapping[ModelId, dt.datetime]
    standings: Mapping[str, Standing] = dataclasses.field(default_factory=dict[str, Standing])  # in force, by subject
    pending: Mapping[ModelId, PendingRoute] = dataclasses.field(default_factory=dict[ModelId, PendingRoute])
    pardons: Mapping[str, dt.datetime] = dataclasses.field(default_factory=dict[str, dt.datetime])  # by subject, until

    def routed(self, model_id: ModelId, bucket: int) -> RevisionId | None:
        """Return the revision that serves `bucket` of the model, None when no route covers it."""
        for route in self.routes:
            if route.model_id == model_id and route.bucket_from <= bucket < route.bucket_to:
                return route.revision_id
        return None
