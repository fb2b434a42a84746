"""`forestay safety bank` and `forestay safety match`: banks of known hashes, and looking a file up in them."""

import asyncio
import pathlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, cast

import typer

from forestay.cli.client import connect
from forestay.cli.output import JSON_OPTION, print_json, print_table, say
from forestay.errors import Refused, UsageError
from forestay.safety.hashes.banks import MAX_ENTRIES_A_CALL, Entry, Hint
from forestay.safety.hashes.exchange import Read, read_list, write_csv, write_json
from forestay.safety.hashes.pdq import HEX_DIGITS, Hash, read_hex
from forestay.safety.hashes.segment import MAX_RADIUS
from forestay.safety.taxonomy import Category

if TYPE_CHECKING:
    from forestay.safety.hashes.pdq import Pixels

bank_app = typer.Typer(no_args_is_help=True, help="Make, fill, read and disable banks of known hashes.")
Row = dict[str, object]
_COLUMNS = ("bank_id", "category", "threshold", "hint", "enabled_ratio", "entries", "suspended", "source")
_PAGE = 10_000
_MAX_LIST_BYTES = 1024 * 1024 * 1024
_REASON = typer.Option(help="Why; kept in the audit log.")
_BANK = typer.Argument(help="The bank's name.")


def register(app: typer.Typer) -> None:
    """Add these commands to `forestay safety`."""
    app.add_typer(bank_app, name="bank")
    app.command(name="match")(match)


@bank_app.command()
def create(
    bank_id: Annotated[str, _BANK],
    source: Annotated[str, typer.Option(help="Who says that these are known: an exchange, a list, an own review.")],
    category: Annotated[Category, typer.Option(help="What a match is.")],
    threshold: Annotated[int, typer.Option(min=0, max=MAX_RADIUS, help="Bits of 256 that may differ.")] = MAX_RADIUS,
    hint: Annotated[Hint, typer.Option(help="What a match should lead to; the policy decides.")] = Hint.BLOCK,
    enabled_ratio: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of contents that it is asked about.")
    ] = 1.0,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Make an empty bank.

    Example: forestay safety bank create own-logos --source "brand team" --category intellectual_property --threshold 20
    """
    asked = {
        "bank_id": bank_id, "source": source, "category": category.value, "threshold": threshold,
        "hint": hint.value, "enabled_ratio": enabled_ratio,
    }  # fmt: skip
    made = cast("Row", connect().post("/admin/safety/banks", asked))
    print_json(made) if json else say(f"bank {made['bank_id']} is made; add hashes with `forestay safety bank add`")


@bank_app.command(name="list")
def list_banks(json: Annotated[bool, JSON_OPTION] = False) -> None:
    """List banks.

    Example: forestay safety bank list
    """
    rows = cast("dict[str, list[Row]]", connect().get("/admin/safety/banks"))["banks"]
    if json:
        print_json(rows)
        return
    print_table(_COLUMNS, [[row[column] for column in _COLUMNS] for row in rows], empty="no banks")


@bank_app.command()
def show(
    bank_id: Annotated[str, _BANK],
    limit: Annotated[int, typer.Option(min=0, max=_PAGE, help="At most so many of its entries.")] = 20,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Show a bank and its first entries.

    Example: forestay safety bank show own-logos
    """
    found = cast("Row", connect().get(f"/admin/safety/banks/{_quoted(bank_id)}"))
    entries = _page(bank_id, 0, limit) if limit else []
    if json:
        print_json(found | {"first_entries": entries})
        return
    for name, value in found.items():
        say(f"{name}: {value}")
    columns = ("entry_id", "hash", "threshold", "note", "added_by", "added_at", "suspended_reason")
    print_table(columns, [[row[column] for column in columns] for row in entries], empty="no entries")


@bank_app.command()
def add(
    bank_id: Annotated[str, _BANK],
    hashes: Annotated[list[str], typer.Argument(help="PDQ hashes (64 hex digits), or files of pictures.")],
    reason: Annotated[str, _REASON],
    note: Annotated[str, typer.Option(help="A word about them.")] = "",
    threshold: Annotated[
        int | None, typer.Option(min=0, max=MAX_RADIUS, help="Bits that may differ, fewer than the bank's.")
    ] = None,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Add hashes to a bank; a picture is hashed on this machine and stays here.

    Example: forestay safety bank add own-logos logo.png --reason "new brand"
    """
    entries: list[Row] = [{"hash": _hash_of(text).hex, "note": note, "threshold": threshold} for text in hashes]
    done = _add(bank_id, entries, reason)
    print_json(done) if json else say(f"{done['added']} added to {bank_id}, {done['known']} were there")


@bank_app.command()
def remove(
    bank_id: Annotated[str, _BANK],
    hashes: Annotated[list[str], typer.Argument(help="PDQ hashes (64 hex digits), or files of pictures.")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Take hashes out of a bank.

    Example: forestay safety bank remove own-logos logo.png --reason "old brand"
    """
    asked = {"hashes": [_hash_of(text).hex for text in hashes], "reason": reason}
    done = cast("Row", connect().post(f"/admin/safety/banks/{_quoted(bank_id)}/remove", asked))
    print_json(done) if json else say(f"{done['removed']} removed from {bank_id}")


@bank_app.command(name="import")
def import_list(
    bank_id: Annotated[str, _BANK],
    file: Annotated[pathlib.Path, typer.Argument(help="CSV, JSON or lines, as exchanges write them.")],
    reason: Annotated[str, _REASON],
    strict: Annotated[bool, typer.Option("--strict", help="Import nothing if any line is faulty.")] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Import a list as python-threatexchange and Hasher-Matcher-Actioner write it; faulty lines are told, exit 1.

    Example: forestay safety bank import shared-list collab.csv --reason "weekly import"
    """
    read = _read_file(file)
    if not json:
        for fault in read.faults:
            say(f"{file}:{fault.line}: {fault.what}", err=True)
    if strict and read.faults:
        raise UsageError("FILE", f"{file} has faulty lines, the first is {read.faults[0].line}; nothing was imported")
    entries: list[Row] = [
        {"hash": Hash(entry.value).hex, "note": entry.note, "threshold": None} for entry in read.entries
    ]
    done: Row = {"added": 0, "known": 0}
    for start in range(0, len(entries), MAX_ENTRIES_A_CALL):
        part = _add(bank_id, entries[start : start + MAX_ENTRIES_A_CALL], reason)
        done = {name: cast("int", done[name]) + cast("int", part[name]) for name in done}
    said = {"faulty": len(read.faults), "left_out": read.left_out}
    if json:
        faults = [{"line": fault.line, "what": fault.what} for fault in read.faults]
        print_json(done | said | {"faults": faults})
    else:
        say(
            f"{done['added']} added to {bank_id}, {done['known']} were there, {read.left_out} left out (other kinds of "
            f"signal, or not of the positive class), {len(read.faults)} faulty"
        )
    if read.faults:
        raise typer.Exit(1)


@bank_app.command()
def export(
    bank_id: Annotated[str, _BANK],
    out: Annotated[pathlib.Path, typer.Option(help="Where to write; .json writes JSON, all else CSV.")],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Write a bank in the form in which exchanges read it.

    Example: forestay safety bank export own-logos --out own-logos.csv
    """
    entries = list(_entries(bank_id))
    text = (write_json if out.suffix == ".json" else write_csv)(entries, bank_id)
    out.write_text(text, encoding="utf-8")
    told = {"file": str(out), "entries": len(entries)}
    print_json(told) if json else say(f"{out}: {len(entries)} hashes of {bank_id}")


@bank_app.command()
def disable(
    bank_id: Annotated[str, _BANK],
    reason: Annotated[str, _REASON],
    ratio: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Leave it on for this share of contents; 1 enables it.")
    ] = 0.0,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Turn a bank off, or leave it on for a share of contents.

    Example: forestay safety bank disable own-logos --reason "too many matches"
    """
    asked = _body({"enabled_ratio": ratio, "reason": reason})
    done = cast("Row", connect().put(f"/admin/safety/banks/{_quoted(bank_id)}/ratio", asked, "application/json"))
    print_json(done) if json else say(f"bank {bank_id} is asked about {done['enabled_ratio']} of contents")


@bank_app.command()
def restore(
    entry_id: Annotated[int, typer.Argument(help="An entry that flood control suspended.")],
    reason: Annotated[str, _REASON],
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Let an entry that flood control suspended block again.

    Example: forestay safety bank restore 4711 --reason "the flood was an attack"
    """
    done = cast("Row", connect().post(f"/admin/safety/entries/{entry_id}/restore", {"reason": reason}))
    print_json(done) if json else say(f"entry {entry_id} blocks again")


def match(
    file: Annotated[str, typer.Argument(help="A picture, or a PDQ hash of 64 hex digits.")],
    against: Annotated[
        pathlib.Path | None, typer.Option(help="A list or an exported bank to look in, without a platform.")
    ] = None,
    threshold: Annotated[
        int, typer.Option(min=0, max=MAX_RADIUS, help="With --against: bits that may differ.")
    ] = MAX_RADIUS,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Look a picture up in the banks, turned and mirrored too; it is hashed on this machine and stays here.

    Exit 0 whether it is found or not.

    Example: forestay safety match picture.png --against collab.csv
    """
    forms = _forms_of(file)
    if against is None:
        found = cast("Row", connect().post("/admin/safety/match", {"hashes": [form.hex for form in forms]}))
        rows = cast("list[Row]", found["matches"])
    else:
        rows = _look_in(_read_file(against), forms, threshold)
    if json:
        print_json({"hash": forms[0].hex, "quality": forms[0].quality, "matches": rows})
        return
    say(f"hash {forms[0].hex}, quality {forms[0].quality} of 100")
    columns = ("bank_id", "entry_id", "distance", "category", "hint", "hash")
    print_table(columns, [[row.get(column) for column in columns] for row in rows], empty="not known")


def _look_in(read: Read, forms: Sequence[Hash], threshold: int) -> list[Row]:
    """Look in a list that was read from a file."""
    rows: list[Row] = []
    for entry in read.entries:
        distance = min((entry.value ^ form.value).bit_count() for form in forms)
        if distance <= threshold:
            rows.append({"hash": Hash(entry.value).hex, "distance": distance, "note": entry.note})
    return sorted(rows, key=lambda row: cast("int", row["distance"]))


def _forms_of(text: str) -> Sequence[Hash]:
    """Return the hashes of a picture in all its eight forms, or the one that was typed."""
    if _is_hash(text):
        return [Hash(read_hex(text, "FILE"))]
    from forestay.safety.hashes.pdq import hashes_of

    return hashes_of(_pixels(pathlib.Path(text)))


def _hash_of(text: str) -> Hash:
    if _is_hash(text):
        return Hash(read_hex(text))
    from forestay.safety.hashes.pdq import LEAST_QUALITY, hash_of

    made = hash_of(_pixels(pathlib.Path(text)))
    if made.quality < LEAST_QUALITY:
        raise Refused(
            f"{text} has too little structure (quality {made.quality} of 100, {LEAST_QUALITY} are needed): its hash "
            f"would match every flat picture"
        )
    return made


def _is_hash(text: str) -> bool:
    return len(text) == HEX_DIGITS and not pathlib.Path(text).exists()


def _pixels(path: pathlib.Path) -> "Pixels":
    from forestay.safety.hashes.opened import open_picture

    try:
        with path.open("rb") as file:
            return asyncio.run(open_picture(file))
    except OSError as error:
        raise UsageError("FILE", f"{path} cannot be read: {error.strerror}") from None


def _read_file(path: pathlib.Path) -> Read:
    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            raise UsageError("FILE", f"{path} is larger than {_MAX_LIST_BYTES} bytes; split it")
        return read_list(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("FILE", f"{path} cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None


def _add(bank_id: str, entries: Sequence[Row], reason: str) -> Row:
    asked = {"entries": entries, "reason": reason}
    return cast("Row", connect().post(f"/admin/safety/banks/{_quoted(bank_id)}/add", asked))


def _page(bank_id: str, after: int, limit: int) -> list[Row]:
    query = {"after": str(after), "limit": str(limit)}
    found = connect().get(f"/admin/safety/banks/{_quoted(bank_id)}/entries", query)
    return cast("dict[str, list[Row]]", found)["entries"]


def _entries(bank_id: str) -> Iterator[Entry]:
    import datetime as dt

    after = 0
    while page := _page(bank_id, after, _PAGE):
        for row in page:
            added_at = dt.datetime.fromisoformat(str(row["added_at"]))
            after = cast("int", row["entry_id"])
            value = read_hex(str(row["hash"]))
            yield Entry(after, 0, value, None, str(row["note"]), str(row["added_by"]), added_at, False, None, 0)  # noqa: FBT003


def _quoted(text: str) -> str:
    import urllib.parse

    return urllib.parse.quote(text, safe="")


def _body(value: Row) -> bytes:
    import json as encoder

    return encoder.dumps(value).encode()
