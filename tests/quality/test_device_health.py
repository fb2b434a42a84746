"""What readings of a device mean: which of them are told, and which of them drain what runs there."""

import dataclasses
import datetime as dt
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.conformance.memory_devices import identity_of, reading_of
from tests.quality.test_remedies import NEW, NOW, fleet_of

from forestay.fleet.devices import EccErrors, Reading, Slowdown, XidEvent
from forestay.ids import ReplicaId, RevisionId, WorkerId
from forestay.quality.catalogue import name_of
from forestay.quality.device_health import LONG_SLOWED, STANDS, decide_evidence, findings_of
from forestay.quality.findings import Finding, Kept, Where
from forestay.quality.remedies import DrainReplica, Ground, decide
from forestay.quality.suspicions import suspicions_of
from forestay.quality.xids import XIDS, label_of

DEVICE = identity_of(0)
STEP = dt.timedelta(seconds=10)


def history(*changes: Mapping[str, object]) -> list[Reading]:
    """Return readings ten seconds apart, the last of them now."""
    start = NOW - (len(changes) - 1) * STEP
    return [reading_of(DEVICE, start + place * STEP, **change) for place, change in enumerate(changes)]


def kinds(readings: Sequence[Reading], events: Sequence[XidEvent] = ()) -> dict[str, bool]:
    """Return what is told, and whether it makes the device unfit."""
    return {item.kind: item.unfit for item in decide_evidence(readings, events, NOW)}


def found(readings: Sequence[Reading], events: Sequence[XidEvent] = (), *, name: str = "r0") -> list[Finding]:
    """Return the findings against one replica."""
    where = Where(NEW.model_id, NEW.revision_id, WorkerId("w0"), ReplicaId(name))
    return findings_of(DEVICE.uuid, decide_evidence(readings, events, NOW), [where], NOW)


def drained(findings: Sequence[Finding], *, replicas: int = 3) -> list[str]:
    """Return whom the quality loop's remedies drain for findings that were just kept."""
    fleet = fleet_of(replicas)
    kept = [Kept(item, NOW, NOW, 1) for item in findings]
    remedies = decide(Ground(fleet, suspicions_of(kept, fleet), []), NOW)
    return [item.hold.replica_id for item in remedies if isinstance(item, DrainReplica)]


def test_a_device_that_is_well_or_not_told_of_is_not_spoken_of() -> None:
    """No evidence from healthy readings, from none at all, or where the driver does not tell the numbers."""
    assert kinds(history({}, {}, {"slowed": frozenset({Slowdown.POWER_CAP})})) == {}
    assert kinds([]) == {}
    assert kinds([Reading(DEVICE, NOW)] * 3) == {}


def test_uncorrected_errors_count_by_their_rise_and_a_driver_that_was_loaded_anew_is_no_rise() -> None:
    """What stood there at the start is history; three more are lost data; a fall to 0 says nothing."""
    errors = [EccErrors(uncorrected_since_boot=count) for count in (5, 5, 8)]
    evidence = decide_evidence(history(*({"ecc": item} for item in errors)), (), NOW)
    assert [item.what for item in evidence] == ["uncorrected ECC errors rose by 3"]
    assert evidence[0].unfit
    assert kinds(history({"ecc": errors[0]}, {"ecc": EccErrors(uncorrected_since_boot=0)})) == {}
    assert kinds(history({"ecc": EccErrors(corrected_since_boot=0)}, {"ecc": EccErrors(corrected_since_boot=9)})) == {}


def test_heat_is_told_only_when_it_lasts_and_drains_nobody() -> None:
    """Clocks held down for a moment are ordinary; for long they make outputs late, which is no reason to drain."""
    hot: dict[str, object] = {"slowed": frozenset({Slowdown.THERMAL})}
    assert kinds(history({}, hot, hot)) == {}
    told = found(history({}, *[hot] * 5))
    assert [item.what for item in told] == [f"device {DEVICE.uuid}: slowed by heat for 40 s"]
    assert name_of(told[0].catalogue).startswith("out of memory, and a silent fall-back")
    assert drained(told) == []
    assert kinds(history(*[hot] * 5, {})) == {}, "it is over"


def test_rows_that_wait_are_told_and_rows_that_could_not_be_replaced_make_a_device_unfit() -> None:
    """NVIDIA: pending rows do not harm work that goes on; a failed replacement does."""
    assert kinds(history({"rows_pending": True})) == {"rows": False}
    assert kinds(history({"rows_failed": True, "rows_pending": True})) == {"rows": True}


def test_a_double_bit_error_drains_the_replica_on_that_device_and_no_other() -> None:
    """Xid 48 is told with its meaning, named from the catalogue, and the quality loop takes the replica out."""
    told = found(history({}), [XidEvent(DEVICE.uuid, 48, NOW)])
    assert [item.what for item in told] == [f"device {DEVICE.uuid}: Xid 48: {XIDS[48].meaning}"]
    assert name_of(told[0].catalogue)
    assert told[0].where.device == DEVICE.uuid
    assert drained(told) == ["r0"]


def test_the_last_replica_that_serves_stays_even_on_an_unfit_device() -> None:
    """A fleet of one has nobody else: poor outputs that are alerted on beat none."""
    assert drained(found(history({}), [XidEvent(DEVICE.uuid, 79, NOW)]), replicas=1) == []


def test_a_device_that_the_driver_lost_is_unfit_and_nothing_else_is_read_of_it() -> None:
    """Readings of a device that fell off the bus are of the time before."""
    hot: dict[str, object] = {"slowed": frozenset({Slowdown.THERMAL})}
    assert kinds(history(hot, hot, hot, hot, hot, {"lost": True})) == {"lost": True}


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 999])
def test_what_a_program_brings_upon_itself_is_not_the_devices_fault(xid: int) -> None:
    """An error of the application is no evidence, and in metrics unknown numbers share one label."""
    assert kinds(history({}), [XidEvent(DEVICE.uuid, xid, NOW)]) == {}
    assert label_of(xid) == "other"


def test_an_error_stands_for_a_while_and_is_one_finding_however_often_it_is_told() -> None:
    """Told again it has the same id, so it alerts once; a quarter of an hour later it is history."""
    event = XidEvent(DEVICE.uuid, 95, NOW - STANDS)
    first, again = found(history({}), [event])[0], found(history({}, {}), [event, event])[0]
    assert first.finding_id == again.finding_id
    assert again.what.endswith("2 times")
    assert kinds(history({}), [dataclasses.replace(event, at=NOW - STANDS - STEP)]) == {}


readings = st.lists(
    st.fixed_dictionaries(
        {
            "ecc": st.builds(EccErrors, uncorrected_since_boot=st.none() | st.integers(0, 9)),
            "slowed": st.frozensets(st.sampled_from(Slowdown)),
            "rows_pending": st.none() | st.booleans(),
            "lost": st.booleans(),
        }
    ),
    max_size=9,
)
events = st.lists(st.tuples(st.sampled_from([13, 48, 63, 79, 140, 7_000]), st.integers(0, 1_200)), max_size=6)


@given(readings, events)
def test_whatever_is_read_each_kind_is_told_once_with_a_beginning_that_is_not_later_than_now(
    changes: list[dict[str, object]], noted: list[tuple[int, int]]
) -> None:
    """Unfit only by errors, lost memory or a lost device; slowed only after long; ids of findings are distinct."""
    happened = [XidEvent(DEVICE.uuid, xid, NOW - dt.timedelta(seconds=ago)) for xid, ago in noted]
    evidence = decide_evidence(history(*changes), happened, NOW)
    assert len({item.kind for item in evidence}) == len(evidence)
    assert all(item.since <= NOW for item in evidence)
    for item in evidence:
        if item.kind in {Slowdown.THERMAL, Slowdown.POWER_BRAKE}:
            assert not item.unfit
            assert item.number >= LONG_SLOWED.total_seconds()
    told = found(history(*changes), happened)
    assert len({item.finding_id for item in told}) == len(told) == len(evidence)
    assert found([], ()) == []
    assert findings_of(DEVICE.uuid, evidence, [], NOW) == [], "nobody runs there: nobody is accused"
    assert all(item.where.revision_id == RevisionId(NEW.revision_id) for item in told)
