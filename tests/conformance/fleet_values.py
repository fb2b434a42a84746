"""Small fleets for tests: values with defaults that a test overrides where it matters."""

import dataclasses
import datetime as dt

from tests.conformance.memory_fleet import EPOCH

from forestay.fleet.actions import Action, Place, RegisterRevision, SetRoutes
from forestay.fleet.model import ReplicaReport, ReplicaState, Revision, Route, WorkerReport
from forestay.fleet.spec import EndpointSpec, HostKind, HostSpec, ModelSpec, ResourceSpec
from forestay.ids import BUCKETS, ModelId, ReplicaId, RevisionId, TenantId, WorkerId

TENANT = TenantId("acme")
DIGITS = ModelId("acme/digits")


def spec_of(model_id: ModelId = DIGITS, resources: ResourceSpec | None = None) -> ModelSpec:
    """Return the spec of a small fal_app model."""
    return ModelSpec(
        model_id=model_id,
        description="A model for tests.",
        owner_team="tests",
        owner_contact="tests@forestay.invalid",
        licence="Apache-2.0",
        visibility="shared",
        host=HostSpec(HostKind.FAL_APP, app="app.py::App", env={"A": "1"}, requirements=("pillow",)),
        endpoints=(EndpointSpec("/"), EndpointSpec("/edit", media_inputs=("image_url",))),
        resources=resources or ResourceSpec(memory_mb=100),
    )


def revision_of(name: str = "digits-1", model_id: ModelId = DIGITS, resources: ResourceSpec | None = None) -> Revision:
    """Return a revision."""
    return Revision(
        revision_id=RevisionId(name),
        model_id=model_id,
        digest=f"digest of {name}",
        spec=spec_of(model_id, resources),
        bundle_key=f"bundles/{name}.tar",
        openapi={"openapi": "3.1.0", "paths": {"/": {}}},
        created_at=EPOCH,
    )


def register(revision: Revision, tenant_id: TenantId = TENANT) -> RegisterRevision:
    """Return the action that adds a revision."""
    return RegisterRevision(revision, tenant_id, "shared", "test")


def route_all(revision: Revision) -> SetRoutes:
    """Return the action that sends all traffic to one revision."""
    route = Route(revision.model_id, revision.revision_id, 0, BUCKETS)
    return SetRoutes(revision.model_id, (route,), "test")


def deploy(revision: Revision) -> list[Action]:
    """Return what a deploy asks for."""
    return [register(revision), route_all(revision)]


def place(worker: str, revision: Revision, replicas: int = 1) -> Place:
    """Return the action that places a revision."""
    return Place(WorkerId(worker), revision.revision_id, replicas, "test")


def worker_of(name: str = "w1", *, devices: int = 1, memory_mb: int = 1000, pool: str = "cpu") -> WorkerReport:
    """Return a ready worker."""
    return WorkerReport(WorkerId(name), pool, "http://127.0.0.1:1", devices, memory_mb, "ready", EPOCH, EPOCH)


def replica_of(
    revision: Revision,
    worker: str = "w1",
    *,
    name: str = "r1",
    state: ReplicaState = ReplicaState.READY,
    last_used_at: dt.datetime | None = None,
) -> ReplicaReport:
    """Return a replica."""
    report = ReplicaReport(
        replica_id=ReplicaId(name),
        worker_id=WorkerId(worker),
        revision_id=revision.revision_id,
        model_id=revision.model_id,
        state=state,
        slots=1,
        devices=revision.spec.resources.devices,
        direct_url=None,
        hints=("a", "b"),
        detail="",
        failures=0,
        started_at=EPOCH,
        ready_at=EPOCH if state is ReplicaState.READY else None,
        last_used_at=last_used_at,
        seen_at=EPOCH,
    )
    return dataclasses.replace(report)
