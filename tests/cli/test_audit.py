"""`forestay audit`: the log held against its chains and its signed checkpoints, from the command line."""

import json
import pathlib
from collections.abc import Awaitable, Callable

from tests.cli.conftest import Platform, Ran

Forestay = Callable[..., Awaitable[Ran]]


def keep(path: pathlib.Path, text: str) -> pathlib.Path:
    """Write a file as a shell's redirection does."""
    path.write_text(text)
    return path


async def tamper(platform: Platform, statement: str) -> None:
    """Change the log as somebody with the database's password can."""
    await platform.database.execute("ALTER TABLE audit_log DISABLE TRIGGER audit_log_append_only")
    await platform.database.execute(statement)


async def test_a_removed_chain_is_found_and_nothing_more_is_signed(
    forestay: Forestay, platform: Platform, tmp_path: pathlib.Path
) -> None:
    """Exit 1 naming the row; the checkpoint that was kept elsewhere says the same."""
    await forestay("tenant", "create", "beta")
    before = await forestay("audit", "verify")
    assert before.status == 0
    assert "no checkpoint was signed yet" in before.out
    anchored = await forestay("audit", "anchor")
    assert anchored.status == 0, anchored.err
    kept = keep(tmp_path / "checkpoint.json", anchored.out)
    assert "as checkpoint 1 of" in (await forestay("audit", "verify", "--checkpoint", kept)).out
    await tamper(platform, "DELETE FROM audit_log; DELETE FROM audit_heads")
    found = await forestay("audit", "verify", "--json")
    assert found.status == 1
    assert found.json()["intact"] is False
    assert "is gone" in found.out
    assert (await forestay("audit", "verify", "--checkpoint", kept)).status == 1
    refused = await forestay("audit", "anchor")
    assert refused.status == 1
    assert "tampered" in refused.err


async def test_a_file_that_is_no_checkpoint_is_named(forestay: Forestay, tmp_path: pathlib.Path) -> None:
    """Missing, not JSON, JSON of something else, or signed by nobody."""
    assert "cannot be read" in (await forestay("audit", "verify", "--checkpoint", tmp_path / "none")).err
    for text, words in (("x", "is no checkpoint"), ('{"a": 1}', "checkpoint")):
        ran = await forestay("audit", "verify", "--checkpoint", keep(tmp_path / "c.json", text))
        assert ran.status in {1, 2}
        assert words in ran.err
    made = json.loads((await forestay("audit", "anchor")).out)
    made["signature"] = "00" * 64
    ran = await forestay("audit", "verify", "--checkpoint", keep(tmp_path / "c.json", json.dumps(made)))
    assert ran.status == 1
    assert "not signed by us" in ran.out
