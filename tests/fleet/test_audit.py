"""The audit chain: sealing, and finding what was changed. The stored chain is attacked in tests/conformance."""

import dataclasses
import datetime as dt
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.fleet.audit import AuditEntry, AuditRow, canonical, chain, find_fault, seal

AT = dt.datetime(2030, 1, 1, 12, 0, 0, 5, tzinfo=dt.UTC)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_DETAILS = st.dictionaries(st.text(max_size=5), _JSON, max_size=3)
_ENTRIES = st.builds(
    AuditEntry,
    at=st.datetimes(timezones=st.just(dt.UTC)),
    actor=st.text(max_size=9),
    action=st.text(max_size=9),
    subject=st.text(max_size=9),
    detail=_DETAILS,
    reason=st.text(max_size=9),
)


def verified(rows: list[AuditRow]) -> bool:
    """Tell whether the rows are a whole chain."""
    sequence, previous = 0, b""
    for row in rows:
        if find_fault(row, sequence, previous) is not None:
            return False
        sequence, previous = row.sequence, row.hash
    return True


@pytest.mark.threat("API9:2023")
@given(st.lists(_ENTRIES, min_size=1, max_size=4))
def test_a_chain_verifies_and_no_row_can_go_missing(entries: list[AuditEntry]) -> None:
    """Any row taken out of the middle is noticed by its neighbour."""
    rows = chain("w", 0, b"", entries)
    assert verified(rows)
    for index in range(len(rows) - 1):
        assert not verified(rows[:index] + rows[index + 1 :])


@given(_ENTRIES, st.sampled_from(["actor", "action", "subject", "reason"]))
def test_a_changed_field_is_noticed(entry: AuditEntry, field: str) -> None:
    """Every field is sealed."""
    [row] = chain("w", 0, b"", [entry])
    changed = dataclasses.replace(entry, **{field: getattr(entry, field) + "x"})
    assert not verified([dataclasses.replace(row, entry=changed)])
    assert not verified([dataclasses.replace(row, entry=dataclasses.replace(entry, detail={"new": 1}))])


@given(_DETAILS)
def test_the_seal_survives_the_database(detail: dict[str, object]) -> None:
    """What jsonb gives back (whole floats as integers, keys in another order) has the same seal."""
    entry = AuditEntry(AT, "a", "b", "c", detail, "r")
    again = json.loads(json.dumps(canonical(detail)))
    shuffled = dict(sorted(again.items(), reverse=True))
    assert seal(b"", "w", 1, entry) == seal(b"", "w", 1, dataclasses.replace(entry, detail=shuffled))


def test_another_writer_or_place_has_another_seal() -> None:
    """A row cannot be moved to another chain or another place in it."""
    entry = AuditEntry(AT, "a", "b", "c", {}, "r")
    seals = {seal(b"", "w", 1, entry), seal(b"", "v", 1, entry), seal(b"", "w", 2, entry), seal(b"x", "w", 1, entry)}
    assert len(seals) == 4


@pytest.mark.threat("API9:2023")
def test_a_row_that_was_altered_and_sealed_anew_is_betrayed_by_the_next() -> None:
    """Whoever rewrites one row would have to rewrite all that follow, and the head."""
    entries = [AuditEntry(AT, "a", "b", str(number), {}, "r") for number in range(3)]
    first, second, third = chain("w", 0, b"", entries)
    [forged] = chain("w", 1, first.hash, [dataclasses.replace(second.entry, actor="x")])
    assert find_fault(forged, 1, first.hash) is None
    assert not verified([first, forged, third])
