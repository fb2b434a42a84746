"""`forestay key first`: make the first ADMIN key in the database itself, before any gateway can.

It decides nothing (`fleet/first_key` does). It is for platforms whose processes somebody starts by hand, and for those
whose only ADMIN key is lost; `forestay up` makes its own. Called by `cli/key`.
"""

import asyncio
from typing import Annotated

import typer

from forestay.cli.output import JSON_OPTION, print_json, say
from forestay.errors import Refused, UsageError
from forestay.fleet.keys import IssuedKey
from forestay.settings import Settings, process_environment


def first(
    anyway: Annotated[bool, typer.Option("--anyway", help="Also where one works: its secret is lost.")] = False,
    json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Make an ADMIN key in FORESTAY_DATABASE_URL itself, where none works yet, and print it; gateways ask for one.

    Example: FORESTAY_DATABASE_URL=postgresql://... FORESTAY_KEY_PEPPER=... forestay key first
    """
    settings = Settings.from_environment(process_environment())
    if not settings.storage.database_url:
        raise UsageError("FORESTAY_DATABASE_URL", "is not set; expected postgresql://user:password@host/database")
    if not settings.secrets.key_pepper:
        raise UsageError("FORESTAY_KEY_PEPPER", "is not set; expected 32 random characters, the same on every gateway")
    issued = asyncio.run(_issue(settings, anyway=anyway))
    if json:
        print_json({"key_id": issued.key.key_id, "tenant_id": issued.key.tenant_id, "key": issued.credential})
        return
    say(issued.credential)


async def _issue(settings: Settings, *, anyway: bool) -> IssuedKey:
    from forestay.chance import SystemChance
    from forestay.clock import SystemClock
    from forestay.fleet.first_key import FIRST_TENANT, decide_first_key
    from forestay.fleet.keys import KeyRequest
    from forestay.fleet.peppers import Peppers
    from forestay.fleet.postgres_keys import PostgresKeyStore
    from forestay.storage.postgres import Database

    clock, storage = SystemClock(), settings.storage
    peppers = Peppers(settings.secrets.key_pepper, settings.secrets.old_key_peppers.split())
    database = await Database.connect(
        storage.database_url,
        pool_size=1,
        statement_timeout_seconds=storage.statement_timeout_seconds,
        application_name="forestay key first",
    )
    try:
        store = PostgresKeyStore(database, clock, SystemChance(), "key-first", peppers)
        wanted = decide_first_key(await store.keys(FIRST_TENANT), clock.now(), anyway=anyway)
        if not isinstance(wanted, KeyRequest):
            raise Refused(f"key {wanted} has the scope ADMIN and works; use it, or say --anyway if its secret is lost")
        await store.create_tenant(FIRST_TENANT, "Default", actor="system:key-first")
        issued = await store.create(wanted, actor="system:key-first")
    finally:
        await database.close()
    if issued is None:  # the tenant went while we looked
        raise Refused(f"tenant {FIRST_TENANT} is gone from the database; try again")
    return issued
