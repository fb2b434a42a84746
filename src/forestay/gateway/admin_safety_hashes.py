"""Admin routes of hash lists: making banks, adding and removing hashes, reading them, looking one up.

It decides nothing: what a valid bank is, `safety/hashes/banks` says. Hashes are read only with the permission for
safety: a list of them tells what is looked for. Mounted below `/admin/safety`.
"""

import msgspec

from forestay.errors import UsageError
from forestay.gateway.admin_reading import Act, NotThere, Problem, plain_text
from forestay.gateway.responses import Reply, json_reply
from forestay.safety.hashes.banks import MAX_NOTE, Bank, Entry, Hint, NewBank, NewEntry, checked
from forestay.safety.hashes.pdq import HEX_DIGITS, read_hex
from forestay.safety.hashes.segment import MAX_RADIUS
from forestay.safety.hashes.store import Near
from forestay.safety.taxonomy import Category

MAX_PAGE = 10_000
MAX_LOOKED_UP = 16


class _NewBank(msgspec.Struct, forbid_unknown_fields=True):
    bank_id: str
    source: str
    category: Category
    threshold: int = MAX_RADIUS
    hint: Hint = Hint.BLOCK
    enabled_ratio: float = 1.0


class _Ratio(msgspec.Struct, forbid_unknown_fields=True):
    enabled_ratio: float
    reason: str


class _Hash(msgspec.Struct, forbid_unknown_fields=True):
    hash: str
    note: str = ""
    threshold: int | None = None


class _Adding(msgspec.Struct, forbid_unknown_fields=True):
    entries: list[_Hash]
    reason: str


class _Removing(msgspec.Struct, forbid_unknown_fields=True):
    hashes: list[str]
    reason: str


class _Reason(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


class _LookUp(msgspec.Struct, forbid_unknown_fields=True):
    hashes: list[str]


async def post_bank(act: Act) -> Reply:
    """Make a bank."""
    wanted = await act.json(_NewBank)
    bank = checked(
        NewBank(
            wanted.bank_id, wanted.source, wanted.category, wanted.threshold, wanted.hint, wanted.enabled_ratio
        )
    )  # fmt: skip
    made = await act.ports.banks.create(bank, actor=act.actor)
    if made is None:
        raise Problem(409, f"there is a bank {bank.bank_id!r} already; choose another name", "bank_exists")
    return json_reply(201, _shown(made))


async def get_banks(act: Act) -> Reply:
    """List the banks with the number of their entries."""
    return json_reply(200, {"banks": [_shown(bank) for bank in await act.ports.banks.banks()]})


async def get_bank(act: Act) -> Reply:
    """Show one bank."""
    bank_id = act.path("bank_id")
    found = await act.ports.banks.banks(bank_id)
    if not found:
        raise _no_bank(bank_id)
    return json_reply(200, _shown(found[0]))


async def put_ratio(act: Act) -> Reply:
    """Set the share of contents that a bank is asked about; 0 disables it."""
    wanted = await act.json(_Ratio)
    bank_id, reason = act.path("bank_id"), plain_text("reason", wanted.reason, empty=False)
    bank = await act.ports.banks.set_ratio(bank_id, wanted.enabled_ratio, actor=act.actor, reason=reason)
    if bank is None:
        raise _no_bank(bank_id)
    return json_reply(200, _shown(bank))


async def post_add(act: Act) -> Reply:
    """Add hashes to a bank; every process that matches knows them within a second, this one's wake-up tells them."""
    wanted = await act.json(_Adding)
    entries = [
        NewEntry(
            read_hex(item.hash, f"entries[{number}].hash"),
            plain_text(f"entries[{number}].note", item.note, MAX_NOTE),
            item.threshold,
        )
        for number, item in enumerate(wanted.entries)
    ]
    bank_id, reason = act.path("bank_id"), plain_text("reason", wanted.reason, empty=False)
    added = await act.ports.banks.add(bank_id, entries, actor=act.actor, reason=reason)
    if added is None:
        raise _no_bank(bank_id)
    return json_reply(200, {"added": added, "known": len(entries) - added})


async def post_remove(act: Act) -> Reply:
    """Take hashes out of a bank."""
    wanted = await act.json(_Removing)
    values = [read_hex(text, f"hashes[{number}]") for number, text in enumerate(wanted.hashes)]
    bank_id, reason = act.path("bank_id"), plain_text("reason", wanted.reason, empty=False)
    removed = await act.ports.banks.remove(bank_id, values, actor=act.actor, reason=reason)
    if removed is None:
        raise _no_bank(bank_id)
    return json_reply(200, {"removed": removed})


async def get_entries(act: Act) -> Reply:
    """Read a page of a bank's entries; `after` is the last entry_id seen."""
    bank_id, after = act.path("bank_id"), act.query("after") or "0"
    if not (after.isascii() and after.isdigit() and len(after) <= 18):
        raise UsageError("after", "must be an entry_id")
    if not await act.ports.banks.banks(bank_id):
        raise _no_bank(bank_id)
    entries = await act.ports.banks.entries(bank_id, int(after), act.limit(1_000, MAX_PAGE))
    return json_reply(200, {"entries": [_shown_entry(entry) for entry in entries]})


async def post_restore(act: Act) -> Reply:
    """Let an entry that flood control suspended block again."""
    wanted = await act.json(_Reason)
    entry_id, reason = act.path("entry_id"), plain_text("reason", wanted.reason, empty=False)
    known = entry_id.isascii() and entry_id.isdigit() and len(entry_id) <= 18
    if not known or not await act.ports.banks.restore(int(entry_id), actor=act.actor, reason=reason):
        raise NotThere(f"no suspended entry {entry_id[:40]!r}; `forestay safety bank show BANK` tells of them")
    return json_reply(200, {"entry_id": int(entry_id)})


async def post_match(act: Act) -> Reply:
    """Look hashes up in the banks that are on; every entry is read, so this is for people, not for traffic."""
    wanted = await act.json(_LookUp)
    if not 1 <= len(wanted.hashes) <= MAX_LOOKED_UP:
        raise UsageError("hashes", f"name 1 to {MAX_LOOKED_UP} of them")
    values = [read_hex(text, f"hashes[{number}]") for number, text in enumerate(wanted.hashes)]
    nearest: dict[int, Near] = {}
    for value in values:
        for near in await act.ports.banks.match(value):
            if near.entry_id not in nearest or near.distance < nearest[near.entry_id].distance:
                nearest[near.entry_id] = near
    return json_reply(200, {"matches": sorted(nearest.values(), key=lambda near: (near.distance, near.entry_id))})


def _shown(bank: Bank) -> dict[str, object]:
    return {
        "bank_id": bank.bank_id,
        "source": bank.source,
        "category": bank.category,
        "threshold": bank.threshold,
        "hint": bank.hint,
        "enabled_ratio": bank.enabled_ratio,
        "added_by": bank.added_by,
        "added_at": bank.added_at,
        "entries": bank.entries,
        "suspended": bank.suspended,
    }


def _shown_entry(entry: Entry) -> dict[str, object]:
    return {
        "entry_id": entry.entry_id,
        "hash": f"{entry.value:0{HEX_DIGITS}x}",
        "threshold": entry.threshold,
        "note": entry.note,
        "added_by": entry.added_by,
        "added_at": entry.added_at,
        "suspended_reason": entry.suspended_reason,
    }


def _no_bank(bank_id: str) -> NotThere:
    return NotThere(f"no bank {bank_id[:60]!r}; `forestay safety bank list` shows those that exist")
