"""Files of prompts: whatever the rows hold, none is lost or doubled; what cannot be read is told with its mend."""

import csv
import gzip
import io
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forestay.cli.prompt_file import Asked, look_over, read_dataset, texts_of
from forestay.errors import UsageError

SPOKEN = "a lake\nprompt of a stranger, with a comma"
TEXTS = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


def asked(file: pathlib.Path, *, label: str = "label", positive: str = "", at_least: float | None = None) -> Asked:
    """Return what the command would ask of a file."""
    return Asked(file, "prompt", label, positive, at_least)


def written(folder: pathlib.Path, data: bytes | str, name: str = "rows.csv") -> pathlib.Path:
    """Write a file as a stranger has it."""
    file = folder / name
    file.write_bytes(data if isinstance(data, bytes) else data.encode())
    return file


@settings(max_examples=40)
@given(rows=st.lists(st.tuples(TEXTS, st.sampled_from(["safe", "unsafe", ""])), min_size=1, max_size=20))
def test_every_row_comes_back_in_its_place(
    rows: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Line ends, quotes, delimiters, NUL and empty texts inside: as many rows as were written, in their order."""
    sink = io.StringIO(newline="")
    csv.writer(sink).writerows([("prompt", "label"), *rows])
    file = written(tmp_path_factory.mktemp("rows"), sink.getvalue())
    texts, truth = read_dataset(asked(file))
    assert texts == [text for text, _ in rows]
    assert truth == [{"safe": False, "unsafe": True, "": None}[label] for _, label in rows]


@pytest.mark.parametrize(
    "data",
    [
        "\ufeffprompt,label\r\na,1\r\nb,0\r\n",
        "prompt\tlabel\na\t1\nb\t0\n",
        "id;prompt;label\n1;a;1\n2;b;0\n",
        "prompt,label\ra,1\rb,0",
        "prompt,label\na,1.0\n\n\nb,0.0\n\n",
        gzip.compress(b"prompt,label\na,True\nb,False\n", mtime=0),
    ],
)
def test_files_of_other_programs_are_read(tmp_path: pathlib.Path, data: bytes | str) -> None:
    """Byte order mark, tabs, semicolons, line ends, empty lines, labels as numbers, gzip under any name."""
    assert read_dataset(asked(written(tmp_path, data, "rows.dat"))) == (["a", "b"], [True, False])


@pytest.mark.parametrize("label", ["", "nan", "None", "N/A", "null"])
def test_a_row_without_a_label_has_no_truth(tmp_path: pathlib.Path, label: str) -> None:
    """It is scored, and left out of the measures."""
    assert look_over(asked(written(tmp_path, f"prompt,label\na,{label}\nb,yes\n"))).truth == [None, True]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "has no header"),
        (b"\nprompt,label\n", "has no header"),
        (b"Prompt,label\na,1\n", "--text-column: "),
        (b"prompt,prompt,label\na,b,1\n", "2 columns 'prompt'"),
        (b'prompt,label\n"a,1\nb,0\n', "quotes that open in row 1 are never closed"),
        (b"prompt,label\ncaf\xe9,1\n", "ISO-8859-1"),
        ("prompt,label\na,1\n".encode("utf-16"), "UTF-16"),
        (gzip.compress(b"prompt,label\n" + b"a,1\n" * 9_000, mtime=0)[:-60], "cannot be read"),
        (b"prompt,label\na,maybe\n", "row 1: 'maybe' is neither yes nor no"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_mend(tmp_path: pathlib.Path, data: bytes, told: str) -> None:
    """Before anything is scored."""
    with pytest.raises(UsageError, match=told):
        look_over(asked(written(tmp_path, data)))


def test_a_line_too_long_ends_the_reading(tmp_path: pathlib.Path) -> None:
    """A file without line ends is not read into memory."""
    with pytest.raises(UsageError, match="a line is longer than"):
        look_over(asked(written(tmp_path, b"prompt,label\n" + b"a" * (17 << 20))))


def test_a_file_that_unpacks_to_more_than_a_gigabyte_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes of gzip may hide it; the bound is lowered here."""
    monkeypatch.setattr("forestay.cli.prompt_file.MAX_CHARS", 10_000)
    packed = gzip.compress(b"prompt,label\n" + b"a,1\n" * 9_000)
    with pytest.raises(UsageError, match="score a part of it"):
        look_over(asked(written(tmp_path, packed)))


def test_uneven_rows_are_counted(tmp_path: pathlib.Path) -> None:
    """A text with an unquoted comma is cut there: the reader of the numbers must know."""
    found = look_over(asked(written(tmp_path, "prompt,label\na,1\nb, and more,0\nc\n"), label=""))
    assert (len(found.truth), found.uneven, found.first_uneven) == (3, 2, 2)


@pytest.mark.parametrize(("positive", "harmful"), [("UNSAFE", [True, False]), ("fine", [False, True])])
def test_a_label_of_words_is_read_without_regard_to_case(
    tmp_path: pathlib.Path, positive: str, harmful: list[bool]
) -> None:
    """As people write them."""
    file = written(tmp_path, "prompt,label\na,Unsafe\nb,Fine\n")
    assert look_over(asked(file, positive=positive)).truth == harmful


def test_a_label_that_no_row_has_is_told(tmp_path: pathlib.Path) -> None:
    """Instead of a file without a single harmful row."""
    with pytest.raises(UsageError, match="no row of 'label' says 'harm'; its rows say: 'good', 'bad'"):
        look_over(asked(written(tmp_path, "prompt,label\na,good\nb,bad\n"), positive="harm"))


@pytest.mark.parametrize("words", [{"label": "prompt"}, {"label": "prompt", "at_least": 1.0}, {"label": "none"}])
def test_no_error_shows_a_text(tmp_path: pathlib.Path, words: dict[str, object]) -> None:
    """The wrong column, or no header: what stands there may be a prompt."""
    lines = ["prompt", f'"{SPOKEN}"'] if words["label"] == "prompt" else [f"prompt,{SPOKEN.replace(',', '')}", "a,b"]
    file = written(tmp_path, "\n".join(lines))
    with pytest.raises(UsageError) as refused:
        look_over(asked(file, **words))  # type: ignore[arg-type]
    assert "stranger" not in str(refused.value)


def test_a_pipe_is_refused(tmp_path: pathlib.Path) -> None:
    """It can be read once alone."""
    with pytest.raises(UsageError, match="is no file"):
        look_over(asked(tmp_path))


def test_texts_are_read_one_by_one(tmp_path: pathlib.Path) -> None:
    """A long file needs no memory: the second row is not read for the first."""
    file = written(tmp_path, "prompt,label\na,1\n" + "b,1\n" * 50_000 + '"never closed')
    assert next(texts_of(asked(file))) == "a"
