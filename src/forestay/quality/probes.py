"""What the probes inside a model's process saw of one request, held against what was asked for. Pure.

It decides whether an output is broken although its file may look whole (numbers that were none), and what else is worth
a finding: adapters that act though nobody asked for them, or do not act though somebody did, steps that were not done,
prompts cut off. Reports come from the model's process, so nothing in them is believed beyond its type and size.
Written by `worker/hosts/probe.py`, called by the worker.
"""

import dataclasses
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import msgspec

from forestay.fleet.spec_quality import OutputCheck
from forestay.quality.asked import asked_of
from forestay.quality.contracts import Row, Standing
from forestay.quality.findings import Finding, Source, Where

PROBE_HEADER = "x-forestay-probe"  # of an answer of the model; it never leaves the worker
MAX_REPORT_CHARS = 8_192
MAX_NAMES = 16
LEAK, NOT_APPLIED, FEWER_STEPS, NOT_FINITE, CUT_OFF = 23, 24, 14, 1, 26  # rows of the catalogue
_ADAPTER_NAMES = ("lora", "adapter")


class NotFinite(msgspec.Struct, frozen=True):
    """The first stage of a call that made no numbers."""

    stage: str
    step: int = 0


class PipelineCall(msgspec.Struct, frozen=True):
    """One call of one pipeline."""

    pipeline: str = ""
    scheduler: str = ""
    scheduler_digest: str = ""
    scheduler_order: int = 1
    steps: int = 0  # of the scheduler
    steps_given: float | None = None
    strength: float | None = None
    guidance: float | None = None
    dtype: str = ""
    vae_dtype: str = ""
    device: str = ""
    tokens: tuple[int, int] = (0, 0)  # kept, cut off
    adapters: dict[str, float] = {}
    not_finite: NotFinite | None = None


class Report(msgspec.Struct, frozen=True):
    """Of one request."""

    calls: tuple[PipelineCall, ...] = ()
    left: dict[str, float] = {}  # adapters that still act when the request is over
    fingerprint: str = ""
    environment: str = ""  # class of device, and versions of the libraries
    prints: tuple[dict[str, object], ...] = ()  # fingerprints of the pipelines, in full
    settings: dict[str, dict[str, str]] = {}  # of a canary: class of a pipeline -> its scheduler's settings


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What a report says of an output."""

    broken: Row | None
    findings: tuple[Finding, ...]


def read_report(text: str | None) -> Report | None:
    """Read the header; None where there is none, or nothing that can be believed."""
    if not text or len(text) > MAX_REPORT_CHARS:
        return None
    try:
        return msgspec.json.decode(text, type=Report)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None


def check_report(report: Report, body: object, where: Where, now: dt.datetime) -> Seen:
    """Hold a report against the parsed input of its request."""
    ill = next((call for call in report.calls if call.not_finite is not None), None)
    findings = [*_not_finite(ill, where, now), *_adapters(report, body, where, now)]
    for call in report.calls[:1]:
        findings += [*_steps(call, body, where, now), *_tokens(call, where, now)]
    return Seen(None if ill is None else _row(ill), tuple(findings))


def _row(call: PipelineCall) -> Row:
    return Row(OutputCheck.NOT_A_NUMBER, "", Standing.FAILED, 1.0, 0.0, _words(call))


def _words(call: PipelineCall) -> str:
    ill = call.not_finite or NotFinite("")
    at = f" at step {ill.step}" if ill.stage in {"denoiser", "scheduler"} else ""
    return f"the pipeline's {_plain(ill.stage)} made values that are no numbers{at}"


def _not_finite(call: PipelineCall | None, where: Where, now: dt.datetime) -> Iterator[Finding]:
    if call is not None and call.not_finite is not None:
        stage, precision = _plain(call.not_finite.stage), _plain(call.vae_dtype or call.dtype)
        place = _at(where, call, f"stage={stage}")
        words = f"{_words(call)} ({precision})" if precision else _words(call)
        yield Finding(words, NOT_FINITE, place, {"step": float(call.not_finite.step)}, now, Source.PROBE)


def _adapters(report: Report, body: object, where: Where, now: dt.datetime) -> Iterator[Finding]:
    live = {name: scale for call in report.calls for name, scale in call.adapters.items()}
    asked = asks_adapters(body)
    if not asked and live:
        words = f"{_names(live)} acted on a request that asked for no adapter: left over from another"
        yield Finding(words, LEAK, _adapter(where, live), {"scale": max(live.values())}, now, Source.PROBE)
    elif report.left:
        words = f"{_names(report.left)} still acts when its request is over"
        yield Finding(
            words, LEAK, _adapter(where, report.left), {"scale": max(report.left.values())}, now, Source.PROBE
        )
    if asked and report.calls and not live:
        words = "an adapter was asked for and none acted"
        yield Finding(words, NOT_APPLIED, where, {"adapters": 0.0}, now, Source.PROBE)


def _steps(call: PipelineCall, body: object, where: Where, now: dt.datetime) -> Iterator[Finding]:
    """Compare steps asked for, handed to the pipeline, and done; a scheduler of order 2 takes two for one."""
    asked, given = asked_of(body).steps, call.steps_given
    done = -(-call.steps // max(1, call.scheduler_order))
    due = int(given * min(1.0, call.strength or 1.0)) if given is not None else None
    place = _at(where, call, "num_inference_steps")
    if due is not None and call.steps and done < due - 1:
        words = f"{done} steps were done of {due}"
        yield Finding(words, FEWER_STEPS, place, {"done_steps": done, "due_steps": due}, now, Source.PROBE)
    elif asked is not None and given is not None and given < asked:
        words = f"the pipeline was called for {given:g} steps, {asked} were asked for"
        yield Finding(words, FEWER_STEPS, place, {"given_steps": given, "asked_steps": asked}, now, Source.PROBE)


def _tokens(call: PipelineCall, where: Where, now: dt.datetime) -> Iterator[Finding]:
    kept, cut = call.tokens
    if cut > 0 and kept < 16:  # an encoder's usual limit is the caller's to know; one so short was set by somebody
        words = f"prompts are cut after {kept} tokens"
        yield Finding(words, CUT_OFF, _at(where, call, "prompt"), {"kept_tokens": kept, "cut_tokens": cut}, now,
                      Source.PROBE)  # fmt: skip


def asks_adapters(body: object, depth: int = 0) -> bool:
    """Tell whether an input names any adapter: a field called so, anywhere, that is not empty and not 0."""
    if depth > 4:
        return False
    if isinstance(body, dict):
        for name, value in cast("Mapping[str, object]", body).items():
            if any(part in str(name).lower() for part in _ADAPTER_NAMES) and value not in (None, "", 0, False, [], {}):
                return True
            if asks_adapters(value, depth + 1):
                return True
        return False
    items = cast("Sequence[object]", body) if isinstance(body, list) else ()
    return any(asks_adapters(item, depth + 1) for item in items[:100])


def _at(where: Where, call: PipelineCall, parameter: str) -> Where:
    return dataclasses.replace(where, device=where.device or _plain(call.device), parameter=parameter)


def _adapter(where: Where, live: Mapping[str, float]) -> Where:
    return dataclasses.replace(where, parameter=f"adapter={_plain(min(live))}")


def _names(live: Mapping[str, float]) -> str:
    return "adapter " + ", ".join(_plain(name) for name in sorted(live)[:MAX_NAMES])


def _plain(name: str) -> str:
    """Return a name from a model's process as it may stand in records: short, printable."""
    return "".join(char for char in name[:64] if char.isprintable() and char not in "<>\"'`")
