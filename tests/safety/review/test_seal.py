"""The seal on kept content: it opens the right copy under a known key, whole and unaltered, and nothing else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forestay.chance import SeededChance
from forestay.errors import Refused
from forestay.safety.review import seal
from forestay.safety.review.seal import ContentSeal

SEAL = ContentSeal(["a long random text"], SeededChance(3))


@given(st.binary(max_size=400), st.lists(st.integers(1, 97), max_size=6))
@settings(max_examples=60)
def test_what_was_sealed_in_pieces_opens_in_other_pieces(data: bytes, cuts: list[int]) -> None:
    """Frames are the seal's own business."""
    sealed = SEAL.close("copy", data)
    opening = SEAL.opening("copy", SEAL.key_name)
    out, rest = b"", sealed
    for cut in cuts:
        out += b"".join(opening.add(rest[:cut]))
        rest = rest[cut:]
    out += b"".join((*opening.add(rest), *opening.end()))
    assert out == data


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of 64 bytes, so that a small copy has many."""
    monkeypatch.setattr(seal, "FRAME_BYTES", 64)


@pytest.mark.usefixtures("small_frames")
@pytest.mark.threat("API8:2023", "AML.T0025")
def test_no_frame_can_be_altered_moved_cut_off_or_put_elsewhere() -> None:
    """Each of these is betrayed."""
    data = bytes(range(256)) * 2
    sealed = SEAL.close("copy", data)
    assert SEAL.open("copy", SEAL.key_name, sealed) == data
    head, size = 17, 64 + 16
    frames = [sealed[start : start + size] for start in range(head, len(sealed), size)]
    assert len(frames) == 8
    swapped = sealed[:head] + b"".join([frames[1], frames[0], *frames[2:]])
    cut = sealed[:head] + b"".join(frames[:-1])
    altered = sealed[:40] + bytes([sealed[40] ^ 1]) + sealed[41:]
    for wrong in (swapped, cut, altered, sealed + b"\0", sealed[:10], b""):
        with pytest.raises(Refused):
            SEAL.open("copy", SEAL.key_name, wrong)
    with pytest.raises(Refused):
        SEAL.open("another copy", SEAL.key_name, sealed)


def test_an_old_key_opens_old_copies_and_seals_none() -> None:
    """After a rotation both are read; without the old secret its copies say which is missing."""
    rotated = ContentSeal(["a newer text", "a long random text"], SeededChance(4))
    old = SEAL.close("copy", b"before")
    assert rotated.key_name != SEAL.key_name
    assert rotated.open("copy", SEAL.key_name, old) == b"before"
    new = rotated.close("copy", b"after")
    with pytest.raises(Refused, match="FORESTAY_OLD_SEAL_KEYS"):
        SEAL.open("copy", rotated.key_name, new)
    assert b"after" not in new


def test_two_copies_of_the_same_look_different() -> None:
    """Each has a key of its own."""
    assert SEAL.close("copy", b"same") != SEAL.close("copy", b"same")
