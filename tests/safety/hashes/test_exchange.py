"""Lists as exchanges write them: read whatever form they have, every fault told with its line."""

import csv
import datetime as dt
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.errors import UsageError
from forestay.safety.hashes.banks import Entry
from forestay.safety.hashes.exchange import read_list, write_csv, write_json

ONE, TWO = "0" * 63 + "1", "f" * 64
NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


def entries(values: list[int]) -> list[Entry]:
    """Entries with these values."""
    return [
        Entry(number, 1, value, None, f"note {number}", "k", NOW, removed=False, suspended_reason=None, changed=1)
        for number, value in enumerate(values)
    ]


def values(text: str) -> list[int]:
    """What a list holds."""
    return [entry.value for entry in read_list(text).entries]


def test_a_list_of_the_exchange_tool_is_read_and_other_signals_are_left_out() -> None:
    """As `threatexchange dataset -P --csv` writes it: other kinds, disputed and harmless ones are not taken."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["signal_type", "signal_str", "collab", "category", "tags"])
    writer.writerow(["pdq", ONE, "a, quoted list", "POSITIVE_CLASS", "tag_a tag_b"])
    writer.writerow(["video_md5", "ab" * 16, "list", "POSITIVE_CLASS", ""])
    writer.writerow(["pdq", TWO, "list", "DISPUTED", ""])
    writer.writerow(["pdq", "12", "list", "POSITIVE_CLASS", ""])
    read = read_list(text.getvalue())
    assert [(entry.value, entry.note) for entry in read.entries] == [(1, "tag_a tag_b")]
    assert read.left_out == 2
    assert [fault.line for fault in read.faults] == [5]
    assert "64 hexadecimal digits" in read.faults[0].what


def test_lines_with_and_without_their_kind_are_read() -> None:
    """As the exchange's local files are: a hash, or its kind and the hash; blank lines and remarks pass."""
    read = read_list(f"# a remark\n{ONE}\n\npdq {TWO}\nvideo_md5 {'ab' * 16}\nnonsense\n")
    assert [entry.value for entry in read.entries] == [1, (1 << 256) - 1]
    assert [fault.line for fault in read.faults] == [6]
    assert read.left_out == 1


def test_indicators_and_banked_contents_are_read_from_json() -> None:
    """The Graph API's indicators, a bank's contents, and a plain list."""
    data = [
        {"type": "HASH_PDQ", "indicator": ONE, "description": "MARKER-7F3A"},
        {"type": "HASH_MD5", "indicator": "ab"},
        {"id": 7, "signals": {"pdq": TWO}},
        17,
        {"type": "HASH_PDQ", "raw_indicator": "zz"},
    ]
    read = read_list(json.dumps({"data": data}))
    assert [(entry.value, entry.note) for entry in read.entries] == [(1, "MARKER-7F3A"), ((1 << 256) - 1, "7")]
    assert ([fault.line for fault in read.faults], read.left_out) == ([4, 5], 1)
    assert values(json.dumps([ONE])) == [1]


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "empty"), ("{", "no JSON"), ('{"data": 3}', "should be a list"), ("signal_str,collab\n", "signal_type")],
)
def test_what_is_no_list_is_refused_with_what_was_expected(text: str, told: str) -> None:
    """Empty, broken, of another shape, without a column."""
    with pytest.raises(UsageError, match=told):
        read_list(text)


@given(st.lists(st.integers(0, (1 << 256) - 1), unique=True, max_size=8))
def test_what_is_exported_is_read_back(held: list[int]) -> None:
    """In both forms, with nothing left out."""
    for text in (write_csv(entries(held), "bank"), write_json(entries(held), "bank")):
        read = read_list(text)
        assert [entry.value for entry in read.entries] == held
        assert (read.faults, read.left_out) == ((), 0)


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text: str) -> None:
    """It reads, or it says what is wrong."""
    try:
        read = read_list(text)
    except UsageError:
        return
    assert all(0 <= entry.value < 1 << 256 for entry in read.entries)
