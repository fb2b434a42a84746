"""`forestay safety evaluate`: score the prompts of a CSV offline, and say how good the scores are. No platform runs.

Reads CSV or CSV.gz row by row, scores each row's text with the detector that ships, and prints AUROC, recall and flag
rate with 95 % intervals where labels are given. Prompts are never printed, and OUT holds none. What a file must look
like is `prompt_file`'s.
"""

import collections
import contextlib
import csv
import itertools
import os
import pathlib
import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Annotated, cast

import typer

from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.cli.prompt_file import Asked, Contents, look_over, texts_of
from forestay.errors import UsageError

if TYPE_CHECKING:
    from forestay.safety.text.detector import TextGuard, TextScores

BATCH = 64
AHEAD = 2  # batches a core that wait: a long file is not held in memory
LONGEST_CHARS = 100_000  # of a text that are scored: the gateway reads no more of an input, and calls it unreadable
TOLD_EVERY = 10_000  # rows, where nobody watches
DIGITS = 9  # of a score; what is flagged is read from the score as it is written


@dataclass(frozen=True, slots=True)
class Scored:
    """What a row got."""

    score: float
    categories: tuple[str, ...]  # at or above the threshold, the highest first
    covered: bool  # the detector knows its language


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
    asked = Asked(dataset, text_column, label, positive, positive_at_least)
    contents = look_over(asked)
    _tell_uneven(contents)
    with contextlib.ExitStack() as open_files:
        sink = None if scores is None else open_files.enter_context(_sink(scores, dataset))
        guard = _load(linear=linear)
        found = list(_written(sink, _scored(guard, texts_of(asked), threshold, len(contents.truth))))
        if len(found) != len(contents.truth):
            raise UsageError("--dataset", f"{dataset} changed while it was read; copy it first")
    report = _report(found, contents, threshold) | {"detector": guard.info.detector_id, "threshold": threshold}
    if json:
        print_json(report)
    else:
        _print(report, labels=bool(label))


def _tell_uneven(contents: Contents) -> None:
    if contents.uneven:
        which = f"{contents.uneven:,} rows have more or fewer cells than the header, the first is row"
        mend = "put quotes around texts that hold the delimiter"
        say(f"{which} {contents.first_uneven:,}; their texts may be cut: {mend}", err=True)


@contextlib.contextmanager
def _sink(file: pathlib.Path, dataset: pathlib.Path) -> Generator[IO[str]]:
    """Open what scores go to, before any work: it is there when all of them are, and not before."""
    if file.exists() and file.samefile(dataset):
        raise UsageError("--scores", f"{file} is the data set itself; name another file")
    whole = file.is_file() or not file.exists()  # else a pipe or a device, which cannot be put in another's place
    target = file.resolve()
    part = target.with_name(f"{target.name}.part") if whole else target
    try:
        with part.open("w", encoding="utf-8", newline="") as sink:
            yield sink
        if whole:
            part.replace(target)
    except OSError as error:
        raise UsageError("--scores", f"{file} cannot be written: {error.strerror or error}") from None
    finally:
        if whole:
            part.unlink(missing_ok=True)


def _load(*, linear: bool) -> "TextGuard":
    from forestay.safety.text.detector import TextGuard
    from forestay.sentences import missing

    lacking = missing()
    if lacking and not linear:
        say(f"{lacking} is not installed: scoring without embeddings; install forestay[safety]", err=True)
    return TextGuard.load(with_embeddings=not (linear or lacking))


def _scored(guard: "TextGuard", texts: Iterator[str], threshold: float, total: int) -> Iterator[Scored]:
    """Score texts on every core, in their order; say how far it got."""
    cores, done = os.cpu_count() or 1, 0
    waiting: collections.deque[Future[list[TextScores]]] = collections.deque()
    with ThreadPoolExecutor(cores) as pool:
        while batch := [text[:LONGEST_CHARS] for text in itertools.islice(texts, BATCH)]:
            waiting.append(pool.submit(guard.score, batch))
            if len(waiting) >= AHEAD * cores:
                yield from (_read_out(one, threshold) for one in waiting.popleft().result())
                done += BATCH
                _tell(done, total)
        while waiting:
            yield from (_read_out(one, threshold) for one in waiting.popleft().result())
            done = min(done + BATCH, total)
            _tell(done, total)


def _read_out(one: "TextScores", threshold: float) -> Scored:
    from forestay.safety.text.language import covered

    named = sorted(one.scores.items(), key=lambda item: (-item[1], item[0]))
    reached = tuple(str(category) for category, score in named if round(score, DIGITS) >= threshold)
    return Scored(round(one.overall, DIGITS), reached, covered(one.language))


def _tell(done: int, total: int) -> None:
    if sys.stderr.isatty():
        typer.secho(f"\r{done:,} of {total:,} rows scored", err=True, nl=done == total)
    elif done % TOLD_EVERY < BATCH <= done and total > TOLD_EVERY:
        say(f"{done:,} of {total:,} rows scored", err=True)


def _written(sink: IO[str] | None, found: Iterable[Scored]) -> Iterator[Scored]:
    """Pass rows on, each written where scores are asked for."""
    writer = None if sink is None else csv.writer(sink)
    if writer is not None:
        writer.writerow(("index", "score", "flagged", "categories"))
    for index, row in enumerate(found):
        if writer is not None:
            line = (index, f"{row.score:.{DIGITS}f}", int(bool(row.categories)), ";".join(row.categories))
            writer.writerow(line)
        yield row


def _report(found: Sequence[Scored], contents: Contents, threshold: float) -> dict[str, object]:
    import numpy as np

    from forestay.safety.text.measure import auroc, measured

    score = np.array([row.score for row in found])
    flagged = score >= threshold
    said = np.array([-1 if one is None else int(one) for one in contents.truth])

    def share(rows: np.ndarray) -> float:
        return float(flagged[rows].mean())

    report: dict[str, object] = {
        "rows": len(found),
        "uneven_rows": contents.uneven,
        "other_language_rows": sum(not row.covered for row in found),
        "flag_rate": asdict(measured(np.arange(len(found)), share)),
    }
    labelled = np.flatnonzero(said >= 0)
    if len(labelled):
        harmful, harmless = np.flatnonzero(said == 1), np.flatnonzero(said == 0)
        report |= {"labelled": len(labelled), "harmful": len(harmful), "harmless": len(harmless)}
        report["recall"] = asdict(measured(harmful, share)) if len(harmful) else None
        report["flag_rate_harmless"] = asdict(measured(harmless, share)) if len(harmless) else None
        both = len(harmful) and len(harmless)
        report["auroc"] = asdict(measured(labelled, lambda rows: auroc(score[rows], said[rows] == 1))) if both else None
    return report


def _print(report: Mapping[str, object], *, labels: bool) -> None:
    say(f"{report['rows']:,} rows scored by {report['detector']}; flagged from {report['threshold']} on")
    if "labelled" in report:
        say(f"{report['labelled']:,} labelled: {report['harmful']:,} harmful, {report['harmless']:,} harmless")
        if report["auroc"] is None:
            say("AUROC is undefined: it needs labelled rows of both kinds")
    elif labels:
        say("no row has a label: AUROC and recall are undefined")
    if report["other_language_rows"]:
        say(f"{report['other_language_rows']:,} are in a language that it does not cover: see `language` in policies")
    rows: list[tuple[str, ...]] = []
    for name in ("auroc", "recall", "flag_rate_harmless", "flag_rate"):
        measure = cast("Mapping[str, float] | None", report.get(name))
        if measure is not None:
            rows.append((name.replace("_", " "), *(f"{measure[part]:.3f}" for part in ("value", "low", "high"))))
    print_table(("measure", "value", "95 % from", "to"), rows)
