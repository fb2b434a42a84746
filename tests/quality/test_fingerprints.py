"""What an output was made with: one digest, and combinations that a spec forbids."""

import datetime as dt
import json

from hypothesis import given
from hypothesis import strategies as st

from forestay.fleet.spec_quality import Forbidden
from forestay.ids import ModelId, ReplicaId, RevisionId
from forestay.quality.findings import Source, Where
from forestay.quality.fingerprints import MAX_DESCRIBED_CHARS, check_forbidden, fingerprint_of
from forestay.quality.probes import PipelineCall, Report

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
WHERE = Where(ModelId("acme/digits"), RevisionId("digits-1"), replica_id=ReplicaId("r1"))
CALL = PipelineCall("StableDiffusionPipeline", "DDIMScheduler", "ab12", dtype="float16", device="cuda:0", steps=20)
REPORT = Report((CALL,), fingerprint="f" * 16, environment="H100, torch 2.13.0, diffusers 0.42.0")


def changed(**parts: object) -> Report:
    """A report whose call differs in some parts."""
    values = {name: getattr(CALL, name) for name in PipelineCall.__struct_fields__}
    call = PipelineCall(**{**values, **parts})  # type: ignore[arg-type]
    return Report((call,), fingerprint="f" * 16, environment=REPORT.environment)


def digest(report: Report) -> str:
    """The digest of a report's fingerprint."""
    found = fingerprint_of(report)
    assert found is not None
    return found.digest


def test_what_an_input_decides_alone_leaves_the_fingerprint_as_it_is() -> None:
    """Steps, tokens and guidance are the caller's; precision, scheduler and adapters are not."""
    assert digest(changed(steps=50, tokens=(9, 0), guidance=7.0, steps_given=50.0)) == digest(REPORT)
    others = [changed(dtype="float32"), changed(scheduler_digest="cd34"), changed(adapters={"noir": 1.0})]
    others.append(Report((CALL,), fingerprint="0" * 16, environment=REPORT.environment))
    others.append(Report((CALL,), fingerprint="f" * 16, environment="A100"))
    assert len({digest(item) for item in [REPORT, *others]}) == 6
    assert fingerprint_of(Report(fingerprint="f" * 16)) is None


def test_a_forbidden_combination_is_a_finding_only_where_all_of_it_is_so() -> None:
    """With the place, the rule and its reason."""
    rules = [
        Forbidden({"dtype": "float16", "scheduler": "DDIMScheduler"}, "overflows in half precision"),
        Forbidden({"dtype": "float16", "device": "cpu"}),
        Forbidden({"library": "diffusers 0.42.0", "device": "cuda"}),
        Forbidden({}),
    ]
    found = check_forbidden(REPORT, rules, WHERE, NOW)
    assert [item.what for item in found] == [
        "the spec forbids dtype=float16, scheduler=DDIMScheduler: overflows in half precision",
        "the spec forbids device=cuda, library=diffusers 0.42.0",
    ]
    assert {(item.source, item.where.replica_id) for item in found} == {(Source.PROBE, "r1")}
    assert found[0].finding_id != found[1].finding_id
    assert check_forbidden(changed(dtype="float32"), rules[:1], WHERE, NOW) == []
    assert check_forbidden(changed(adapters={"noir": 1.0}), [Forbidden({"adapter": "noir"})], WHERE, NOW) != []


@given(st.lists(st.text(max_size=400), max_size=40), st.text(max_size=50))
def test_whatever_a_model_says_of_itself_is_kept_as_bounded_json(names: list[str], environment: str) -> None:
    """The digest is the same for the same words."""
    calls = tuple(PipelineCall(name, dtype=environment) for name in names)
    report = Report(calls, prints=tuple({name: name} for name in names), environment=environment)
    found = fingerprint_of(report)
    assert (found is None) == (not names)
    if found is not None:
        assert found == fingerprint_of(report)
        assert json.loads(found.described)["calls"]
        assert len(found.described) <= MAX_DESCRIBED_CHARS
        assert len(found.digest) == 16
