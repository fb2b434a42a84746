"""Banks in Postgres, and the readers that follow them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from tests.quickest import quickest
from tests.safety.hashes.drawn import drawn

from forestay.clock import SystemClock
from forestay.errors import Unavailable, UsageError
from forestay.fleet import postgres_audit
from forestay.safety.hashes import follow
from forestay.safety.hashes.banks import Bank, Entry, Hint, NewBank, NewEntry, is_asked
from forestay.safety.hashes.follow import Banks
from forestay.safety.hashes.pdq import hash_of
from forestay.safety.hashes.postgres_store import PostgresBankStore
from forestay.safety.hashes.store import Place
from forestay.safety.taxonomy import Category
from forestay.storage.postgres import Database
from forestay.storage.valkey import Wakeups

BANK = NewBank("list-7f3a", "an exchange", Category.GRAPHIC_VIOLENCE)
VALUE = hash_of(drawn(3, 512, 384)).value


@pytest.fixture
def store(database: Database, wakeups: Wakeups) -> PostgresBankStore:
    """Banks on a fresh database."""
    return PostgresBankStore(database, wakeups, SystemClock())


async def added(store: PostgresBankStore, *entries: NewEntry, bank: NewBank = BANK) -> None:
    """Make the bank unless it is there, and add entries."""
    await store.create(bank, actor="human:k")
    await store.add(bank.bank_id, entries, actor="human:k", reason="known")


async def until(holds: Callable[[], bool], wait: Callable[[], Awaitable[object]]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(10):
        while not holds():
            await wait()


async def test_every_change_of_a_bank_leaves_an_audit_row(store: PostgresBankStore, database: Database) -> None:
    """Who made it, filled it, emptied it and turned it off, and why."""
    await added(store, NewEntry(VALUE, "MARKER-7F3A"))
    assert await store.remove(BANK.bank_id, [VALUE], actor="human:l", reason="appealed") == 1
    await store.set_ratio(BANK.bank_id, 0.0, actor="human:m", reason="too wide")
    rows = await postgres_audit.read_newest(database, subject="hash_bank:list-7f3a")
    assert [(row.entry.action, row.entry.actor) for row in reversed(rows)] == [
        ("create_bank", "human:k"),
        ("add_hashes", "human:k"),
        ("remove_hashes", "human:l"),
        ("set_bank_ratio", "human:m"),
    ]
    assert [row.entry.reason for row in rows][:2] == ["too wide", "appealed"]
    assert await postgres_audit.verify(database) == []


async def test_what_is_there_already_is_not_added_twice(store: PostgresBankStore) -> None:
    """The second import of a list finds nothing new, and a bank is made once."""
    await added(store, NewEntry(1), NewEntry(2))
    assert await store.create(BANK, actor="human:k") is None
    assert await store.add(BANK.bank_id, [NewEntry(2), NewEntry(3)], actor="human:k", reason="again") == 1
    (bank,) = await store.banks(BANK.bank_id)
    assert (bank.entries, bank.suspended) == (3, 0)
    assert await store.add("absent", [NewEntry(1)], actor="human:k", reason="known") is None


async def test_a_removed_hash_may_be_added_anew(store: PostgresBankStore) -> None:
    """Removal is kept as history and does not stand in the way."""
    await added(store, NewEntry(5))
    await store.remove(BANK.bank_id, [5], actor="human:k", reason="wrong")
    assert await store.add(BANK.bank_id, [NewEntry(5)], actor="human:k", reason="right after all") == 1
    assert [entry.value for entry in await store.entries(BANK.bank_id, 0, 10)] == [5]


async def test_a_change_made_here_is_found_within_a_tenth_of_a_second(store: PostgresBankStore) -> None:
    """Added: found by the next refresh. Removed: gone. Both within 100 ms."""
    clock, banks = SystemClock(), Banks(store)
    await added(store, NewEntry(1))
    await banks.refresh()

    async def both() -> float:
        began = clock.monotonic()
        await store.add(BANK.bank_id, [NewEntry(VALUE)], actor="human:k", reason="known")
        await banks.refresh()
        (hit,) = banks.find(VALUE ^ 0b111)
        assert (hit.bank.bank_id, hit.distance, hit.hint) == ("list-7f3a", 3, Hint.BLOCK)
        await store.remove(BANK.bank_id, [VALUE], actor="human:k", reason="wrong")
        await banks.refresh()
        assert banks.find(VALUE) == []
        return clock.monotonic() - began

    assert await quickest(both, 0.2) < 0.2


async def test_a_reader_elsewhere_hears_of_a_change_by_its_wake_up(
    database: Database, store: PostgresBankStore, wakeups: Wakeups
) -> None:
    """It does not poll in this test: only the wake-up can tell it."""
    banks = Banks(PostgresBankStore(database, wakeups, SystemClock()))
    await store.create(BANK, actor="human:k")
    async with asyncio.TaskGroup() as group:
        following = group.create_task(banks.run(wakeups, poll_seconds=3_600.0))
        await until(lambda: bool(banks.banks), lambda: asyncio.sleep(0.005))
        await store.add(BANK.bank_id, [NewEntry(VALUE)], actor="human:k", reason="known")
        await until(lambda: bool(banks.find(VALUE)), lambda: asyncio.sleep(0.005))
        following.cancel()


async def test_a_first_load_holds_what_lives_and_nothing_that_was_removed(store: PostgresBankStore) -> None:
    """A process that starts late knows the same as one that followed all along."""
    early, late = Banks(store), Banks(store)
    await added(store, *(NewEntry(number << 40) for number in range(50)))
    await early.refresh()
    await store.remove(BANK.bank_id, [number << 40 for number in range(0, 50, 2)], actor="human:k", reason="wrong")
    await store.suspend((await store.entries(BANK.bank_id, 0, 1))[0].entry_id, actor="loop:hashes", reason="flood")
    await early.refresh()
    await late.refresh()
    assert len(early) == len(late) == 25
    assert early.find(1 << 40) == late.find(1 << 40) != []
    assert [hit.hint for hit in late.find(1 << 40) if hit.distance == 0] == [Hint.REVIEW]


async def test_a_bank_that_is_off_or_narrower_does_not_match(store: PostgresBankStore) -> None:
    """Its distance and its ratio hold at once, for entries that are there already."""
    banks = Banks(store)
    await added(store, NewEntry(VALUE), bank=NewBank("narrow", "us", Category.HATE, threshold=2))
    await banks.refresh()
    assert banks.find(VALUE ^ 0b11)
    assert not banks.find(VALUE ^ 0b111)
    await store.set_ratio("narrow", 0.0, actor="human:k", reason="off")
    await banks.refresh()
    assert not banks.find(VALUE)


async def test_a_suspended_entry_leads_to_review_until_a_person_restores_it(store: PostgresBankStore) -> None:
    """Everywhere, and it is said once."""
    banks = Banks(store)
    await added(store, NewEntry(VALUE))
    (entry,) = await store.entries(BANK.bank_id, 0, 10)
    assert await store.suspend(entry.entry_id, actor="loop:hashes", reason="matched for more than 20 tenants")
    assert not await store.suspend(entry.entry_id, actor="loop:hashes", reason="matched for more than 20 tenants")
    await banks.refresh()
    assert [hit.hint for hit in banks.find(VALUE)] == [Hint.REVIEW]
    assert [near.suspended_reason for near in await store.match(VALUE)] == ["matched for more than 20 tenants"]
    assert await store.restore(entry.entry_id, actor="human:k", reason="an attack")
    await banks.refresh()
    assert [hit.hint for hit in banks.find(VALUE)] == [Hint.BLOCK]


async def test_the_store_and_the_index_agree_on_what_is_near(store: PostgresBankStore) -> None:
    """The look-up for people reads every row, the other one its index."""
    banks = Banks(store)
    values = [VALUE ^ ((1 << bits) - 1) for bits in (0, 5, 31, 32, 60)]
    await added(store, *(NewEntry(value) for value in values))
    await banks.refresh()
    near = await store.match(VALUE)
    assert [(item.entry_id, item.distance) for item in near] == [
        (hit.entry_id, hit.distance) for hit in banks.find(VALUE)
    ]
    assert [item.distance for item in near] == [0, 5, 31]


@pytest.mark.parametrize(
    ("bank", "field"),
    [
        (NewBank("Not A Name", "us", Category.HATE), "bank"),
        (NewBank("fine", " ", Category.HATE), "source"),
        (NewBank("fine", "us", Category.HATE, threshold=32), "threshold"),
        (NewBank("fine", "us", Category.HATE, enabled_ratio=float("nan")), "enabled_ratio"),
    ],
)
async def test_a_bank_that_makes_no_sense_is_refused_by_field(
    store: PostgresBankStore, bank: NewBank, field: str
) -> None:
    """Nothing is kept of it."""
    with pytest.raises(UsageError) as refused:
        await store.create(bank, actor="human:k")
    assert refused.value.field == field
    assert await store.banks() == []


async def test_the_same_content_always_gets_the_same_share(store: PostgresBankStore) -> None:
    """About the share that was asked for, and for one content always the same answer."""
    half = await store.create(NewBank("half", "us", Category.HATE, enabled_ratio=0.5), actor="human:k")
    assert half is not None
    asked = [is_asked(half, value) for value in range(2_000)]
    assert asked == [is_asked(half, value) for value in range(2_000)]
    assert 900 < sum(asked) < 1_100


async def test_many_changes_are_merged_and_none_of_them_is_lost(store: PostgresBankStore) -> None:
    """A small buffer that fills many times over, with removals in between and a merge beside them."""
    banks = Banks(store, buffer_rows=8)
    await added(store, NewEntry(1))
    await banks.refresh()
    held = {1}
    async with asyncio.TaskGroup() as group:
        for number in range(1, 9):
            values = [(number << 100) + (place << 40) for place in range(12)]
            await store.add(BANK.bank_id, [NewEntry(value) for value in values], actor="human:k", reason="known")
            await store.remove(BANK.bank_id, values[:2], actor="human:k", reason="wrong")
            held |= set(values[2:])
            await banks.refresh()
            group.create_task(banks.merge())
            found = {value for value in held if any(hit.distance == 0 for hit in banks.find(value))}
            assert found == held
    await banks.merge()
    assert len(banks) == len(held)
    assert {value for value in held if any(hit.distance == 0 for hit in banks.find(value))} == held


class Breaking:
    """A store whose second page of entries breaks off once."""

    def __init__(self, store: PostgresBankStore) -> None:
        self._store = store
        self._asked = 0

    async def changed_banks(self, version: int) -> Sequence[tuple[int, Bank]]:
        """Ask the store."""
        return await self._store.changed_banks(version)

    async def changed_entries(self, after: Place, limit: int) -> Sequence[Entry]:
        """Ask the store, but break off the second time."""
        self._asked += 1
        if self._asked == 2:
            raise Unavailable("the database went away")
        return await self._store.changed_entries(after, limit)


async def test_a_first_load_that_breaks_off_begins_anew_and_misses_nothing(
    store: PostgresBankStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before the break is not taken for all that there is."""
    monkeypatch.setattr(follow, "_FIRST_PAGE", 4)
    await added(store, *(NewEntry(number << 40) for number in range(10)))
    banks = Banks(Breaking(store))
    with pytest.raises(Unavailable):
        await banks.refresh()
    assert not banks.loaded
    assert await banks.refresh() == 10
    assert banks.loaded
    assert len(banks) == 10
