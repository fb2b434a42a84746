"""Deploying a model from its spec: read, bundle, ask it what it is, send, register.

It decides the order and what is skipped: a revision that already has all of the model's traffic is not sent again, a
bundle that the platform holds is not sent again. What a spec means is `fleet/spec`'s, what a bundle holds is
`fleet/bundle`'s. Called by `forestay model deploy`, `forestay deploy` and, for whole fleets, by `forestay up`.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import http.client
import json
import pathlib
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import IO, cast

from forestay.cli.client import PlatformClient, Rejected
from forestay.clock import SystemClock
from forestay.errors import ForestayError, UsageError
from forestay.fleet import spec_file
from forestay.fleet.bundle import BundlePlan, plan_bundle, revision_digest, revision_id_of, write_bundle
from forestay.fleet.spec import ArtefactSpec, HostKind, ModelSpec
from forestay.fleet.spec_yaml import read_yaml
from forestay.ids import RevisionId, is_model_id
from forestay.rollouts.rolling import Strategy

Say = Callable[[str], None]
_OPENAPI_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_OPENAPI_BYTES = 8 * 1024 * 1024


class DeployFailed(ForestayError):
    """The model cannot be deployed as it is; the message says why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A spec read from a file, with what its bundle will hold."""

    values: Mapping[str, object]  # the file's fields, `host.app` relative to the bundle's root
    plan: BundlePlan
    python: str = ""  # interpreter here that has the app's packages; empty: the spec's, or ours
    must_describe: bool = False  # without its interface it is not deployed

    @property
    def spec(self) -> ModelSpec:
        """Return the spec as it is deployed."""
        return self.plan.spec


@dataclasses.dataclass(frozen=True, slots=True)
class Deployed:
    """What became of it."""

    model_id: str
    revision_id: str
    created: bool
    unchanged: bool
    bundle_bytes: int
    pending: bool = False  # another revision serves until a replica of this one is ready
    rollout: str | None = None  # the rollout that gives it its traffic


def read_candidate(file: pathlib.Path, name: str = "", python: str = "", *, must_describe: bool = False) -> Candidate:
    """Read a spec and choose its files; `name` replaces the model's own (`alias`, or `owner/alias`).

    `python` is the interpreter on this machine by which its interface is read.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(str(file), f"cannot be read: {reason}") from None
    spec = spec_file.parse(text, str(file))
    raw, _ = read_yaml(text, str(file))
    values = cast("dict[str, object]", _plain(raw))
    if name:
        values["model"] = name if "/" in name else f"{spec.model_id.partition('/')[0]}/{name}"
        if not is_model_id(str(values["model"])):
            raise UsageError("--name", f"{name!r} is not an alias or owner/alias")
        spec = spec_file.from_values(values, str(file))
    plan = plan_bundle(spec, file.parent)
    if spec.host.kind is HostKind.FAL_APP:
        host = dict(cast("dict[str, object]", values["host"]))
        values["host"] = {**host, "app": plan.spec.host.app, "include": []}
    return Candidate(values, plan, python, must_describe)


def _plain(value: object) -> object:
    """Return YAML's values as JSON's: a date becomes its text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [_plain(item) for item in cast("list[object]", value)]
    return value.isoformat() if isinstance(value, dt.date) else value


def deploy(
    client: PlatformClient,
    candidate: Candidate,
    say: Say,
    strategy: Strategy | None = None,
    rollout: Mapping[str, object] | None = None,
) -> Deployed:
    """Deploy; returns at once when the platform already routes everything to this very revision."""
    spec, plan = candidate.spec, candidate.plan
    with tempfile.NamedTemporaryFile(prefix="forestay-bundle-", suffix=".tar") as named:
        file = cast("IO[bytes]", named)
        bundle = write_bundle(plan, file) if plan.files else None
        size = file.tell()
        revision_id = revision_id_of(spec.model_id, revision_digest(spec, bundle))
        if _is_routed(client, spec, revision_id) and _is_examined(client, bundle):
            say(f"{spec.model_id}: unchanged, {revision_id}")
            return Deployed(spec.model_id, revision_id, created=False, unchanged=True, bundle_bytes=size)
        if bundle is not None:
            file.flush()
            examine_bundle(spec, pathlib.Path(named.name))
        openapi = describe(candidate, say)
        if bundle is not None:
            _send_bundle(client, bundle, file, size, say)
    wanted: dict[str, object] = {"spec": candidate.values, "digest": bundle, "openapi": openapi, "strategy": strategy}
    if rollout:
        wanted["rollout"] = dict(rollout)
    told = cast("dict[str, object]", client.post("/admin/models", wanted))
    pending = bool(told["pending"])
    later = "; the revision before it serves until a replica of this one is ready" if pending else ""
    say(f"{spec.model_id}: deployed {told['revision_id']}{later}")
    revision_id, created = RevisionId(str(told["revision_id"])), bool(told["created"])
    begun = cast("str | None", told.get("rollout"))
    if begun:
        say(f"{spec.model_id}: rollout {begun} gives it its traffic; look at it with `forestay rollout status`")
    return Deployed(spec.model_id, revision_id, created, False, size, pending, begun)  # noqa: FBT003 - in order


def lacks_room(client: PlatformClient, spec: ModelSpec) -> str:
    """Return why a model would wait for ever: no worker is of its pool, and what to do; empty where one is."""
    told = cast("dict[str, object]", client.get("/admin/fleet"))
    pools = sorted({str(worker["pool"]) for worker in cast("list[dict[str, object]]", told["workers"])})
    pool = spec.resources.pool
    if pool in pools:
        return ""
    there = f"there are workers of {', '.join(pools)}" if pools else "there is no worker at all"
    mend = f"start one (FORESTAY_POOL={pool} forestay worker), or change resources.pool"
    return f"no worker is of its pool {pool}, so its requests wait; {there}: {mend}"


def wait_for_switch(client: PlatformClient, deployed: Deployed, say: Say, clock: SystemClock) -> None:
    """Wait until a pending deploy has the model's traffic; raises DeployFailed when it is given up or replaced."""
    told = ""
    while True:
        model = cast("dict[str, object]", client.get(f"/admin/models/{deployed.model_id}"))
        plan = cast("dict[str, object] | None", model["pending"])
        if plan is None or plan["revision_id"] != deployed.revision_id:
            break
        if plan["given_up"]:
            raise DeployFailed(f"{deployed.model_id}: given up, the revision before it serves on: {plan['given_up']}")
        line = f"{deployed.model_id}: {_progress(model, deployed.revision_id)}"
        if line != told:
            say(line)
        told = line
        clock.block(_LOOK_SECONDS)
    routes = cast("list[dict[str, object]]", model["routes"])
    if [route["revision_id"] for route in routes] != [deployed.revision_id]:
        raise DeployFailed(f"{deployed.model_id}: another deploy or a person changed the routes meanwhile")
    say(f"{deployed.model_id}: {deployed.revision_id} has the traffic")


def _progress(model: Mapping[str, object], revision_id: str) -> str:
    """Say how far the replicas of a revision are."""
    replicas = cast("list[dict[str, object]]", model["replicas"])
    states = [f"{item['state']} {item['detail']}".strip() for item in replicas if item["revision_id"] == revision_id]
    return f"waiting for a replica of {revision_id}: {', '.join(states) or 'not placed yet'}"


def examine_bundle(spec: ModelSpec, tar: pathlib.Path) -> None:
    """Refuse early what the platform would refuse: UsageError with a line a finding, before any code of it is run.

    Signatures are left to the platform, which knows whom it trusts.
    """
    from forestay.artefacts import limited
    from forestay.artefacts.decide import Policy, Refuse, decide_admission
    from forestay.artefacts.signatures import Signatures

    waiver = spec.artefacts.allow_pickle
    asked = waiver.files if waiver else ()
    report = asyncio.run(limited.examine(tar, tar=True, opinions=asked))
    policy = Policy(ArtefactSpec(allow_pickle=waiver), signatures_required=False)
    today = SystemClock().now().date()
    decided = decide_admission(report.files, report.findings_with(asked), Signatures(), policy, today)
    if isinstance(decided, Refuse):
        raise UsageError(str(spec.model_id), f"its files are not admitted:\n{decided.reason}")


def describe(candidate: Candidate, say: Say) -> Mapping[str, object] | None:
    """Ask the model for its OpenAPI; None when it has none to give."""
    host = candidate.spec.host
    if host.kind is HostKind.FAL_APP:
        return _describe_app(candidate, say)
    if host.kind is HostKind.HTTP_SERVER:
        return _fetch_openapi(host.url, say)
    return None


def _describe_app(candidate: Candidate, say: Say) -> Mapping[str, object] | None:
    from forestay.worker.hosts.fal_app import describe as describe_app
    from forestay.worker.hosts.host import StartFailed
    from forestay.worker.hosts.start_mends import with_mend

    spec = candidate.spec
    say(f"{spec.model_id}: reading its interface")
    try:
        return describe_app(candidate.plan.root, spec.host.app, candidate.python or spec.host.python).openapi
    except StartFailed as error:
        reason = with_mend(error.reason, spec.host)
        mend = "--python names an interpreter on this machine that has its packages"
        if not spec.host.requirements or candidate.must_describe:
            raise DeployFailed(f"{spec.model_id}: {reason}; mend the app, or {mend}") from None
        last = error.reason.rsplit("\n", 1)[-1]
        say(f"{spec.model_id}: its interface is unknown, so its inputs are not checked before it: {last}; {mend}")
        return None


def _fetch_openapi(url: str, say: Say) -> Mapping[str, object] | None:
    request = urllib.request.Request(f"{url}/openapi.json", headers={"accept": "application/json"})  # noqa: S310 - http(s) only, checked by the spec
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        with urllib.request.urlopen(request, timeout=_OPENAPI_SECONDS) as answer:  # noqa: S310 - as above
            body = cast("bytes", answer.read(_OPENAPI_BYTES + 1))
        if len(body) <= _OPENAPI_BYTES:
            value: object = json.loads(body)
            if isinstance(value, dict):
                return cast("dict[str, object]", value)
    say(f"{url} serves no /openapi.json: inputs are not checked before they reach the model")
    return None


def _is_routed(client: PlatformClient, spec: ModelSpec, revision_id: RevisionId) -> bool:
    try:
        model = cast("dict[str, object]", client.get(f"/admin/models/{spec.model_id}"))
    except Rejected as error:
        if error.status == 404:
            return False
        raise
    routes = cast("list[dict[str, object]]", model["routes"])
    if model["pending"] is not None:
        return False  # deploying what is routed takes back what was planned
    return model["visibility"] == spec.visibility and [route["revision_id"] for route in routes] == [revision_id]


def _is_examined(client: PlatformClient, bundle: str | None) -> bool:
    """Tell whether the platform has a report on the bundle: one of before reports were kept is deployed again."""
    if bundle is None:
        return True
    reply = client.send("GET", f"/admin/bundles/{bundle}")
    return reply.status == 200 and cast("dict[str, object]", reply.json()).get("examined") is True


def _send_bundle(client: PlatformClient, digest: str, file: IO[bytes], size: int, say: Say) -> None:
    path = f"/admin/bundles/{digest}"
    if client.send("GET", path).status == 200:
        return
    say(f"sending {size:,} bytes")
    file.seek(0)
    client.put(path, file, "application/x-tar")


# A whole fleet ------------------------------------------------------------------------------------------------------
def read_fleet(file: pathlib.Path) -> list[pathlib.Path]:
    """Read a fleet file: `models:` with the paths of specs, relative to it."""
    models = _fleet_values(file).get("models")
    if not isinstance(models, list) or not all(isinstance(item, str) for item in cast("list[object]", models)):
        raise UsageError(str(file), "must hold `models:` with a list of paths to model specs")
    return [file.parent / item for item in cast("list[str]", models)]


def read_tenant_policies(file: pathlib.Path) -> dict[str, str]:
    """Read a fleet file's `tenants:`, which names for each the policy that judges whatever it calls."""
    tenants = _fleet_values(file).get("tenants", {})
    if not isinstance(tenants, dict):
        raise UsageError(str(file), "`tenants:` must map tenants to `{policy: NAME}`")
    found: dict[str, str] = {}
    for name, held in cast("dict[object, object]", tenants).items():
        policy = cast("dict[object, object]", held).get("policy") if isinstance(held, dict) else None
        if not isinstance(policy, str) or len(cast("dict[object, object]", held)) != 1:
            raise UsageError(str(file), f"tenants.{name} must be `{{policy: NAME}}`; `none` ends a policy of its own")
        found[str(name)] = policy
    return found


def _fleet_values(file: pathlib.Path) -> dict[str, object]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(str(file), f"cannot be read: {reason}") from None
    values, _ = read_yaml(text, str(file))
    return cast("dict[str, object]", values) if isinstance(values, dict) else {}


def set_tenant_policy(client: PlatformClient, tenant_id: str, policy_id: str, reason: str) -> dict[str, object]:
    """Have a policy judge whatever a tenant calls, beside each model's own; `none` ends it."""
    path = f"/admin/safety/tenants/{urllib.parse.quote(tenant_id, safe='')}"
    body = json.dumps({"policy_id": None if policy_id == "none" else policy_id, "reason": reason}).encode()
    return cast("dict[str, object]", client.put(path, body, "application/json"))


def load_fleet(client: PlatformClient, file: pathlib.Path, say: Say) -> list[Deployed]:
    """Deploy every model of a fleet file, one after another, and set tenants' policies; unchanged ones are skipped."""
    tenants = read_tenant_policies(file)
    candidates = [read_candidate(path) for path in read_fleet(file)]  # every fault of a spec before anything is sent
    names = [candidate.spec.model_id for candidate in candidates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(str(file), f"{twice[0]} is declared by two specs")
    deployed = [deploy(client, candidate, say) for candidate in candidates]
    for tenant_id, policy_id in tenants.items():
        told = set_tenant_policy(client, tenant_id, policy_id, f"fleet file {file.name}")
        if told["changed"]:
            say(f"{tenant_id}: policy of its own: {policy_id}")
    return deployed
