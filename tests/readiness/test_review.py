"""What a review says of a model, and what a person may accept for a while."""

import dataclasses
import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance.fleet_values import DIGITS, revision_of
from tests.conformance.memory_fleet import EPOCH

from forestay.errors import UsageError
from forestay.fleet.spec import ArtefactSpec, CapacitySpec, MountDigest, SafetySpec
from forestay.fleet.spec_quality import QualityMode, QualitySpec
from forestay.readiness.model import Answer, Facts, Measured, Waiver
from forestay.readiness.review import ITEM_NAMES, checked_waiver, review

TODAY = EPOCH.date()
REVISION = dataclasses.replace(revision_of("digits-1"), bundle_key="bundles/x.tar", openapi={"paths": {}})
SPEC = dataclasses.replace(
    REVISION.spec,
    safety=SafetySpec("standard"),
    quality=QualitySpec(QualityMode.ENFORCE),
    capacity=CapacitySpec(gpu_seconds=1.0),
    licence="Apache-2.0",
    owner_team="painters",
    owner_contact="painters@acme.invalid",
    owner_escalation="acme on call, +49 30 000000",
    intended_use="illustrations for articles",
)
GOOD = Facts(
    model_id=DIGITS,
    revision=dataclasses.replace(REVISION, spec=SPEC),
    now=EPOCH,
    replicas_ready=1,
    workers_of_pool=1,
    memory_of_pool_mb=64_000,
    slos=("availability",),
    signed_by=("ada",),
    measured=Measured(requests=300, failed=1, broken=0, seconds_median=0.5, seconds_p95=1.0),
)


def answers(facts: Facts) -> dict[str, Answer]:
    """What each item says."""
    return {row.finding.item: row.finding.answer for row in review(facts, []).rows}


def test_a_model_that_has_everything_is_ready_and_each_item_has_evidence() -> None:
    """Every area is asked about."""
    card = review(GOOD, [])
    assert card.ready, card.missing
    assert card.missing == ()
    assert tuple(row.finding.item for row in card.rows) == ITEM_NAMES
    assert len({row.finding.area for row in card.rows}) == 6
    assert all(row.finding.evidence for row in card.rows)


@pytest.mark.parametrize(
    ("changes", "item", "answer"),
    [
        ({"replicas_ready": 0}, "start", Answer.INCONCLUSIVE),
        ({"slos": ()}, "objectives", Answer.FAIL),
        ({"slos_broken": ("availability",)}, "objectives", Answer.FAIL),
        ({"measured": Measured(requests=10, failed=0)}, "errors", Answer.INCONCLUSIVE),
        ({"measured": Measured(requests=300, failed=60)}, "errors", Answer.FAIL),
        ({"measured": Measured()}, "errors", Answer.INCONCLUSIVE),
        ({"measured": Measured(requests=300, broken=50)}, "broken outputs", Answer.FAIL),
        ({"measured": Measured(requests=300, seconds_p95=1e6)}, "time", Answer.FAIL),
        ({"unsafe_files": ("a.pkl",)}, "files", Answer.FAIL),
        ({"signed_by": None}, "files", Answer.INCONCLUSIVE),
        ({"signed_by": ()}, "signature", Answer.FAIL),
        ({"signed_by": None, "weights": 0}, "files", Answer.INCONCLUSIVE),
        ({"policy_known": False}, "policy", Answer.FAIL),
        ({"workers_of_pool": 0}, "room", Answer.FAIL),
        ({"memory_of_pool_mb": 10}, "room", Answer.FAIL),
        ({"revision": dataclasses.replace(GOOD.revision, openapi=None)}, "interface", Answer.FAIL),
    ],
)
def test_what_is_missing_keeps_it_out_and_is_named_with_its_mend(
    changes: dict[str, object], item: str, answer: Answer
) -> None:
    """What nobody knows is as good as a failure."""
    facts = dataclasses.replace(GOOD, **changes)  # type: ignore[arg-type]  # as parametrised
    assert answers(facts)[item] is answer
    card = review(facts, [])
    assert not card.ready
    [told] = [line for line in card.missing if line.startswith(f"{item}: ")]
    assert told.rpartition("; ")[2]


@pytest.mark.parametrize(
    ("changes", "item"),
    [
        ({"licence": "TODO"}, "licence"),
        ({"owner_team": ""}, "owner"),
        ({"owner_contact": "someone@example.com"}, "owner"),
        ({"owner_escalation": "TODO"}, "owner"),
        ({"intended_use": "fill in"}, "intended use"),
        ({"safety": SafetySpec()}, "policy"),
        ({"quality": QualitySpec()}, "output checks"),
    ],
)
def test_placeholders_of_a_spec_are_no_answers(changes: dict[str, object], item: str) -> None:
    """A template that nobody has filled in does not pass."""
    spec = dataclasses.replace(SPEC, **changes)  # type: ignore[arg-type]  # as parametrised
    assert (
        answers(dataclasses.replace(GOOD, revision=dataclasses.replace(GOOD.revision, spec=spec)))[item] is Answer.FAIL
    )


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 400))
def test_more_failures_never_make_a_model_readier(failed: int, requests: int) -> None:
    """Monotone, and a rate that nobody can know is inconclusive."""
    order = {Answer.PASS: 0, Answer.INCONCLUSIVE: 1, Answer.FAIL: 2}
    failed = min(failed, requests)

    def said(count: int) -> int:
        return order[answers(dataclasses.replace(GOOD, measured=Measured(requests=requests, failed=count)))["errors"]]

    assert said(failed) <= said(min(requests, failed + 1)) or requests == 0


def test_a_bundle_without_weights_needs_no_signature_but_what_is_mounted_needs_a_digest() -> None:
    """There is nothing that a key could vouch for; a mount that nobody holds to a digest is as good as unsigned."""
    light = dataclasses.replace(GOOD, signed_by=(), weights=0)
    assert answers(light)["signature"] is Answer.PASS
    mounted = dataclasses.replace(SPEC, artefacts=ArtefactSpec(mounts=(MountDigest("/data", reason="too large"),)))
    loose = dataclasses.replace(light, revision=dataclasses.replace(REVISION, spec=mounted))
    assert answers(loose)["signature"] is Answer.FAIL


def test_a_waiver_counts_for_its_item_until_its_day_and_the_card_goes_on_showing_it() -> None:
    """The day itself included; afterwards the model is out again."""
    facts = dataclasses.replace(GOOD, signed_by=())
    waiver = Waiver("signature", "ada", "the key comes in January", TODAY)
    card = review(facts, [waiver])
    assert card.ready
    [row] = [row for row in card.rows if row.waived is not None]
    assert (row.finding.item, row.finding.answer) == ("signature", Answer.FAIL)
    later = dataclasses.replace(facts, now=EPOCH + dt.timedelta(days=1))
    assert not review(later, [waiver]).ready
    assert review(GOOD, [waiver]).rows == review(GOOD, []).rows


@pytest.mark.parametrize(
    ("waiver", "field"),
    [
        (Waiver("beauty", "ada", "why", TODAY), "item"),
        (Waiver("signature", " ", "why", TODAY), "owner"),
        (Waiver("signature", "ada", " ", TODAY), "reason"),
        (Waiver("signature", "ada", "why", TODAY - dt.timedelta(days=1)), "until"),
        (Waiver("signature", "ada", "why", TODAY + dt.timedelta(days=181)), "until"),
    ],
)
def test_a_waiver_needs_an_owner_a_reason_and_an_end(waiver: Waiver, field: str) -> None:
    """What is accepted for ever belongs in the spec."""
    with pytest.raises(UsageError, match=field):
        checked_waiver(waiver, ITEM_NAMES, TODAY)
