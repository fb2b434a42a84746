"""`forestay quality scorers`: which scorers this machine would run, and whether they still score as they did."""

import asyncio
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, cast

import typer

from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import UsageError
from forestay.quality.scorers.file import VARIABLE, ScorerEntry, read_scorers
from forestay.quality.scorers.frozen import FrozenFault, digest_of, items_of, read_frozen, write_frozen
from forestay.quality.scorers.model import Described, Failed, Given, Score
from forestay.settings import Settings, process_environment

if TYPE_CHECKING:
    from forestay.worker.scorer_process import ScorerProcess

app = typer.Typer(no_args_is_help=True, help="List and check the scorers that look at outputs.")
Row = dict[str, object]
_FILE = typer.Option("--file", help=f"The file that names scorers; empty: {VARIABLE}.")


@app.command(name="list")
def list_scorers(
    file: Annotated[str, _FILE] = "",
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """List the scorers that a worker with this file would run; none is started.

    Example: forestay quality scorers list --file scorers.yaml
    """
    rows = [_listed(entry) for entry in _entries(file)]
    if json:
        print_json(rows)
        return
    columns = ("scorer", "program", "python", "memory", "frozen set")
    shown = [(row["scorer"], row["program"], row["python"], f"{row['memory_mb']} MB", row["frozen"]) for row in rows]
    print_table(columns, shown, empty=f"no scorer is named; {VARIABLE} names a file of them")


@app.command()
def check(
    scorer: Annotated[str, typer.Argument(help="A scorer's id, `name@version`.")],
    file: Annotated[str, _FILE] = "",
    learn: Annotated[bool, typer.Option("--learn", help="Write what it says now as its known scores.")] = False,
    allow_unisolated: Annotated[
        bool, typer.Option("--allow-unisolated", help="Run it also where the network cannot be withheld.")
    ] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Run a scorer on its frozen set, isolated as on a worker; exit 1 when it does not score as it did.

    Example: forestay quality scorers check digits-agreement@1 --file examples/scorers/scorers.yaml
    """
    entry = next((item for item in _entries(file) if item.scorer_id == scorer), None)
    if entry is None:
        raise UsageError("SCORER", f"{scorer!r} is not in the file; `forestay quality scorers list` shows which are")
    row = asyncio.run(_checked(entry, learn=learn, allow_unisolated=allow_unisolated))
    if json:
        print_json(row)
    else:
        _show(row)
    if row["trouble"]:
        raise typer.Exit(1)


def _entries(file: str) -> list[ScorerEntry]:
    return read_scorers(file or Settings.from_environment(process_environment()).quality.scorers_file)


def _listed(entry: ScorerEntry) -> Row:
    try:
        frozen = f"{len(items_of(entry.folder))} outputs"
    except FrozenFault as fault:
        frozen = str(fault)
    return {
        "scorer": entry.scorer_id,
        "program": str(entry.folder / entry.program),
        "python": entry.python or "Forestay's own",
        "memory_mb": entry.memory_mb,
        "timeout_seconds": entry.timeout_seconds,
        "frozen": frozen,
    }


async def _checked(entry: ScorerEntry, *, learn: bool, allow_unisolated: bool) -> Row:
    """Return what became of a scorer on its frozen set."""
    from forestay.worker.scorer_process import ScorerPlace, ScorerProcess

    with tempfile.TemporaryDirectory(prefix="fs-") as name:
        place = ScorerPlace(_entered(name), process_environment(), allow_unisolated=allow_unisolated)
        process = ScorerProcess(entry, place)
        try:
            described = await process.start()
            if isinstance(described, Failed):
                return _row(entry, described, {}, "")
            return await _scored(entry, process, described, learn=learn)
        except FrozenFault as fault:
            return {**_row(entry, None, {}, ""), "trouble": "no_frozen_set", "words": str(fault)}
        finally:
            await process.stop()


def _entered(name: str) -> pathlib.Path:
    """Return a folder for the scorer inside a temporary one, which its own user may pass through."""
    folder = pathlib.Path(name)
    folder.chmod(0o711)
    return folder / "run"


async def _scored(entry: ScorerEntry, process: "ScorerProcess", described: Described, *, learn: bool) -> Row:
    from forestay.worker.scoring import reproduced

    items = items_of(entry.folder)
    scores: list[Score] = []
    for start in range(0, len(items), entry.batch):
        answer = await process.score([item.item for item in items[start : start + entry.batch]])
        if isinstance(answer, Failed):
            return _row(entry, answer, {}, "")
        scores += answer
    told = {item.name: score for item, score in zip(items, scores, strict=True)}
    if learn:
        digest = await asyncio.to_thread(write_frozen, entry.folder, described, scores)
        return {**_row(entry, None, told, digest, described), "learned": True}
    digest = await asyncio.to_thread(digest_of, entry.folder)
    frozen = await asyncio.to_thread(read_frozen, entry.folder, described)
    failed = await reproduced(process, described, frozen, digest, entry.batch)
    return _row(entry, failed, told, digest, described)


def _row(
    entry: ScorerEntry,
    failed: Failed | None,
    told: Mapping[str, Score],
    digest: str,
    described: Described | None = None,
) -> Row:
    names: Sequence[str] = [item.name for item in described.measures] if described is not None else ()
    return {
        "scorer": entry.scorer_id,
        "trouble": failed.trouble.value if failed is not None else "",
        "words": failed.words if failed is not None else "",
        "digest": digest,
        "learned": False,
        "scores": [
            {
                "file": file,
                "scores": dict(zip(names, score.values, strict=True)) if isinstance(score, Given) else None,
                "why": "" if isinstance(score, Given) else score.why,
            }
            for file, score in told.items()
        ],
    }


def _show(row: Row) -> None:
    shown: list[tuple[object, ...]] = []
    for one in cast("list[Row]", row["scores"]):
        scores = cast("dict[str, float] | None", one["scores"])
        words = ", ".join(f"{name} {value:.4g}" for name, value in (scores or {}).items())
        shown.append((one["file"], words or one["why"]))
    print_table(("frozen output", "scores"), shown, empty="no frozen output was scored")
    say()
    if row["trouble"]:
        say(f"{row['scorer']}: {row['trouble']}: {row['words']}")
    else:
        told = "was learned" if row["learned"] else "scores as it did"
        say(f"{row['scorer']} {told}; digest {row['digest']}")
