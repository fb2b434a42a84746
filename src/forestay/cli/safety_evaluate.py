"""`forestay safety evaluate`: score the prompts of a CSV offline, and say how good the scores are. No platform runs.

Reads CSV or CSV.gz row by row, scores each row's text with the detector that ships, and prints AUROC, recall and flag
rate with 95 % intervals where labels are given. Prompts are never printed, and OUT holds none.
"""

import csv
import gzip
import io
import os
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Annotated, cast

import typer

from forestay.cli.output import JSON_OPTION, print_json, print_table
from forestay.errors import UsageError

MAX_ROWS = 1_000_000
BATCH = 64
_YES = frozenset({"1", "true", "yes", "y", "unsafe", "harmful", "positive", "toxic"})
_NO = frozenset({"0", "false", "no", "n", "safe", "harmless", "negative", "benign"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What to read, and how labels are meant."""

    dataset: pathlib.Path
    text_column: str
    label: str
    positive: str
    at_least: float | None


@dataclass(frozen=True, slots=True)
class Scored:
    """What a row got."""

    score: float
    categories: Mapping[str, float]


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(evaluate)


def evaluate(
    dataset: Annotated[pathlib.Path, typer.Option(help="A CSV or CSV.gz file with a header, in UTF-8.")],
    text_column: Annotated[str, typer.Option(help="The column that holds the text.")] = "prompt",
    label: Annotated[
        str,
        typer.Option(
            "--label-column", "--label", help="The column that says whether a row is harmful; empty: no labels."
        ),
    ] = "",
    positive: Annotated[str, typer.Option(help="What that column says of harmful rows, where it is a word.")] = "",
    positive_at_least: Annotated[
        float | None, typer.Option(help="Rows whose label is a number of at least this are harmful.")
    ] = None,
    scores: Annotated[pathlib.Path | None, typer.Option(help="Write index, score, flagged, categories to it.")] = None,
    threshold: Annotated[float, typer.Option(help="A row is flagged from this score on.")] = 0.5,
    linear: Annotated[bool, typer.Option("--linear", help="Without the embedding model, even if installed.")] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Score the prompts of a file with the text detector, and say how good the scores are where labels exist.

    Example: forestay safety evaluate --dataset prompts.csv --label-column unsafe --scores scores.csv
    """
    if not 0.0 < threshold <= 1.0:
        raise UsageError("--threshold", "must be above 0 and at most 1")
    texts, truth = read_dataset(Asked(dataset, text_column, label, positive, positive_at_least))
    detector, found = _score(texts, linear=linear)
    if scores is not None:
        _write(scores, found, threshold)
    report = _report(found, truth, threshold) | {"detector": detector, "threshold": threshold}
    if json:
        print_json(report)
    else:
        _print(report)


def read_dataset(asked: Asked) -> tuple[list[str], list[bool | None]]:
    """Return texts and labels, None where a label is blank; raises UsageError naming option, row and mend."""
    if asked.positive and asked.at_least is not None:
        raise UsageError("--positive-at-least", "leave out --positive: a label is either a word or a number")
    if not asked.label and (asked.positive or asked.at_least is not None):
        raise UsageError("--label-column", "name the column that --positive or --positive-at-least is about")
    texts: list[str] = []
    truth: list[bool | None] = []
    for number, row in enumerate(_rows(asked), 1):
        if number > MAX_ROWS:
            raise UsageError("--dataset", f"has more than {MAX_ROWS:,} rows; score a sample")
        texts.append(row[asked.text_column] or "")
        truth.append(_truth(row[asked.label] or "", asked, number) if asked.label else None)
    if not texts:
        raise UsageError("--dataset", f"{asked.dataset} has no rows below its header")
    return texts, truth


def _rows(asked: Asked) -> Iterator[dict[str, str | None]]:
    csv.field_size_limit(16 * 1024 * 1024)
    try:
        with _opened(asked.dataset) as source:
            reader = csv.DictReader(source)
            columns = list(reader.fieldnames or ())
            for option, column in (("--text-column", asked.text_column), ("--label-column", asked.label)):
                if column and column not in columns:
                    has = ", ".join(name[:40] for name in columns[:20]) or "none"
                    raise UsageError(option, f"{asked.dataset} has no column {column!r}; it has: {has}")
            yield from cast("Iterator[dict[str, str | None]]", reader)
    except UnicodeDecodeError:
        raise UsageError("--dataset", f"{asked.dataset} is not UTF-8; convert it first") from None
    except (OSError, EOFError, csv.Error) as error:
        why = getattr(error, "strerror", None) or str(error) or "it breaks off"
        raise UsageError("--dataset", f"{asked.dataset} cannot be read: {why}") from None


def _opened(file: pathlib.Path) -> io.TextIOBase:
    with file.open("rb") as source:
        packed = source.read(2) == b"\x1f\x8b"
    if packed:
        return cast("io.TextIOBase", gzip.open(file, "rt", encoding="utf-8-sig", newline=""))
    return file.open(encoding="utf-8-sig", newline="")


def _truth(cell: str, asked: Asked, number: int) -> bool | None:
    word = cell.strip()
    if not word:
        return None
    if asked.positive:
        return word == asked.positive
    if asked.at_least is not None:
        try:
            return float(word) >= asked.at_least
        except ValueError:
            raise UsageError(
                "--label-column", f"row {number}: {word[:40]!r} is no number; use --positive VALUE"
            ) from None
    if word.lower() in _YES | _NO:
        return word.lower() in _YES
    mend = "say which value means harmful with --positive VALUE, or --positive-at-least NUMBER"
    raise UsageError("--label-column", f"row {number}: {word[:40]!r} is neither yes nor no; {mend}")


def _score(texts: Sequence[str], *, linear: bool) -> tuple[str, list[Scored]]:
    """Score texts on every core; on a terminal say how far it got."""
    from forestay.safety.text.detector import TextGuard, TextScores
    from forestay.sentences import missing

    lacking = missing()
    if lacking and not linear:
        typer.echo(f"{lacking} is not installed: scoring without embeddings; install forestay[safety]", err=True)
    guard = TextGuard.load(with_embeddings=not (linear or lacking))
    batches = [texts[at : at + BATCH] for at in range(0, len(texts), BATCH)]
    found: list[TextScores] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for scored in pool.map(guard.score, batches):
            found += scored
            if sys.stderr.isatty():
                typer.echo(f"\r{len(found):,} of {len(texts):,} rows scored", err=True, nl=len(found) == len(texts))
    return guard.info.detector_id, [Scored(one.overall, {str(c): s for c, s in one.scores.items()}) for one in found]


def _write(file: pathlib.Path, found: Sequence[Scored], threshold: float) -> None:
    with file.open("w", encoding="utf-8", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow(("index", "score", "flagged", "categories"))
        for index, row in enumerate(found):
            named = sorted(
                (name for name, score in row.categories.items() if score >= threshold), key=row.categories.__getitem__
            )
            writer.writerow((index, f"{row.score:.6f}", int(row.score >= threshold), ";".join(reversed(named))))


def _report(found: Sequence[Scored], truth: Sequence[bool | None], threshold: float) -> dict[str, object]:
    import numpy as np

    from forestay.safety.text.measure import auroc, measured

    score = np.array([row.score for row in found])
    flagged = score >= threshold
    said = np.array([-1 if one is None else int(one) for one in truth])

    def share(rows: np.ndarray) -> float:
        return float(flagged[rows].mean())

    report: dict[str, object] = {"rows": len(found), "flag_rate": asdict(measured(np.arange(len(found)), share))}
    labelled = np.flatnonzero(said >= 0)
    if len(labelled):
        harmful, harmless = np.flatnonzero(said == 1), np.flatnonzero(said == 0)
        report |= {"labelled": len(labelled), "harmful": len(harmful), "harmless": len(harmless)}
        report["recall"] = asdict(measured(harmful, share)) if len(harmful) else None
        report["flag_rate_harmless"] = asdict(measured(harmless, share)) if len(harmless) else None
        both = len(harmful) and len(harmless)
        report["auroc"] = asdict(measured(labelled, lambda rows: auroc(score[rows], said[rows] == 1))) if both else None
    return report


def _print(report: Mapping[str, object]) -> None:
    typer.echo(f"{report['rows']:,} rows scored by {report['detector']}; flagged from {report['threshold']} on")
    if "labelled" in report:
        typer.echo(f"{report['labelled']:,} labelled: {report['harmful']:,} harmful, {report['harmless']:,} harmless")
    rows: list[tuple[str, ...]] = []
    for name in ("auroc", "recall", "flag_rate_harmless", "flag_rate"):
        measure = cast("Mapping[str, float] | None", report.get(name))
        if measure is not None:
            rows.append((name.replace("_", " "), *(f"{measure[part]:.3f}" for part in ("value", "low", "high"))))
    print_table(("measure", "value", "95 % from", "to"), rows)
