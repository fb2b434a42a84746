"""`forestay abuse replay`: what other rules would have decided on calls that happened. Runs on this machine.

It pages through call facts over the admin API, judges them twice (rules in force, new rules), and compares both with
labels: of a file, and of appeals that people decided. It changes nothing on the platform.
"""

import csv
import dataclasses
import datetime as dt
import pathlib
import sys
from collections.abc import Iterator, Mapping
from typing import cast

import msgspec

from forestay.abuse.facts import call_of
from forestay.abuse.replay import Change, Replay, Score, Side, by_appeals, interval, score
from forestay.abuse.rules import Rules
from forestay.abuse.rules_file import read_rules
from forestay.cli.client import PlatformClient, connect
from forestay.cli.output import print_json, print_table, say
from forestay.clock import SystemClock
from forestay.errors import UsageError
from forestay.fleet.standing import Standing, wrong_subject
from forestay.telemetry.call_facts import CallFact

PAGE = 5_000
PAGE_SECONDS = 60.0
TOLD_EVERY = 10  # pages
MAX_LABELS = 100_000
_TRUTH: Mapping[str, bool] = {"abuse": True, "honest": False}
Row = dict[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What to replay: seconds back from now that are judged, and seconds before them that only teach."""

    since_seconds: float
    learn_seconds: float
    labels: pathlib.Path | None


def run_replay(rules: Rules, asked: Asked, *, json: bool) -> None:
    """Replay and print."""
    labels = {} if asked.labels is None else read_labels(asked.labels)
    client = connect(PAGE_SECONDS)
    current = cast("Row", client.get("/admin/abuse/rules"))
    before = read_rules(cast("str", current["text"]), "rules in force")
    now = SystemClock().now()
    judged_from = now - dt.timedelta(seconds=asked.since_seconds)
    replay = Replay(before, rules, judged_from.timestamp())
    for fact in _calls(client, judged_from - dt.timedelta(seconds=asked.learn_seconds), now):
        replay.take(call_of(fact))
    truth = by_appeals(_decided(client)) | labels
    scores = {name: score(side, truth, replay.tenant_of) for name, side in _sides(replay).items()}
    if json:
        print_json(_as_json(replay, scores, len(truth)))
    else:
        _print(replay, scores, len(truth))


def read_labels(file: pathlib.Path) -> dict[str, bool]:
    """Read `subject,label` lines; raises UsageError naming file, line and what would be right."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "--labels", f"{file} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}"
        ) from None
    if len(lines) > MAX_LABELS:
        raise UsageError("--labels", f"{file} has more than {MAX_LABELS} lines; label a sample")
    found: dict[str, bool] = {}
    for number, row in enumerate(csv.reader(lines), 1):
        if not row or (number == 1 and row[0].strip() == "subject"):
            continue
        subject, label = (cell.strip() for cell in row) if len(row) == 2 else ("", "")
        wrong = wrong_subject(subject) if len(row) == 2 else "a line is `subject,label`"
        if not wrong and label not in _TRUTH:
            wrong = f"label {label[:40]!r} is neither abuse nor honest"
        if wrong:
            raise UsageError("--labels", f"{file}:{number}: {wrong}")
        found[subject] = _TRUTH[label]
    return found


def _calls(client: PlatformClient, since: dt.datetime, until: dt.datetime) -> Iterator[CallFact]:
    """Page through the calls, telling on standard error how far it got."""
    position, pages, total = 0, 0, 0
    while True:
        query = {"since": since.isoformat(), "until": until.isoformat(), "after": str(position), "limit": str(PAGE)}
        rows = cast("dict[str, object]", client.get("/admin/abuse/calls", query))["calls"]
        page = msgspec.convert(rows, list[CallFact])
        yield from page
        pages, total = pages + 1, total + len(page)
        if page and (pages % TOLD_EVERY == 0 or sys.stderr.isatty()):
            say(f"{total:,} calls read, up to {page[-1].at:%Y-%m-%d %H:%M} UTC", err=True)
        if len(page) < PAGE:
            return
        position = page[-1].position


def _decided(client: PlatformClient) -> list[tuple[str, bool]]:
    """Return what decided appeals say of their subjects, oldest first."""
    rows: list[Row] = []
    for state in ("granted", "denied"):
        query = {"state": state, "limit": "1000"}
        rows += cast("dict[str, list[Row]]", client.get("/admin/abuse/appeals", query))["appeals"]
    rows.sort(key=lambda row: str(row["decided_at"]))
    return [(str(row["subject"]), row["state"] == "denied") for row in rows]


def _sides(replay: Replay) -> dict[str, Side]:
    return {"in_force": replay.before, "new": replay.after}


def _print(replay: Replay, scores: Mapping[str, Score], labelled: int) -> None:
    say(f"{replay.judged:,} calls judged, {replay.taught:,} before them only taught")
    changes = replay.changes()
    rows = [(item.subject, _words(item.before), _words(item.after), _reason(item)) for item in changes]
    print_table(("subject", "in force", "new", "reason"), rows, empty="nothing would have changed")
    say(f"{len(changes)} subjects change, {replay.unchanged()} stand the same under both")
    if not labelled:
        say("no labels: give --labels FILE, or decide appeals, to see precision and recall")
        return
    for name, found in scores.items():
        precision = _share(found.caught, found.caught + found.wrong)
        recall = _share(found.caught, found.caught + found.missed)
        say(f"{name}: precision {precision}, recall {recall}, of {labelled} labelled subjects")


def _words(standing: Standing | None) -> str:
    return "" if standing is None else f"{standing.kind} ({standing.rule}, {standing.since:%m-%d %H:%M})"


def _reason(change: Change) -> str:
    standing = change.after or change.before
    return "" if standing is None else standing.reason


def _share(part: int, whole: int) -> str:
    bounds = interval(part, whole)
    if bounds is None:
        return "unknown (0 of 0)"
    return f"{part / whole:.2f} ({part} of {whole}, 95 %: {bounds[0]:.2f} to {bounds[1]:.2f})"


def _as_json(replay: Replay, scores: Mapping[str, Score], labelled: int) -> Row:
    return {
        "judged": replay.judged,
        "taught": replay.taught,
        "unchanged": replay.unchanged(),
        "labelled": labelled,
        "changes": [msgspec.to_builtins(item) for item in replay.changes()],
        "scores": {
            name: {**dataclasses.asdict(item), "precision": item.precision, "recall": item.recall}
            for name, item in scores.items()
        },
    }
