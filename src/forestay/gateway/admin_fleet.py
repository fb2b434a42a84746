"""Admin routes of the fleet: bundles, models, the state of everything, the freeze switch and modes."""

import datetime as dt
import hashlib
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import cast

import msgspec

from forestay.errors import UsageError
from forestay.fleet.actions import Action, Decided, Effect, Freeze, Origin, PlanRoute, RegisterRevision, SetRoutes
from forestay.fleet.apply import ALREADY_SO, Mode
from forestay.fleet.bundle import bundle_key, revision_digest, revision_id_of
from forestay.fleet.devices import DeviceState
from forestay.fleet.model import Fleet, Revision
from forestay.fleet.spec import HostKind, ModelSpec, spec_to_json
from forestay.gateway.admin_artefacts import admit
from forestay.gateway.admin_entry import check_entry
from forestay.gateway.admin_policies import check_policy
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.admin_rollouts import begin_rollout, check_free
from forestay.gateway.incoming import declared_bytes, pieces
from forestay.gateway.responses import Reply, json_reply
from forestay.ids import ModelId, is_model_id
from forestay.readiness.gather import serving
from forestay.readiness.postgres_store import Standing
from forestay.rollouts.options import RolloutOptions, options_of, policy_of
from forestay.rollouts.rolling import Strategy, decide_deploy, strategy_of

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LOOPS = tuple(origin.name.lower() for origin in Origin if origin is not Origin.HUMAN)


class _NewModel(msgspec.Struct, forbid_unknown_fields=True):
    spec: dict[str, object]  # the fields of the YAML file, `host.app` relative to the bundle's root
    digest: str | None = None  # sha-256 of the bundle's bytes; null for hosts without code
    openapi: dict[str, object] | None = None
    tenant_id: str = ""  # empty: the key's own, or the only one
    strategy: Strategy | None = None  # null: rolling while the model serves, else at once
    rollout: RolloutOptions | None = None  # for the strategy canary


class _Freeze(msgspec.Struct, forbid_unknown_fields=True):
    frozen: bool
    reason: str


class _Mode(msgspec.Struct, forbid_unknown_fields=True):
    loop: str
    mode: Mode
    model: str = ""


# Bundles ------------------------------------------------------------------------------------------------------------
async def put_bundle(act: Act) -> Reply:
    """Store a bundle under the digest of its bytes; bytes of another digest are refused and not kept."""
    digest = _digest(act.path("digest"))
    most = act.ports.settings.gateway.max_upload_bytes
    if (declared_bytes(act.request) or 0) > most:
        raise _too_large(most)
    key = bundle_key(digest)
    size = await act.ports.objects.size(key)
    if size is None:
        size = await act.ports.objects.put(key, _checked(act, digest, most))
        await act.record("put_bundle", f"bundle:{digest}", {"size_bytes": size}, "asked for")
        return json_reply(201, {"digest": digest, "size_bytes": size})
    return json_reply(200, {"digest": digest, "size_bytes": size}, (b"connection", b"close"))


async def get_bundle(act: Act) -> Reply:
    """Tell whether a bundle is stored, so that it need not be sent again."""
    digest = _digest(act.path("digest"))
    size = await act.ports.objects.size(bundle_key(digest))
    if size is None:
        raise NotThere(f"no bundle {digest}")
    examined = await act.ports.artefacts.store.report(digest) is not None
    return json_reply(200, {"digest": digest, "size_bytes": size, "examined": examined})


async def _checked(act: Act, digest: str, most: int) -> AsyncGenerator[bytes, None]:
    """Pass the body on, and fail at its end when it is not what its name says."""
    seen, size = hashlib.sha256(), 0
    async for piece in pieces(act.request, act.ports.settings.gateway.body_timeout_seconds):
        size += len(piece)
        if size > most:
            raise _too_large(most)
        seen.update(piece)
        yield piece
    if seen.hexdigest() != digest:
        raise UsageError("digest", f"the bytes received have the SHA-256 {seen.hexdigest()}; send them again")


def _digest(text: str) -> str:
    if _DIGEST.fullmatch(text) is None:
        raise UsageError("digest", "must be the SHA-256 of the bundle, 64 lower-case hex digits")
    return text


def _too_large(most: int) -> Problem:
    return Problem(413, f"the bundle is larger than {most} bytes; put large weights into a data mount", "too_large")


# Models -------------------------------------------------------------------------------------------------------------
async def post_model(act: Act) -> Reply:
    """Register a revision and send all of the model's traffic to it: at once, or once a replica of it is ready."""
    wanted = await act.json(_NewModel)
    spec = _spec(wanted.spec)
    await check_policy(act, "safety.policy", spec.safety.policy)
    await _check_bundle(act, spec, wanted.digest)
    admitted = await admit(act, spec, wanted.digest) if wanted.digest else None
    digest = revision_digest(spec, wanted.digest)
    revision = Revision(
        revision_id=revision_id_of(spec.model_id, digest),
        model_id=spec.model_id,
        digest=digest,
        spec=spec,
        bundle_key=bundle_key(wanted.digest) if wanted.digest else None,
        openapi=wanted.openapi,
        created_at=act.ports.clock.now(),
    )
    tenant_id = await act.tenant(wanted.tenant_id)
    fleet = await act.ports.fleet.load()
    options = options_of(spec.rollout, wanted.rollout)
    policy_of(options)  # its faults are told before anything is stored
    strategy = wanted.strategy or strategy_of(fleet, spec)
    if strategy is Strategy.CANARY:
        await check_free(act, fleet, spec.model_id)
    routing = decide_deploy(fleet, revision, strategy)
    visibility = await check_entry(act, fleet, revision, canary=isinstance(routing, PlanRoute) and routing.held)
    registering = RegisterRevision(revision, tenant_id, visibility, "deployed")
    decided = await _apply(act, [registering, routing])
    held = isinstance(routing, PlanRoute) and routing.held
    rollout = await begin_rollout(act, fleet, revision, options) if held else None
    created = decided[0].why != ALREADY_SO
    return json_reply(
        201 if created else 200,
        {
            "model_id": spec.model_id,
            "revision_id": revision.revision_id,
            "digest": digest,
            "created": created,
            "routed": decided[1].why != ALREADY_SO and isinstance(routing, SetRoutes),
            "pending": isinstance(routing, PlanRoute) and not held,
            "rollout": rollout.rollout_id if rollout else None,
            "endpoints": [endpoint.path for endpoint in spec.endpoints],
            "files": admitted.reason if admitted else "none of its own",
            "visibility": visibility,
        },
    )


def _spec(values: Mapping[str, object]) -> ModelSpec:
    from forestay.fleet import spec_file  # noqa: PLC0415 - pydantic and YAML cost memory that an idle gateway saves

    try:
        return spec_file.from_values(values, "spec")
    except UsageError as error:
        error.field = "spec"
        raise


async def _check_bundle(act: Act, spec: ModelSpec, digest: str | None) -> None:
    if spec.host.kind is not HostKind.FAL_APP:
        if digest is not None:
            raise UsageError("digest", f"a model of kind {spec.host.kind} has no bundle; send null")
        return
    if digest is None:
        raise UsageError("digest", "a fal_app needs a bundle; PUT it to /admin/bundles/{digest} first")
    if spec.host.include:
        raise UsageError("spec", "host.include is resolved into the bundle before it is sent; send an empty list")
    if await act.ports.objects.size(bundle_key(_digest(digest))) is None:
        raise UsageError("digest", f"no bundle {digest}; PUT it to /admin/bundles/{digest} first")


async def get_models(act: Act) -> Reply:
    """List models with their routes, and how their readiness stands."""
    fleet = await act.ports.fleet.load()
    standings = await act.ports.admin.readiness.standings()
    views = [
        {**model_view(fleet, model_id), "readiness": _standing(standings.get(model_id), fleet.now)}
        for model_id in sorted(fleet.models)
    ]
    return json_reply(200, {"models": views})


def _standing(standing: Standing | None, now: dt.datetime) -> dict[str, object]:
    """Return how a model's readiness stands, and how old that is."""
    if standing is None:
        return {"state": "not reviewed"}
    since = standing.unready_since
    return {
        "state": standing.state,
        "reviewed_seconds_ago": max(0.0, (now - standing.reviewed_at).total_seconds()),
        "unready_seconds": None if since is None else max(0.0, (now - since).total_seconds()),
        "admitted_at": standing.admitted_at,
        "admitted_by": standing.admitted_by,
    }


async def get_model(act: Act) -> Reply:
    """Show one model with its spec, revisions and replicas; `interface=1` adds the OpenAPI of what serves."""
    text = f"{act.path('owner')}/{act.path('alias')}"
    fleet = await act.ports.fleet.load()
    model_id = ModelId(text)
    if model_id not in fleet.models:
        raise NotThere(f"no model {text[:200]!r}; `forestay model list` shows those that exist")
    revisions = [item for item in fleet.revisions.values() if item.model_id == model_id]
    return json_reply(
        200,
        {
            **model_view(fleet, model_id),
            "spec": spec_to_json(fleet.models[model_id].spec),
            "revisions": [
                {"revision_id": item.revision_id, "digest": item.digest, "created_at": item.created_at}
                for item in sorted(revisions, key=lambda item: item.created_at, reverse=True)
            ],
            "replicas": [item for item in fleet.replicas.values() if item.model_id == model_id],
            **({"openapi": _interface(fleet, model_id)} if act.query("interface") else {}),
        },
    )


def _interface(fleet: Fleet, model_id: ModelId) -> Mapping[str, object] | None:
    revision = serving(fleet, model_id)
    return None if revision is None else revision.openapi


def model_view(fleet: Fleet, model_id: ModelId) -> dict[str, object]:
    """Return a model in a few words."""
    entry = fleet.models[model_id]
    spec = entry.spec
    return {
        "model_id": model_id,
        "tenant_id": entry.tenant_id,
        "visibility": entry.visibility,
        "description": spec.description,
        "owner": {"team": spec.owner_team, "contact": spec.owner_contact},
        "kind": spec.host.kind,
        "endpoints": [endpoint.path for endpoint in spec.endpoints],
        "resources": spec.resources,
        "routes": [route for route in fleet.routes if route.model_id == model_id],
        "pending": fleet.pending.get(model_id),
    }


# The fleet ----------------------------------------------------------------------------------------------------------
async def get_fleet(act: Act) -> Reply:
    """Show what should be and what is."""
    fleet = await act.ports.fleet.load()
    return json_reply(
        200,
        {
            "version": fleet.version,
            "now": fleet.now,
            "brakes": await act.ports.fleet.brakes(),
            "models": [model_view(fleet, model_id) for model_id in sorted(fleet.models)],
            "placements": fleet.placements,
            "workers": [fleet.workers[key] for key in sorted(fleet.workers)],
            "replicas": [fleet.replicas[key] for key in sorted(fleet.replicas)],
            "demand": fleet.demand,
        },
    )


async def get_devices(act: Act) -> Reply:
    """Show every device (GPU) as its worker read it last, what is wrong with it, and the replicas that run there."""
    found = await act.ports.admin.devices.devices()
    return json_reply(200, {"now": act.ports.clock.now(), "devices": [_shown_device(item) for item in found]})


def _shown_device(state: DeviceState) -> dict[str, object]:
    """Return a device without the process ids, which mean something on its own machine alone."""
    reading = cast("dict[str, object]", msgspec.to_builtins(state.reading))
    del reading["processes"]
    return {
        "worker_id": state.worker_id,
        **cast("dict[str, object]", reading.pop("device")),
        **reading,
        "told": state.told,
        "replicas": state.replicas,
    }


async def post_freeze(act: Act) -> Reply:
    """Stop or resume every automatic action."""
    wanted = await act.json(_Freeze)
    reason = plain_text("reason", wanted.reason, empty=False)
    await _apply(act, [Freeze(wanted.frozen, reason)])
    return json_reply(200, await act.ports.fleet.brakes())


async def post_mode(act: Act) -> Reply:
    """Say how far a loop may go: observe, advise or act."""
    wanted = await act.json(_Mode)
    if wanted.loop not in _LOOPS:
        raise UsageError("loop", f"use one of {', '.join(_LOOPS)}")
    if wanted.model and not is_model_id(wanted.model):
        raise UsageError("model", "write it as owner/alias, or leave it out for every model")
    model_id = ModelId(wanted.model) if wanted.model else None
    await act.ports.fleet.set_mode(wanted.loop, model_id, wanted.mode, actor=act.actor)
    return json_reply(200, wanted)


async def _apply(act: Act, actions: Sequence[Action]) -> list[Decided]:
    decided = await act.ports.fleet.apply(actions, origin=Origin.HUMAN, actor=act.actor)
    for item in decided:
        if item.effect is not Effect.APPLIED:
            raise Problem(409, item.why, "refused")
    return decided
