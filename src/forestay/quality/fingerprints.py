"""What an output was made with, in one digest, and combinations that a model's spec forbids. Pure.

It decides what belongs to a fingerprint: parts of the pipeline with digests of their settings and live weights,
precision, scheduler, adapters that acted, libraries, class of device. Two outputs with the same fingerprint, input and
seed may differ only by the device. The words come from the model's process: they are bounded, and nothing else is
believed of them. Called by the worker for each output whose pipeline was watched.
"""

import dataclasses
import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence

from forestay.fleet.spec_quality import Forbidden
from forestay.quality.findings import Finding, Source, Where
from forestay.quality.probes import PipelineCall, Report

MAX_DESCRIBED_CHARS = 8_192


@dataclasses.dataclass(frozen=True, slots=True)
class Fingerprint:
    """A digest, and what it is of."""

    digest: str  # 16 hex digits
    described: str  # JSON


def fingerprint_of(report: Report) -> Fingerprint | None:
    """Return the fingerprint of an output; None where no pipeline was called for it."""
    if not report.calls:
        return None
    calls = [_call(item) for item in report.calls]
    whole = {"calls": calls, "pipelines": report.prints, "environment": report.environment}
    text = json.dumps({**whole, "digest_of_pipelines": report.fingerprint}, sort_keys=True)
    described = text if len(text) <= MAX_DESCRIBED_CHARS else json.dumps({"calls": calls[:1]})
    return Fingerprint(hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16], described)


def _call(call: PipelineCall) -> dict[str, object]:
    """Return what a call adds to the pipelines: not what its input alone decides."""
    return {
        "pipeline": call.pipeline,
        "scheduler": call.scheduler,
        "scheduler_digest": call.scheduler_digest,
        "dtype": call.dtype,
        "vae_dtype": call.vae_dtype,
        "device": call.device,
        "adapters": dict(sorted(call.adapters.items())),
    }


def check_forbidden(report: Report, rules: Sequence[Forbidden], where: Where, now: dt.datetime) -> list[Finding]:
    """Return a finding for each forbidden combination that made an output."""
    found: list[Finding] = []
    for rule in rules:
        if any(_matches(call, report, rule.parts) for call in report.calls):
            named = ", ".join(f"{name}={value}" for name, value in sorted(rule.parts.items()))
            why = f": {rule.why}" if rule.why else ""
            place = dataclasses.replace(where, parameter=f"forbidden {named}"[:200])
            found.append(Finding(f"the spec forbids {named}{why}", 0, place, {}, now, Source.PROBE))
    return found


def _matches(call: PipelineCall, report: Report, parts: Mapping[str, str]) -> bool:
    known = {
        "pipeline": (call.pipeline,),
        "scheduler": (call.scheduler,),
        "dtype": (call.dtype,),
        "vae_dtype": (call.vae_dtype,),
        "device": (call.device.partition(":")[0],),
        "adapter": tuple(call.adapters),
        "library": tuple(part.strip() for part in report.environment.split(",")),
    }
    return bool(parts) and all(value in known.get(name, ()) for name, value in parts.items())
