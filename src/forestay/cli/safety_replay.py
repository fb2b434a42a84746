"""`forestay safety replay`: what another policy would have decided on content that was judged. Runs on this machine.

It pages through verdict records over the admin API and judges their scores anew. It changes nothing on the platform.
"""

import collections
import csv
import datetime as dt
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, cast

import msgspec
import typer

from forestay.cli.client import PlatformClient, connect
from forestay.cli.durations import seconds_of
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.cli.safety_policy import read_text
from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.safety.policy_file import read_policy
from forestay.safety.records import VerdictRecord
from forestay.safety.replay import Counts, Replay

PAGE = 2_000
PAGE_SECONDS = 60.0
LABELS_PAGE = 5_000
TOLD_EVERY = 10  # pages
SHOWN = 50
POINTS = ("input", "input_media", "output", "piece", "all")
_TRUTH: Mapping[str, bool] = {"unsafe": True, "safe": False}
Row = dict[str, object]


def register(app: typer.Typer) -> None:
    """Add the command to `forestay safety`."""
    app.command(name="replay")(replay)


def replay(
    policy: Annotated[pathlib.Path, typer.Option(help="The policy to try, in YAML.")],
    since: Annotated[str, typer.Option(help="How far back: 90s, 30m, 12h, 7d.")] = "7d",
    point: Annotated[str, typer.Option(help="input, input_media, output, piece, or all.")] = "all",
    instead_of: Annotated[str, typer.Option(help="Only what this policy decided; empty: whatever was judged.")] = "",
    labels: Annotated[
        pathlib.Path | None, typer.Option(help="CSV of `request_id,label` with label safe or unsafe.")
    ] = None,
    reviewed: Annotated[bool, typer.Option(help="Use what people found in reviews as labels too.")] = True,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Judge what was judged by another policy: what changes, and precision and recall where labels exist.

    Labels are what people found in reviews; those of a file are added, and go before them.

    Example: forestay safety replay --policy new.yaml --since 7d --labels reviewed.csv
    """
    if point not in POINTS:
        raise UsageError("--point", f"must be one of {', '.join(POINTS)}")
    wanted = read_policy(read_text(policy), "replayed", 0, str(policy))
    client = connect(PAGE_SECONDS)
    truth = _found(client) if reviewed else {}
    if labels is not None:
        truth = _over(truth, read_labels(labels))
    now = SystemClock().now()
    played = Replay(wanted, truth)
    for record in _records(client, now - dt.timedelta(seconds=seconds_of("--since", since)), now):
        if not record.shadow and point in {"all", record.point} and instead_of in {"", record.policy_id}:
            played.take(record)
    print_json(_as_json(played)) if json else _print(played)


def read_labels(file: pathlib.Path) -> dict[str, bool]:
    """Read `request_id,label` lines; raises UsageError naming file, line and what would be right."""
    found: dict[str, bool] = {}
    for number, row in enumerate(csv.reader(read_text(file).splitlines()), 1):
        if not row or (number == 1 and row[0].strip() == "request_id"):
            continue
        if len(row) != 2 or row[1].strip() not in _TRUTH:
            raise UsageError("--labels", f"{file}:{number}: a line is `request_id,label` with label safe or unsafe")
        found[row[0].strip()] = _TRUTH[row[1].strip()]
    return found


def _found(client: PlatformClient) -> dict[str, bool]:
    """Page through what people found, by `request id/point`."""
    found: dict[str, bool] = {}
    position = 0
    while True:
        query = {"after": str(position), "limit": str(LABELS_PAGE)}
        rows = cast("dict[str, list[Row]]", client.get("/admin/safety/review/labels", query))["labels"]
        found |= {f"{row['request_id']}/{row['point']}": _TRUTH[str(row["label"])] for row in rows}
        if len(rows) < LABELS_PAGE:
            return found
        position = cast("int", rows[-1]["position"])


def _over(found: Mapping[str, bool], own: Mapping[str, bool]) -> dict[str, bool]:
    """Return both; of a request that the file names, only the file's word counts."""
    return {name: bad for name, bad in found.items() if name.partition("/")[0] not in own} | dict(own)


def _records(client: PlatformClient, since: dt.datetime, until: dt.datetime) -> Iterator[VerdictRecord]:
    """Page through the records, telling on standard error how far it got."""
    position, pages, total = 0, 0, 0
    while True:
        query = {"since": since.isoformat(), "until": until.isoformat(), "after": str(position), "limit": str(PAGE)}
        rows = cast("Row", client.get("/admin/safety/verdicts", query))["verdicts"]
        page = msgspec.convert(rows, list[VerdictRecord])
        yield from page
        pages, total = pages + 1, total + len(page)
        if page and (pages % TOLD_EVERY == 0 or sys.stderr.isatty()):
            say(f"{total:,} verdicts read, up to {page[-1].at:%Y-%m-%d %H:%M} UTC", err=True)
        if len(page) < PAGE:
            return
        position = page[-1].position


def _print(played: Replay) -> None:
    rows = [
        (
            str(change.record.request_id),
            change.record.point,
            change.record.model_id,
            change.before.value,
            change.after.value,
            change.reason,
        )
        for change in played.changes[:SHOWN]
    ]
    print_table(("request", "point", "model", "in force", "new", "reason"), rows, empty="nothing would have changed")
    more = len(played.changes) - len(rows)
    say(f"{played.judged:,} verdicts judged anew, {len(played.changes):,} change{f', {more} not shown' * (more > 0)}")
    for (before, after), count in _moves(played).most_common():
        say(f"  {before} -> {after}: {count:,}")
    if played.unknown:
        say(f"{played.unknown:,} cannot be replayed: a detector that the new policy names was not asked then")
    for name, counts in (("in force", played.before), ("new", played.after)):
        if counts != Counts():
            shares = f"precision {_share(counts.precision)}, recall {_share(counts.recall)}"
            say(f"{name}: {shares} on {counts.labelled:,} labels")


def _as_json(played: Replay) -> Row:
    changes = [
        {
            "request_id": str(change.record.request_id),
            "point": change.record.point,
            "model_id": change.record.model_id,
            "before": change.before.value,
            "after": change.after.value,
            "reason": change.reason,
        }
        for change in played.changes
    ]
    scores = {
        name: {"precision": counts.precision, "recall": counts.recall}
        for name, counts in (("in_force", played.before), ("new", played.after))
    }
    moves = [{"before": before, "after": after, "count": count} for (before, after), count in _moves(played).items()]
    counts = {"judged": played.judged, "unknown": played.unknown, "labelled": played.after.labelled}
    return {**counts, "moves": moves, "changes": changes, "scores": scores}


def _moves(played: Replay) -> collections.Counter[tuple[str, str]]:
    """Count changes by what they lead from and to."""
    return collections.Counter((change.before.value, change.after.value) for change in played.changes)


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"
