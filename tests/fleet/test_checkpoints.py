"""Signed checkpoints: what is signed over, and what a changed log or checkpoint betrays."""

import dataclasses
import datetime as dt
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.delivery.signing import SigningKeys, load_or_create_keys
from forestay.fleet.checkpoints import (
    Checkpoint,
    Head,
    SignedCheckpoint,
    Tampered,
    compare,
    decide_checkpoint,
    find_gaps,
    is_ours,
    parse,
    seal,
)

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
_HEADS = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.builds(Head, st.integers(1, 9), st.sampled_from(["11", "22"])), max_size=3
)


@pytest.fixture
def keys(tmp_path: Path) -> SigningKeys:
    """The platform's keys."""
    return load_or_create_keys(tmp_path / "keys.pem")


def unsigned(checkpoint: Checkpoint) -> SignedCheckpoint:
    """A checkpoint whose signature the rule does not look at."""
    return SignedCheckpoint(checkpoint, "k", "00")


def as_found(heads: dict[str, Head]) -> dict[str, str | None]:
    """The log as it was."""
    return {writer: head.hash for writer, head in heads.items()}


@given(_HEADS, _HEADS)
def test_nothing_is_signed_twice_and_numbers_follow_one_another(
    before: dict[str, Head], after: dict[str, Head]
) -> None:
    """While the signed rows are there; an empty log has no checkpoint."""
    last = decide_checkpoint(None, before, {}, NOW)
    if not before:
        assert last is None
        return
    assert isinstance(last, Checkpoint)
    assert (last.number, last.previous) == (1, "")
    following = decide_checkpoint(unsigned(last), after, as_found(before), NOW)
    if after == before:
        assert following is None
    else:
        assert isinstance(following, Checkpoint)
        assert following.number == 2
        assert find_gaps([unsigned(last), unsigned(following)]) == []


@given(_HEADS.filter(bool), st.data(), st.sampled_from(["gone", "changed"]))
def test_nothing_is_signed_over_a_log_that_lost_a_signed_row(
    heads: dict[str, Head], data: st.DataObject, how: str
) -> None:
    """Whichever chain it was, and whatever else happened since."""
    last = Checkpoint(7, NOW, "x", heads)
    writer = data.draw(st.sampled_from(sorted(heads)))
    found = {**as_found(heads), writer: None if how == "gone" else "ff"}
    assert [fault.writer for fault in compare(last, found)] == [writer]
    assert isinstance(decide_checkpoint(unsigned(last), data.draw(_HEADS), found, NOW), Tampered)


def test_a_chain_that_was_only_begun_has_nothing_to_lose() -> None:
    """Its head names no row."""
    assert compare(Checkpoint(1, NOW, "", {"a": Head(0, "")}), {}) == []


def test_a_signature_is_of_one_checkpoint_and_one_key(keys: SigningKeys, tmp_path: Path) -> None:
    """Every field is signed; another platform's key, and a signature for another purpose, are no one's."""
    signed = seal(Checkpoint(3, NOW, "ab", {"a": Head(2, "cd")}), keys)
    assert is_ours(signed, keys)
    again = parse(msgspec.json.encode(signed))
    assert again is not None
    assert is_ours(again, keys)
    for change in (
        {"number": 4},
        {"at": NOW + dt.timedelta(seconds=1)},
        {"previous": "ac"},
        {"heads": {"a": Head(1, "cd")}},
        {"heads": {}},
    ):
        forged = msgspec.structs.replace(signed, checkpoint=msgspec.structs.replace(signed.checkpoint, **change))
        assert not is_ours(forged, keys)
    assert not is_ours(msgspec.structs.replace(signed, signature="zz"), keys)
    assert not is_ours(msgspec.structs.replace(signed, key_id="other"), keys)
    assert not is_ours(signed, load_or_create_keys(tmp_path / "others.pem"))
    key_id, bare = keys.sign(b"something else")
    assert not is_ours(SignedCheckpoint(signed.checkpoint, key_id, bare), keys)


def test_a_checkpoint_taken_out_or_changed_is_betrayed_by_the_next() -> None:
    """As a row of the log is."""
    first = Checkpoint(1, NOW, "", {"a": Head(1, "11")})
    second = decide_checkpoint(unsigned(first), {"a": Head(2, "22")}, {"a": "11"}, NOW)
    assert isinstance(second, Checkpoint)
    third = decide_checkpoint(unsigned(second), {"a": Head(3, "33")}, {"a": "22"}, NOW)
    assert isinstance(third, Checkpoint)
    kept = [unsigned(one) for one in (first, second, third)]
    assert find_gaps(kept) == []
    assert find_gaps(kept[1:]) == []  # the oldest are dropped in good order
    assert "missing" in find_gaps([kept[0], kept[2]])[0].what
    changed = unsigned(msgspec.structs.replace(second, heads={}))
    assert "does not continue" in find_gaps([kept[0], changed, kept[2]])[0].what


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"checkpoint": 1}'])
def test_what_is_no_checkpoint_is_none(data: bytes) -> None:
    """Never an exception."""
    assert parse(data) is None


def test_faults_are_values() -> None:
    """So that a report can hold them once each."""
    (fault,) = compare(Checkpoint(1, NOW, "", {"a": Head(1, "11")}), {})
    assert dataclasses.asdict(fault)["writer"] == "a"
