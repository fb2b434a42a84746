"""The model spec, version 0: the one YAML file that declares a model.

Frozen values, and the doors to them: `parse_spec` for the YAML of a person (pydantic, loaded only then, in
`fleet/spec_file`), `spec_from_json` and `spec_to_json` for what is stored and sent.
"""

import dataclasses
import datetime as dt
import enum
from collections.abc import Mapping

import msgspec

from forestay.fleet.spec_quality import QualitySpec
from forestay.fleet.spec_rollout import RolloutSpec
from forestay.fleet.spec_slos import SloSpec
from forestay.ids import ModelId


class HostKind(enum.StrEnum):
    """How a model is run."""

    FAL_APP = "fal_app"  # an unmodified fal.App class, in a child process
    HTTP_SERVER = "http_server"  # any HTTP server at a URL
    PROVIDER = "provider"  # another fal-compatible platform or plain JSON API upstream


@dataclasses.dataclass(frozen=True, slots=True)
class HostSpec:
    """How to run it. Fields that a kind does not use keep their defaults."""

    kind: HostKind
    app: str = ""  # fal_app: "file.py::Class", relative to the bundle's root folder of the spec
    python: str | None = None  # fal_app: interpreter; None is Forestay's own
    requirements: tuple[str, ...] = ()  # fal_app: pip requirements, built into a cached environment
    include: tuple[str, ...] = ()  # fal_app: further files or folders for the bundle, relative to the spec
    data_mounts: tuple[str, ...] = ()  # fal_app: "host_folder:path_seen_by_the_model"
    secrets: tuple[str, ...] = ()  # names only; values come from the worker's secrets folder
    env: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    url: str = ""  # http_server, provider: base URL
    health_path: str = "/health"  # http_server: GET, 2xx means healthy
    protocol: str = "fal"  # provider: fal (queue protocol) | json (plain POST)
    key_secret: str = ""  # provider: name of the secret that holds the upstream key
    network: str = "none"  # fal_app: none | loopback | full, what the model's process may reach


@dataclasses.dataclass(frozen=True, slots=True)
class EndpointSpec:
    """One callable path of the model."""

    path: str  # "/", "/edit"
    kind: str = "call"  # call | stream | realtime
    media_inputs: tuple[str, ...] = ()  # top-level input fields that are media URLs: fetched for the model
    media_kinds: Mapping[str, str] = dataclasses.field(
        default_factory=dict[str, str]
    )  # field -> image | video | audio | weights | file; a field of `media_inputs` that is not here takes any media


@dataclasses.dataclass(frozen=True, slots=True)
class ResourceSpec:
    """What one replica takes."""

    pool: str = "cpu"
    devices: int = 1
    memory_mb: int = 2048
    processes: int = 1024  # processes and threads together
    cpus: int = 0  # processor cores; 0: all


@dataclasses.dataclass(frozen=True, slots=True)
class LimitSpec:
    """Limits of concurrency and time, fal's names and defaults."""

    max_multiplexing: int = 1
    request_timeout_seconds: float = 3600.0
    request_start_timeout_seconds: float | None = None
    startup_timeout_seconds: float = 600.0
    termination_grace_seconds: float = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class RetrySpec:
    """fal's knobs: conditions never retried, and extra attempts per condition."""

    skip_conditions: tuple[str, ...] = ()
    config: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])  # condition -> retries


@dataclasses.dataclass(frozen=True, slots=True)
class PickleWaiver:
    """Pickles that are admitted all the same: by name, for a reason, until a day (included)."""

    files: tuple[str, ...]  # names as they are in the bundle
    reason: str
    until: dt.date


@dataclasses.dataclass(frozen=True, slots=True)
class MountDigest:
    """What a data mount must hold; without a digest nothing is checked, and `reason` says why that is accepted."""

    folder: str  # host folder, or one below it
    digest: str = ""  # "sha256:<hex>" of the folder's manifest
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ArtefactSpec:
    """What is asked of the model's own files."""

    signature: str = "optional"  # optional | required: weights must be signed
    keys: tuple[str, ...] = ()  # names of trusted keys that count; none means any
    allow_pickle: PickleWaiver | None = None
    mounts: tuple[MountDigest, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class CapacitySpec:
    """What the owner knows of a request's cost before any was measured, in device-seconds."""

    gpu_seconds: float | None = None  # of a usual request
    scales_with: tuple[str, ...] = ()  # features of the input; empty: all that are known
    price_per_gpu_second: float = 0.0  # in the currency of the budgets
    max_gpu_seconds: float | None = None  # a request predicted to take more is refused


UNGUARDED = "unguarded"


@dataclasses.dataclass(frozen=True, slots=True)
class SafetySpec:
    """What is asked of content."""

    policy: str = UNGUARDED  # the policy that judges inputs and outputs; `unguarded` names no check


@dataclasses.dataclass(frozen=True, slots=True)
class ModelSpec:
    """What the YAML says."""

    model_id: ModelId
    description: str
    owner_team: str
    owner_contact: str
    licence: str
    visibility: str
    host: HostSpec
    endpoints: tuple[EndpointSpec, ...]
    resources: ResourceSpec = dataclasses.field(default_factory=ResourceSpec)
    limits: LimitSpec = dataclasses.field(default_factory=LimitSpec)
    retry: RetrySpec = dataclasses.field(default_factory=RetrySpec)
    artefacts: ArtefactSpec = dataclasses.field(default_factory=ArtefactSpec)
    capacity: CapacitySpec = dataclasses.field(default_factory=CapacitySpec)
    safety: SafetySpec = dataclasses.field(default_factory=SafetySpec)
    quality: QualitySpec = dataclasses.field(default_factory=QualitySpec)
    slos: tuple[SloSpec, ...] = ()
    version: int = 0
    owner_escalation: str = ""  # who is called when the team does not answer
    intended_use: str = ""
    risks: tuple[str, ...] = ()
    rollout: RolloutSpec = dataclasses.field(default_factory=RolloutSpec)
    admission: str = "advised"  # advised | required: what readiness is to traffic


def parse_spec(text: str, file_name: str) -> ModelSpec:
    """Read a spec from YAML; raises UsageError naming file, line, field and mend of every fault."""
    from forestay.fleet import spec_file  # noqa: PLC0415 - pydantic and YAML cost 20 MB that a gateway does not need

    return spec_file.parse(text, file_name)


def spec_schema() -> dict[str, object]:
    """Return the JSON Schema of the YAML file."""
    from forestay.fleet import spec_file  # noqa: PLC0415 - as above

    return spec_file.json_schema()


def spec_to_json(spec: ModelSpec) -> dict[str, object]:
    """Return the spec as plain values, for the jsonb column and the wire."""
    return msgspec.to_builtins(spec)


def spec_from_json(value: object) -> ModelSpec:
    """Read back what `spec_to_json` gave; raises ValueError (msgspec.ValidationError) when it is something else."""
    return msgspec.convert(value, ModelSpec)
