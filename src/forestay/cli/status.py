"""`forestay status`: what burns, since when, who is hurt, what changed, what the platform did, what you can do now.

It decides which moves fit what is seen: each is a whole command with the reason to use it, and none is made. What
burns, fires and was done, it reads from the views that other commands show at length. A view that does not answer is
named, and the others are told all the same: half a picture is worth more than none at three in the morning.
"""

import dataclasses
import datetime as dt
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, cast

import typer

from forestay.cli.alert import standing_of
from forestay.cli.client import PlatformClient, Rejected, connect
from forestay.cli.durations import seconds_of
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.cli.slo import moment, percent
from forestay.errors import UsageError

app = typer.Typer()
Row = dict[str, object]
_MOST = 8  # rows of each kind: it must fit a screen; the commands below tell all
_MOST_ACTS = 500
_LONGEST_SECONDS = 7 * 86_400
_WAKES = frozenset({"page", "ticket"})
_ENDED = frozenset({"promoted", "rolled_back", "held"})
_REASON = '--reason "..."'


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What the views said; an empty list is nothing, and `unknown` says which view did not answer and why."""

    burning: Sequence[Row]
    alerts: Sequence[Row]
    rollouts: Sequence[Row]
    drills: Sequence[Row]
    changes: Sequence[Row]  # acts of people, newest first
    automatic: Sequence[Row]  # acts of loops, newest first
    models: Sequence[Row]  # the worst first: model_id, good, bad
    tenants: Sequence[Row]  # likewise: tenant_id, good, bad
    acts_from: str  # where there are more acts than were read: older ones of the time asked for are not told
    frozen: str  # by whom and why; empty: automation acts
    unknown: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Move:
    """One thing that a person can do now: the command, and why one would."""

    command: str
    reason: str


@app.command()
def status(
    within: Annotated[str, typer.Option(help="How far back changes, acts and who was hurt are told.")] = "3h",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Say what burns and since when, who is hurt, what changed, what the platform did itself, and what you can do.

    Example: forestay status --within 30m
    """
    seconds = seconds_of("--within", within)
    if not 60 <= seconds <= _LONGEST_SECONDS:
        raise UsageError("--within", f"{within!r} is not between 1m and 7d")
    seen = _look(connect(), dt.timedelta(seconds=seconds))
    moves = decide_moves(seen)
    if json:
        print_json({**dataclasses.asdict(seen), "moves": [dataclasses.asdict(move) for move in moves]})
        return
    _tell(seen, moves, within)


def decide_moves(seen: Seen) -> list[Move]:
    """Return what a person could do about what is seen, what undoes a fault first; no move is for nothing."""
    hurt = {str(row["subject"]).partition("model:")[2] for row in [*seen.burning, *seen.alerts]} - {""}
    moves = [
        Move(f"forestay drill stop {_word(row['drill_id'])} {_REASON}", f"the fault {row['fault']!r} is in on purpose")
        for row in seen.drills
    ]
    for row in seen.rollouts:
        moves += _of_rollout(row, burns=str(row["model_id"]) in hurt)
    shipped = {str(row["model_id"]) for row in seen.rollouts}
    for model in sorted(hurt - shipped):
        moves += _of_deploy(model, [row for row in seen.changes if row["subject"] == f"routes:{model}"])
    moves += [
        Move(f"forestay quality drain {_word(name)} {_REASON}", f"its outputs are bad: {row['summary']}")
        for row in seen.alerts
        if (name := cast("Row", row.get("labels") or {}).get("replica")) and row.get("name") == "outputs_degraded"
    ][:_MOST]
    moves += [
        Move(f"forestay alert ack {_word(row['alert_id'])} {_REASON}", f"nobody has it in hand: {row['summary']}")
        for row in seen.alerts
        if not row["acknowledged"]
    ][:_MOST]
    if seen.frozen:
        moves.append(Move('forestay fleet unfreeze "..."', f"automation is frozen {seen.frozen}"))
    elif seen.burning or seen.alerts:
        moves.append(Move('forestay fleet freeze "..."', "stops every automatic action; people may still act"))
    if hurt and seen.tenants:
        who = _word(f"tenant:{seen.tenants[0]['tenant_id']}")
        moves.append(Move(f"forestay limit usage {who}", "what the tenant hurt most asks for; `limit set` sheds it"))
    return moves


def _of_rollout(row: Row, *, burns: bool) -> list[Move]:
    name, model = _word(row["rollout_id"]), row["model_id"]
    if row["stage"] not in _ENDED:
        why = f"{row['candidate']} has {row['weight']:g} % of {model} ({row['stage']})"
        return [Move(f"forestay rollout abort {name} {_REASON}", why)]
    if row["stage"] == "promoted" and burns:
        back = f"forestay model set-back {_word(model)} {_word(row['control'])} {_REASON}"
        return [Move(back, f"{model} burns, and {row['candidate']} was promoted at {_clock(row['stage_since'])}")]
    return []


def _of_deploy(model: str, changes: Sequence[Row]) -> list[Move]:
    if not changes:
        return []
    newest = changes[0]
    changed = f"its traffic was changed at {_clock(newest['at'])} ({newest['reason']})"
    why = f"{model} burns, and {changed}; `model set-back` undoes it"
    return [Move(f"forestay model revisions {_word(model)}", why)]


def _word(value: object) -> str:
    return shlex.quote(str(value))


def _look(client: PlatformClient, span: dt.timedelta) -> Seen:
    """Read every view; one that is refused or broken is told in `unknown`. No platform at all is an error."""
    unknown: dict[str, str] = {}

    def read(path: str, query: Mapping[str, str] | None = None) -> Row:
        try:
            return cast("Row", client.get(path, query))
        except Rejected as error:
            if error.status == 401:  # nothing else will answer either
                raise
            unknown[path.removeprefix("/admin/")] = str(error)
            return {}

    fleet = read("/admin/fleet")
    until = dt.datetime.fromisoformat(str(fleet["now"])) if fleet else None
    since = None if until is None else until - span
    read_acts = _rows(read("/admin/audit", {"limit": str(_MOST_ACTS)}), "rows")
    acts = _since(read_acts, "at", since)
    recent = {} if since is None else {"since": since.isoformat()}
    hurt = read("/admin/observe/v1/summary", recent)
    models = cast("dict[str, dict[str, list[int]]]", hurt.get("models") or {})
    counted = [{"model_id": name, **_counts(found["availability"])} for name, found in models.items()]
    rollouts = _rows(read("/admin/rollouts"), "rollouts")
    brakes = cast("Row", fleet.get("brakes") or {})
    return Seen(
        burning=[row for row in _rows(read("/admin/slos"), "slos") if row["word"] in _WAKES],
        alerts=_rows(read("/admin/alerts", {"state": "firing", "limit": "50"}), "alerts"),
        rollouts=[row for row in rollouts if row["stage"] not in _ENDED or _since([row], "stage_since", since)],
        drills=[row for row in _rows(read("/admin/drills"), "drills") if row["running"]],
        changes=[row for row in acts if str(row["actor"]).startswith("human:")],
        automatic=[row for row in acts if not str(row["actor"]).startswith("human:")],
        models=_worst(counted),
        tenants=_worst(_rows(hurt, "worst_tenants")),
        acts_from=str(acts[-1]["at"]) if len(acts) == _MOST_ACTS else "",
        frozen=f"by {brakes['frozen_by']}: {brakes['frozen_why']}" if brakes.get("frozen") else "",
        unknown=unknown,
    )


def _rows(answer: Row, name: str) -> list[Row]:
    return cast("list[Row]", answer.get(name) or [])


def _since(rows: Sequence[Row], column: str, since: dt.datetime | None) -> list[Row]:
    return [row for row in rows if since is None or dt.datetime.fromisoformat(str(row[column])) >= since]


def _counts(availability: Sequence[int]) -> Row:
    good, bad, _ = availability
    return {"good": good, "bad": bad}


def _worst(rows: Sequence[Row]) -> list[Row]:
    return sorted((row for row in rows if row["bad"]), key=lambda row: -cast("int", row["bad"]))


def _tell(seen: Seen, moves: Sequence[Move], within: str) -> None:
    if seen.frozen:
        say(f"FROZEN {seen.frozen}")
    for view, why in seen.unknown.items():
        say(f"not known: {view}: {why}", err=True)
    burning = [
        (row["word"], row["slo_id"], moment(row["since"]), percent(row["left_ratio"]), _why(row))
        for row in seen.burning
    ]
    _section("burning", ("wakes", "slo", "since", "budget left", "why"), burning, "no SLO burns")
    alerts = [
        (row["severity"], row["alert_id"], row["summary"], _clock(row["opened_at"]), standing_of(row))
        for row in seen.alerts
    ]
    _section("alerts", ("severity", "alert", "summary", "since", "standing"), alerts, "no alert fires")
    hurt = [
        ("model", row["model_id"], row["bad"], row["good"]) for row in seen.models[:_MOST]
    ]  # of each kind the worst
    hurt += [("tenant", row["tenant_id"], row["bad"], row["good"]) for row in seen.tenants[:_MOST]]
    _section(f"hurt within {within}", ("what", "who", "bad", "good"), hurt, "nobody's request failed by our fault")
    shipped = [
        (row["rollout_id"], row["model_id"], row["stage"], row["weight"], _clock(row["stage_since"]), row["reason"])
        for row in seen.rollouts
    ]
    _section("rollouts", ("rollout", "model", "stage", "percent", "since", "reason"), shipped, "no revision is new")
    _acts(f"changed by people within {within}", seen.changes)
    _acts(f"done by the platform itself within {within}", seen.automatic)
    if seen.acts_from:
        say(f"acts before {seen.acts_from} are not among these: `forestay audit list --before` shows them")
    say("what you can do")
    for move in moves:
        say(f"  {move.command}")
        say(f"      {move.reason}")
    if not moves:
        say("  nothing has to be done")


def _section(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str, most: int = 2 * _MOST
) -> None:
    say(title)
    print_table(columns, rows[:most], empty=f"  {empty}")
    if len(rows) > most:
        say(f"  and {len(rows) - most} more; --json tells all")
    say()


def _acts(title: str, acts: Sequence[Row]) -> None:
    rows = [(_clock(row["at"]), row["actor"], row["action"], row["subject"], row["reason"]) for row in acts]
    _section(title, ("at", "who", "did", "to", "why"), rows, "nothing", _MOST)


def _why(row: Row) -> str:
    return "; ".join(str(finding["reason"]) for finding in cast("list[Row]", row["findings"]))


def _clock(at: object) -> str:
    return f"{dt.datetime.fromisoformat(str(at)).astimezone(dt.UTC):%H:%M:%S} UTC"
