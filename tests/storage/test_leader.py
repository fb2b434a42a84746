"""One controller runs a loop at a time."""

from forestay.storage.leader import LoopLeaders
from forestay.storage.postgres import Database


async def test_one_holder_leads_and_renews(database: Database) -> None:
    """The second is told no until the lease ends; the term rises only when the hand changes."""
    first, second = LoopLeaders(database, "first"), LoopLeaders(database, "second")
    leadership = await first.lead("rescue", 30.0)
    assert leadership is not None
    assert leadership.term == 1
    assert await second.lead("rescue", 30.0) is None
    assert await second.lead("expire", 30.0) is not None
    assert await first.lead("rescue", 30.0) == leadership
    await database.execute("UPDATE loop_leaders SET expires_at = now() - interval '1 second'")
    taken = await second.lead("rescue", 30.0)
    assert taken is not None
    assert taken.term == 2
    assert await first.lead("rescue", 30.0) is None
    await first.resign(leadership)
    assert await first.lead("rescue", 30.0) is None
    await second.resign(taken)
    back = await first.lead("rescue", 30.0)
    assert back is not None
    assert back.term == 3
