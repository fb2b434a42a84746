"""Reading a model spec from YAML: the edge where what a person wrote becomes frozen values.

It decides what a valid spec is (fields, bounds, which fields belong to which kind of host) and says of each fault the
file, the line, the field and the mend. pydantic and YAML are imported here alone; `fleet/spec` imports this module only
when a file is read, so gateways and workers never pay for it. Called by the CLI and, for JSON, by the admin API.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, cast
from urllib.parse import urlsplit

import pydantic
import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints, model_validator
from pydantic_core import ErrorDetails

from forestay.fleet.spec import (
    CapacitySpec,
    EndpointSpec,
    HostKind,
    HostSpec,
    LimitSpec,
    ModelSpec,
    ResourceSpec,
    RetrySpec,
    SafetySpec,
)
from forestay.fleet.spec_artefacts import ArtefactFile
from forestay.fleet.spec_fields import Line as _Line
from forestay.fleet.spec_fields import Strict as _Strict
from forestay.fleet.spec_fields import shape as _shape
from forestay.fleet.spec_quality_file import (
    CanariesFile,
    CanaryFile,
    ForbiddenFile,
    QualityFile,
    ScorerFile,
    ThresholdFile,
)
from forestay.fleet.spec_rollout_file import RolloutFile, ShadowFile
from forestay.fleet.spec_slos_file import SloEntries, SloEntryFile
from forestay.fleet.spec_yaml import SpecError, line_of, read_yaml
from forestay.ids import ModelId, is_model_id

_USED_BY_KIND: Mapping[HostKind, frozenset[str]] = {
    HostKind.FAL_APP: frozenset(
        {"app", "python", "requirements", "include", "data_mounts", "secrets", "env", "network"}
    ),
    HostKind.HTTP_SERVER: frozenset({"url", "health_path"}),
    HostKind.PROVIDER: frozenset({"url", "protocol", "key_secret"}),
}
_NEEDED_BY_KIND: Mapping[HostKind, tuple[str, ...]] = {
    HostKind.FAL_APP: ("app",),
    HostKind.HTTP_SERVER: ("url",),
    HostKind.PROVIDER: ("url", "key_secret"),
}


def _model_id(text: str) -> str:
    if not is_model_id(text):
        message = "write it as owner/alias, each of letters, digits, `_`, `.` and `-`"
        raise ValueError(message)
    return text


def _url(text: str) -> str:
    parts = urlsplit(text)
    if text and (parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.query):
        message = "write a plain http:// or https:// URL without credentials and query"
        raise ValueError(message)
    return text.rstrip("/")


def _relative(text: str) -> str:
    if text.startswith("/") or "\\" in text or "\x00" in text or not text.strip("./"):
        message = "write a path relative to the spec's folder, with forward slashes"
        raise ValueError(message)
    return text


def _requirement(text: str) -> str:
    if text.startswith("-") or not text.strip():
        message = "write a requirement such as `pillow>=11`; options of the installer are not taken"
        raise ValueError(message)
    return text


def _mount(text: str) -> str:
    return text if ":" in text else f"{text}:{text}"


def _env_name(text: str) -> str:
    if text.startswith("FORESTAY_"):
        message = "names that begin with FORESTAY_ belong to the platform"
        raise ValueError(message)
    return text


_Text = Annotated[str, StringConstraints(min_length=1, max_length=2_000), *_shape(r"[^\x00]+", "holds a NUL character")]
_Value = Annotated[str, StringConstraints(max_length=4_000), *_shape(r"[^\x00]*", "holds a NUL character")]
_Name = Annotated[
    str, StringConstraints(max_length=64), *_shape(r"[A-Za-z_][A-Za-z0-9_]*", "use letters, digits and `_` only")
]
_EnvName = Annotated[_Name, AfterValidator(_env_name)]
_OptionalName = Annotated[
    str, StringConstraints(max_length=64), *_shape(r"([A-Za-z_][A-Za-z0-9_]*)?", "use letters, digits and `_` only")
]
_PoolName = Annotated[
    str,
    StringConstraints(max_length=63),
    *_shape(r"[a-z0-9][a-z0-9_.-]*", "use lower-case letters, digits, `_`, `.` and `-`"),
]
_Path = Annotated[
    str,
    StringConstraints(max_length=200),
    *_shape(r"/([A-Za-z0-9_.~-]+(/[A-Za-z0-9_.~-]+)*)?", "write a path such as `/` or `/edit`, without a final slash"),
]
_Mount = Annotated[
    str,
    StringConstraints(max_length=500),
    *_shape(r"/[^:\x00]*(:/[^:\x00]*)?", "write `/folder/of/the/worker:/path/seen/by/the/model`"),
    AfterValidator(_mount),
]
_App = Annotated[
    str,
    StringConstraints(max_length=300),
    *_shape(
        r"(([A-Za-z0-9_-][A-Za-z0-9_.-]*/)*[A-Za-z0-9_-]+\.py::[A-Za-z_]\w*)?",
        "write `file.py::Class`, the file relative to the spec's folder and below it",
    ),
]
_Condition = Literal["server_error", "timeout", "connection_error"]
_Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class OwnerFile(_Strict):
    """Who answers for the model."""

    team: _Line
    """Team that owns it."""
    contact: _Line
    """Where that team is reached: mail, chat or pager."""
    escalation: _Line | None = None
    """Who is called when the team does not answer."""


class HostFile(_Strict):
    """How the model is run."""

    kind: HostKind
    """fal_app: an unmodified fal.App class; http_server: any server at a URL; provider: an upstream platform."""
    app: _App = ""
    """fal_app: `file.py::Class`, the file relative to the spec's folder."""
    python: _Line | None = None
    """fal_app: interpreter of the model; null is the platform's own."""
    requirements: tuple[Annotated[_Line, AfterValidator(_requirement)], ...] = Field((), max_length=200)
    """fal_app: requirements, built into a cached environment."""
    include: tuple[Annotated[_Line, AfterValidator(_relative)], ...] = Field((), max_length=100)
    """fal_app: further files or folders for the bundle, relative to the spec; they may lie beside its folder."""
    data_mounts: tuple[_Mount, ...] = Field((), max_length=20)
    """fal_app: `/folder/of/the/worker:/path/seen/by/the/model`; one folder alone is seen under its own name."""
    secrets: tuple[_EnvName, ...] = Field((), max_length=50)
    """Names of secrets; the values lie in the worker's secrets folder."""
    env: Mapping[_EnvName, _Value] = Field(default_factory=dict[str, str], max_length=100)
    """fal_app: plain variables; secrets do not belong here."""
    url: Annotated[str, StringConstraints(max_length=500), AfterValidator(_url)] = ""
    """http_server, provider: base URL."""
    health_path: _Path = "/health"
    """http_server: GET answers 2xx when healthy."""
    protocol: Literal["fal", "json"] = "fal"
    """provider: fal (its queue protocol) or json (plain POST)."""
    key_secret: _OptionalName = ""
    """provider: name of the secret that holds the upstream key."""
    network: Literal["none", "loopback", "full"] = "none"
    """fal_app: none; loopback: a loopback of its own, for servers that it starts itself; full: the worker's network."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "HostFile":
        for name in _NEEDED_BY_KIND[self.kind]:
            if not getattr(self, name):
                message = f"{self.kind} needs `{name}`"
                raise ValueError(message)
        for name in sorted(self.model_fields_set - {"kind"} - _USED_BY_KIND[self.kind]):
            if getattr(self, name):
                message = f"`{name}` has no meaning for {self.kind}; take it away"
                raise ValueError(message)
        return self


class MediaInputFile(_Strict):
    """One input field that holds files; written as its name alone, it takes any picture, film or recording."""

    field: _Name
    """Top-level field of the input: a URL, a data: URI, an object with `url`, or a list of these."""
    kind: Literal["any", "image", "video", "audio", "weights", "file"] = "any"
    """any, image, video, audio: opened and cleaned by the worker; weights: safetensors, checked (`path` counts as
    `url` there); file: handed over as it is, unopened."""


def _media_input(value: object) -> object:
    if isinstance(value, dict | MediaInputFile):
        return cast("object", value)
    if not isinstance(value, str):
        message = "write a field's name, or `{field: NAME, kind: image}`"
        raise ValueError(message)  # noqa: TRY004 - pydantic reports ValueError, and lets TypeError through
    return {"field": value}


_MediaInput = Annotated[MediaInputFile, BeforeValidator(_media_input, json_schema_input_type=_Name | MediaInputFile)]


class EndpointFile(_Strict):
    """One callable path."""

    path: _Path
    """`/`, `/edit`, ..."""
    kind: Literal["call", "stream", "realtime"] = "call"
    """call: one answer; stream: server-sent events; realtime: a websocket."""
    media_inputs: tuple[_MediaInput, ...] = Field((), max_length=64)
    """Input fields that hold media: names, or `{field: image_url, kind: image}`; fetched and opened by the worker."""

    @model_validator(mode="after")
    def _fields_differ(self) -> "EndpointFile":
        fields = [item.field for item in self.media_inputs]
        twice = sorted({field for field in fields if fields.count(field) > 1})
        if twice:
            message = f"media input {twice[0]} is declared twice"
            raise ValueError(message)
        return self


class ResourceFile(_Strict):
    """What one replica takes."""

    pool: _PoolName = "cpu"
    """Pool of workers that may hold it."""
    devices: int = Field(1, ge=0, le=64)
    """Devices (GPUs or CPU slots)."""
    memory_mb: int = Field(2048, ge=0, le=4_000_000)
    """Memory in MB (1,000,000 bytes)."""
    processes: int = Field(1024, ge=16, le=65_536)
    """Processes and threads together that it may have."""
    cpus: int = Field(0, ge=0, le=1_024)
    """Processor cores that it may use; 0 means all."""


class LimitFile(_Strict):
    """Limits of concurrency and time."""

    max_multiplexing: int = Field(1, ge=1, le=1_024)
    """Requests that one replica runs at a time."""
    request_timeout_seconds: _Seconds = 3600.0
    """Longest run of one attempt."""
    request_start_timeout_seconds: _Seconds | None = None
    """A request that has not started by then expires; null waits for ever."""
    startup_timeout_seconds: _Seconds = 600.0
    """Longest start, setup included."""
    termination_grace_seconds: float = Field(5.0, ge=0, le=30, allow_inf_nan=False)
    """From the request to stop until the kill; fal's ceiling is 30."""


class RetryFile(_Strict):
    """Which failures are tried again."""

    skip_conditions: tuple[_Condition, ...] = Field((), max_length=3)
    """Conditions never retried."""
    config: Mapping[_Condition, Annotated[int, Field(ge=0, le=10)]] = Field(default_factory=dict[_Condition, int])
    """Extra attempts per condition."""


class CapacityFile(_Strict):
    """What a request costs and is worth, as far as its owner knows; measured costs replace it soon."""

    gpu_seconds: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)] | None = None
    """Device-seconds of a usual request: what is predicted until some have run."""
    scales_with: tuple[_Name, ...] = Field((), max_length=8)
    """Features that its cost grows with: steps, pixels, frames, seconds, images, loras, characters (of the text or
    prompt), or the name of a numeric input field; empty takes all but characters."""
    price_per_gpu_second: float = Field(0.0, ge=0, le=1_000, allow_inf_nan=False)
    """Price of a device-second, in the currency of the budgets."""
    max_gpu_seconds: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)] | None = None
    """A request predicted to take more device-seconds is refused with 422; null refuses none."""

    @model_validator(mode="after")
    def _makes_sense(self) -> "CapacityFile":
        twice = sorted({name for name in self.scales_with if self.scales_with.count(name) > 1})
        if twice:
            message = f"`scales_with` names {twice[0]} twice"
            raise ValueError(message)
        if (
            self.gpu_seconds is not None
            and self.max_gpu_seconds is not None
            and self.gpu_seconds > self.max_gpu_seconds
        ):
            message = "`gpu_seconds` is above `max_gpu_seconds`: every usual request would be refused"
            raise ValueError(message)
        return self


class SafetyFile(_Strict):
    """Which content the model may be asked for, and may give."""

    policy: Annotated[
        str,
        *_shape(
            r"[a-z][a-z0-9_-]{0,59}",
            "write a policy's name, such as `standard`: lower-case letters, digits, `_` and `-`, at most 60",
        ),
    ] = "unguarded"
    """The policy that judges every input and output, such as `standard`; `unguarded` names no check."""


class SpecFile(_Strict):
    """A model spec, version 0."""

    version: Literal[0]
    """Version of this format."""
    model: Annotated[str, StringConstraints(max_length=193), AfterValidator(_model_id)]
    """`owner/alias`: what callers address."""
    description: _Text
    """What the model does, in a sentence or two."""
    owner: OwnerFile
    licence: _Line
    """SPDX identifier of the model's licence."""
    intended_use: _Text | None = None
    """Who is to use it, and for what."""
    risks: tuple[_Line, ...] = Field((), max_length=50)
    """What may go wrong with it, one line each."""
    visibility: Literal["private", "shared", "public"] = "shared"
    """private: its tenant; shared: every key; public: listed to everyone."""
    admission: Literal["advised", "required"] = "advised"
    """required: callers reach it once it was admitted, and no revision gets traffic while an item of its review fails;
    advised: the review tells and closes nothing, unless the platform requires it."""
    host: HostFile
    endpoints: tuple[EndpointFile, ...] = Field(min_length=1, max_length=64)
    resources: ResourceFile = Field(default_factory=lambda: ResourceFile.model_validate({}))
    limits: LimitFile = Field(default_factory=lambda: LimitFile.model_validate({}))
    retry: RetryFile = Field(default_factory=lambda: RetryFile.model_validate({}))
    capacity: CapacityFile = Field(default_factory=lambda: CapacityFile.model_validate({}))
    artefacts: ArtefactFile = Field(default_factory=lambda: ArtefactFile.model_validate({}))
    safety: SafetyFile = Field(default_factory=lambda: SafetyFile.model_validate({}))
    quality: QualityFile = Field(default_factory=lambda: QualityFile.model_validate({}))
    rollout: RolloutFile = Field(default_factory=lambda: RolloutFile.model_validate({}))
    slos: SloEntries = ()
    """What is promised of it; without an `availability` here, the platform's default of 99 % holds."""

    @model_validator(mode="after")
    def _paths_differ(self) -> "SpecFile":
        paths = [endpoint.path for endpoint in self.endpoints]
        twice = sorted({path for path in paths if paths.count(path) > 1})
        if twice:
            message = f"endpoint {twice[0]} is declared twice"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _canaries_have_endpoints(self) -> "SpecFile":
        kinds = {endpoint.path: endpoint.kind for endpoint in self.endpoints}
        for item in self.quality.canaries.inputs:
            if kinds.get(item.endpoint, "stream") in {"stream", "realtime"}:
                message = f"canary {item.name} asks {item.endpoint}; name an endpoint of `endpoints` that is no stream"
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _mounts_are_declared(self) -> "SpecFile":
        mounted = {mount.rpartition(":")[0] for mount in self.host.data_mounts}
        declared = {mount.folder for mount in self.artefacts.mounts}
        for folder in sorted(mounted - declared):
            message = (
                f"data mount {folder} is not declared; add to artefacts.mounts "
                f"{{folder: {folder}, digest: ...}} with the output of `forestay artefact digest {folder}`"
            )
            raise ValueError(message)
        for folder in sorted(declared - mounted):
            message = f"artefacts.mounts names {folder}, which host.data_mounts does not mount"
            raise ValueError(message)
        return self


def json_schema() -> dict[str, object]:
    """Return the published JSON Schema (draft 2020-12) of the file."""
    schema = cast("dict[str, object]", SpecFile.model_json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Forestay model spec"}


def parse(text: str, file_name: str) -> ModelSpec:
    """Read a spec; raises SpecError that names file, line, field and mend of every fault."""
    values, node = read_yaml(text, file_name)
    if not isinstance(values, dict):
        raise SpecError(file_name, ["1: the file must hold fields such as `model: owner/alias`"])
    return _validated(cast("dict[str, object]", values), file_name, node)


def from_values(values: object, name: str = "spec") -> ModelSpec:
    """Check values that came as JSON over the wire."""
    return _validated(values, name, None)


def _validated(values: object, file_name: str, node: yaml.Node | None) -> ModelSpec:
    try:
        return _frozen(SpecFile.model_validate(values))
    except pydantic.ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        inner = {detail["loc"][:1] for detail in details if len(detail["loc"]) > 1}
        told = [item for item in details if item["type"] != "too_short" or item["loc"] not in inner]
        faults = dict.fromkeys(_fault(detail, node) for detail in told)
        raise SpecError(file_name, list(faults)) from None


def _fault(detail: ErrorDetails, node: yaml.Node | None) -> str:
    location = _meaningful(detail["loc"])
    field = ".".join(str(part) for part in location) or "(file)"
    return f"{line_of(node, location)}: {field}: {_mend(detail, location)}"


def _mend(detail: ErrorDetails, location: tuple[int | str, ...]) -> str:
    kind, given = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        names = list(_fields_at(location[:-1]))
        near = difflib.get_close_matches(str(location[-1]), names, n=1, cutoff=0.6)
        return f"no such field; did you mean `{near[0]}`?" if near else f"no such field; known: {', '.join(names)}"
    if kind == "missing":
        return f"is missing; add it{_meaning(location)}"
    if kind == "string_too_short" and given == "":
        return f"is empty; fill it in{_meaning(location)}"
    message = detail["msg"].removeprefix("Value error, ")
    shown = repr(given) if isinstance(given, str | int | float | bool) or given is None else type(given).__name__
    return f"{message[:1].lower()}{message[1:]} (given: {shown[:80]})" if not isinstance(given, dict) else message


def _meaningful(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Drop the parts by which pydantic names a branch or a key rather than a field (`function-after[...]`, `[key]`)."""
    return tuple(part for part in location if not (isinstance(part, str) and re.search(r"[\[\]()]", part)))


def _meaning(location: tuple[int | str, ...]) -> str:
    """Return what the reference says of a field, to follow a mend; empty where it says nothing."""
    field = _model_at(location[:-1]).model_fields.get(str(location[-1])) if location else None
    told = " ".join((field.description or "").split()) if field is not None else ""
    return f": {told}" if told else ""


def _fields_at(location: tuple[int | str, ...]) -> Iterator[str]:
    yield from _model_at(location).model_fields


def _model_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    known: Mapping[str, type[BaseModel]] = {
        "owner": OwnerFile,
        "host": HostFile,
        "endpoints": EndpointFile,
        "resources": ResourceFile,
        "limits": LimitFile,
        "retry": RetryFile,
        "capacity": CapacityFile,
        "artefacts": ArtefactFile,
        "safety": SafetyFile,
        "quality": QualityFile,
        "slos": SloEntryFile,
        "rollout": RolloutFile,
    }
    model = known.get(str(location[0]), SpecFile) if location else SpecFile
    model = MediaInputFile if "media_inputs" in location else model
    if "canaries" in location:
        return CanaryFile if "inputs" in location else CanariesFile
    model = ShadowFile if location[:2] == ("rollout", "shadow") else model
    model = ForbiddenFile if "forbidden" in location else model
    model = ScorerFile if "scorers" in location else model
    return ThresholdFile if "thresholds" in location else model


def _endpoint(file: EndpointFile) -> EndpointSpec:
    kinds = {item.field: item.kind for item in file.media_inputs if item.kind != "any"}
    return EndpointSpec(file.path, file.kind, tuple(item.field for item in file.media_inputs), kinds)


def _frozen(file: SpecFile) -> ModelSpec:
    host = file.host
    return ModelSpec(
        model_id=ModelId(file.model),
        description=file.description,
        owner_team=file.owner.team,
        owner_contact=file.owner.contact,
        licence=file.licence,
        visibility=file.visibility,
        host=HostSpec(**{name: getattr(host, name) for name in type(host).model_fields}),
        endpoints=tuple(_endpoint(item) for item in file.endpoints),
        resources=ResourceSpec(**file.resources.model_dump()),
        limits=LimitSpec(**file.limits.model_dump()),
        retry=RetrySpec(file.retry.skip_conditions, {str(name): tries for name, tries in file.retry.config.items()}),
        capacity=CapacitySpec(**file.capacity.model_dump()),
        artefacts=file.artefacts.frozen(),
        safety=SafetySpec(**file.safety.model_dump()),
        quality=file.quality.frozen(),
        slos=tuple(item.frozen() for item in file.slos),
        version=file.version,
        owner_escalation=file.owner.escalation or "",
        intended_use=file.intended_use or "",
        risks=file.risks,
        rollout=file.rollout.frozen(),
        admission=file.admission,
    )
