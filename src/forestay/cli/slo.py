"""`forestay slo`: what burns, how fast, since when, why, how much of an error budget is left, when it will be gone."""

import datetime as dt
from collections.abc import Sequence
from typing import Annotated, cast

import typer

from forestay.cli import slo_budgets, slo_files, slo_report
from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Show how service level objectives stand; write, check and hand them on.")
slo_budgets.register(app)
slo_files.register(app)
slo_report.register(app)
Row = dict[str, object]
_SAMPLED = "wrong by a sample, 95 %"
_COLUMNS = (
    "slo",
    "subject",
    "standing",
    "objective",
    "events",
    "budget left",
    "burn rate, 1 h",
    "empty in",
    "since",
    _SAMPLED,
    "from",
)
_MINUTE_SECONDS = 60
_DAY_MINUTES = 1440


@app.command()
def status(
    burning: Annotated[bool, typer.Option("--burning", help="Only what wakes somebody or is held.")] = False,
    check: Annotated[bool, typer.Option("--check", help="One line alone; exit 1 if something pages.")] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List every SLO, what wakes somebody first: objective, budget left, burn rate, time to empty, where it is from.

    Where released outputs were looked at again (`forestay safety audit`), an SLO on safety also says how many were
    wrong by that sample, with its interval. What is wrong with files of SLOs is told on standard error, with file and
    line.

    Example: forestay slo status --burning
    """
    found = _all(tell=True)
    if check:
        _check(found, json=json)
        return
    if burning:
        found = [row for row in found if row["word"] in {"page", "ticket", "held"}]
    if json:
        print_json(found)
        return
    rows = [_row(row) for row in found]
    columns = tuple(name for name in _COLUMNS if name != _SAMPLED or any(row[name] for row in rows))
    told = [tuple(row[name] for name in columns) for row in rows]
    print_table(columns, told, empty="nothing burns" if burning else "no SLO is watched yet; it takes a minute")


@app.command()
def explain(
    slo: Annotated[str, typer.Argument(help="An SLO's id, or a model (`forestay/digits`, `digits`).")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Say of one SLO, or of all those of a model, what burns, since when, why, and what is left.

    Example: forestay slo explain digits
    """
    found = [row for row in _all() if _is_about(row, slo)]
    if not found:
        raise UsageError("SLO", f"no SLO {slo!r} and none of a model of that name; `forestay slo status` lists them")
    if json:
        print_json(found)
        return
    say("\n\n".join("\n".join(told(row)) for row in found))


def _row(row: Row) -> Row:
    values = (
        row["slo_id"],
        row["subject"],
        row["word"],
        percent(row["objective"]),
        f"{cast('float', row['events']):,.0f}",
        "overdrawn" if _overdrawn(row) else percent(row["left_ratio"]),
        _burn(row),
        "" if _overdrawn(row) else span(row["minutes_to_empty"]),
        moment(row["since"]),
        _sampled(cast("Row | None", row.get("sampled"))),
        row["origin"],
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _sampled(found: Row | None) -> str:
    """Say what a sample of releases says of all, where one was looked at: the estimate and its interval."""
    if found is None:
        return ""
    ratio, low, high = (f"{cast('float', found[name]) * 100:.3g}" for name in ("ratio", "low", "high"))
    return f"{ratio} % ({low} to {high} %), {found['looked_at']:,} looked at"


def told(row: Row) -> list[str]:
    """Return an SLO's standing in sentences."""
    days = cast("int", row["window_minutes"]) / _DAY_MINUTES
    promise = f"{percent(row['objective'])} of {row['description'] or _counted(row)} within {days:g} days"
    lines = [
        f"{row['slo_id']} ({row['subject']}): {promise}",
        *([f"  from: {row['origin']}"] if row["origin"] else []),
        f"  standing: {row['word']}" + (f" since {moment(row['since'])}" if row["since"] is not None else ""),
    ]
    lines.append(f"  budget: {_budget(row)}")
    burns = cast("dict[str, float]", row["burns"])
    if burns:
        pace = ", ".join(f"{rate:.2g}x in {span(int(minutes))}" for minutes, rate in burns.items())
        lines.append(f"  burn rate: {pace} (1x spends exactly the budget)")
    lines.append(f"  evidence: {percent(row['evidence'])} of what wakes somebody whatever the traffic")
    lines += _parts(cast("list[Row]", row.get("parts") or ()))
    lines += [f"  {finding['kind']}: {finding['reason']}" for finding in cast("list[Row]", row["findings"])]
    lines += [f"  note: {said}" for said in cast("Sequence[str]", row["says"])]
    return lines


def _counted(row: Row) -> str:
    """Say what an SLO counts, where nobody has described it."""
    if row["subject"] == "composite":
        return "what its parts count, by their weights,"
    rate = cast("float | None", row.get("per_second"))
    if rate is None:
        return str(row["measure"])
    return f"slices of {row['slice_minutes']} min in which the demand was met, or {rate:g} requests a second,"


def _parts(parts: Sequence[Row]) -> list[str]:
    """Return a composite's parts, the most hurtful first; nothing of a plain SLO."""
    if not parts:
        return []
    told = [
        f"{part['slo_id']} {cast('float', part['harm_ratio']):.0%}"
        f" ({cast('float', part['bad']):,.0f} bad of {cast('float', part['events']):,.0f})"
        for part in parts
    ]
    return [f"  harm by part: {', '.join(told)}"]


def _overdrawn(row: Row) -> bool:
    left = cast("float | None", row["left_ratio"])
    return left is not None and left <= 0


def _budget(row: Row) -> str:
    left = cast("float | None", row["left_ratio"])
    if left is None:
        return "nothing happened in the window, which is neither good nor bad"
    counted = f"({cast('float', row['bad']):,.0f} bad of {cast('float', row['events']):,.0f})"
    if _overdrawn(row):
        return f"overdrawn: {percent(1 - left)} of it is spent {counted}"
    gone = "it lasts the window at this pace"
    if row["minutes_to_empty"] is not None:
        gone = f"gone in {span(row['minutes_to_empty'])} at the pace of the last hour"
    return f"{percent(left)} left {counted}; {gone}"


def _check(found: Sequence[Row], *, json: bool) -> None:
    """Print one line; exit 1 where something pages."""
    counts = {word: sum(row["word"] == word for row in found) for word in ("page", "ticket", "held", "kept", "no_data")}
    paging = [str(row["slo_id"]) for row in found if row["word"] == "page"]
    if json:
        print_json({**counts, "paging": paging})
    else:
        told = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "no SLO is watched yet"
        say(told + (f": {', '.join(paging[:10])}" if paging else ""))
    if paging:
        raise typer.Exit(1)


def _all(*, tell: bool = False) -> list[Row]:
    answer = cast("dict[str, list[Row]]", connect().get("/admin/slos"))
    for file in answer["files"] if tell else ():
        for fault in cast("Sequence[str]", file["faults"]):
            say(f"broken file of SLOs: {fault} ({file['slos']} SLOs of it hold as last read)", err=True)
    return answer["slos"]


def _is_about(row: Row, name: str) -> bool:
    subject = str(row["subject"]).partition(":")[2]
    return name in {row["slo_id"], subject} or subject.rpartition("/")[2] == name


def _burn(row: Row) -> str | None:
    rate = cast("dict[str, float]", row["burns"]).get("60")
    return None if rate is None else f"{rate:.2g}x"


def percent(share: object) -> str | None:
    """Return a share in percent; None where there is none."""
    return None if share is None else f"{cast('float', share) * 100:.6g} %"


def span(minutes: object) -> str | None:
    """Return minutes as a person says them."""
    if minutes is None:
        return None
    length = cast("float", minutes)
    if length < 2 * _MINUTE_SECONDS:
        return f"{length:.0f} min"
    return f"{length / 60:.0f} h" if length < 2 * _DAY_MINUTES else f"{length / _DAY_MINUTES:.0f} days"


def moment(minute: object) -> str | None:
    """Return a minute since 1970 as a time in UTC."""
    if minute is None:
        return None
    return f"{dt.datetime.fromtimestamp(cast('int', minute) * _MINUTE_SECONDS, dt.UTC):%Y-%m-%d %H:%M} UTC"
