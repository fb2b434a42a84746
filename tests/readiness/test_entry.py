"""What readiness keeps from traffic, and what it never closes."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance.memory_fleet import EPOCH
from tests.readiness.test_review import GOOD

from forestay.fleet.model import ModelEntry
from forestay.ids import TenantId
from forestay.readiness.entry import (
    AFTER_TRAFFIC,
    IN_REVIEW,
    Admission,
    Entry,
    admission_of,
    decide_entry,
    decide_visibility,
)
from forestay.readiness.model import Answer, Area, Card, Finding, Row
from forestay.readiness.review import ITEM_NAMES, review
from forestay.rollouts.model import GateVerdict
from forestay.rollouts.readiness_gate import gate_of

SPEC = GOOD.revision.spec


def card_without(*items: str) -> Card:
    """A card on which these items fail."""
    rows = [
        Row(Finding(name, Area.SAFETY, Answer.FAIL if name in items else Answer.PASS, "seen", "mend it"))
        for name in ITEM_NAMES
    ]
    return Card(GOOD.model_id, "digits-1", EPOCH, tuple(rows))


def entry_of(visibility: str) -> ModelEntry:
    """The model as the fleet has it."""
    return ModelEntry(GOOD.model_id, TenantId("acme"), visibility, SPEC)


@pytest.mark.parametrize(
    ("entry", "admission", "admitted", "visibility"),
    [
        (None, Admission.ADVISED, False, SPEC.visibility),
        (None, Admission.REQUIRED, False, IN_REVIEW),
        (None, Admission.REQUIRED, True, SPEC.visibility),
        (entry_of(IN_REVIEW), Admission.REQUIRED, False, IN_REVIEW),
        (entry_of(IN_REVIEW), Admission.ADVISED, False, SPEC.visibility),
        (entry_of("shared"), Admission.REQUIRED, False, SPEC.visibility),
    ],
)
def test_only_a_new_model_is_kept_in_review_and_only_where_readiness_is_required(
    entry: ModelEntry | None, admission: Admission, *, admitted: bool, visibility: str
) -> None:
    """What serves already is never closed by a setting that somebody turns on."""
    assert decide_visibility(SPEC, entry, admission, admitted=admitted) == visibility


@settings(deadline=None)
@given(st.sets(st.sampled_from(ITEM_NAMES)), st.sampled_from(Admission), st.booleans())
def test_what_is_required_closes_and_what_is_advised_only_tells(
    items: set[str], admission: Admission, admitted: bool
) -> None:
    """Every missing item that can be known before traffic is named; what only traffic shows holds nobody."""
    decided = decide_entry(card_without(*items), admission, admitted=admitted)
    known = items - AFTER_TRAFFIC
    assert all(f"{item}: " in decided.reason for item in known)
    if not known and admitted:
        assert decided.entry is Entry.OPEN
    else:
        assert decided.entry is (Entry.CLOSED if admission is Admission.REQUIRED else Entry.ADVISED)
    passes = gate_of(decided).verdict is GateVerdict.PASS
    assert passes is (decided.entry is not Entry.CLOSED)


def test_the_stricter_of_platform_and_spec_counts() -> None:
    """A spec may ask for more than the platform, never for less."""
    asks = dataclasses.replace(SPEC, admission="required")
    assert admission_of(SPEC, required=False) is Admission.ADVISED
    assert admission_of(SPEC, required=True) is Admission.REQUIRED
    assert admission_of(asks, required=False) is Admission.REQUIRED


def test_what_is_named_as_known_only_after_traffic_are_items_of_the_review() -> None:
    """A renamed item would open the gate silently."""
    assert set(ITEM_NAMES) > AFTER_TRAFFIC
    assert {row.finding.item for row in review(GOOD, []).rows} >= AFTER_TRAFFIC
