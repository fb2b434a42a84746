"""`forestay abuse` against the admin API and real stores."""

from collections.abc import Awaitable, Callable
from typing import cast

import pytest
from tests.cli.conftest import Platform, Ran

from forestay.fleet.keys import KeyRequest, Scope
from forestay.ids import TenantId

Forestay = Callable[..., Awaitable[Ran]]
Row = dict[str, object]


def subject_of(platform: Platform) -> str:
    """The subject that the platform's API key is."""
    return f"key:{platform.api_key.partition(':')[0]}"


async def suspended(platform: Platform, forestay: Forestay) -> str:
    """Suspend the API key, and return the standing's id."""
    ran = await forestay("abuse", "set", subject_of(platform), "suspend", "--reason", "seen in public", "--json")
    assert ran.status == 0, ran.err
    return str(cast("Row", ran.json()["standing"])["standing_id"])


async def heard(platform: Platform) -> None:
    """Let the gateway's memory see the fleet, as its view would."""
    platform.ports.standings.replace((await platform.ports.fleet.load()).standings)


async def test_a_standing_is_set_shown_listed_and_lifted(platform: Platform, forestay: Forestay) -> None:
    """The whole of an analyst's day, in words and in JSON."""
    standing_id = await suspended(platform, forestay)
    shown = await forestay("abuse", "show", standing_id)
    assert "seen in public" in shown.out
    listed = await forestay("abuse", "list", "--subject", subject_of(platform))
    assert standing_id in listed.out
    lifted = await forestay("abuse", "lift", subject_of(platform), "--reason", "theirs after all")
    assert lifted.status == 0, lifted.err
    assert (await forestay("abuse", "list")).out.strip() == "no standings"
    ended = await forestay("abuse", "list", "--ended", "--json")
    assert "theirs after all" in ended.out
    assert "lifted" in (await forestay("abuse", "show", standing_id)).out


async def test_a_caller_appeals_and_a_person_decides(
    platform: Platform, forestay: Forestay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller's own key makes the appeal; the analyst's answers it."""
    standing_id = await suspended(platform, forestay)
    await heard(platform)
    monkeypatch.setenv("FORESTAY_KEY", platform.api_key)
    made = await forestay("abuse", "appeal", "--words", "we moved", "--json")
    assert made.status == 0, made.err
    monkeypatch.setenv("FORESTAY_KEY", platform.admin_key)
    waiting = await forestay("abuse", "appeals")
    assert "we moved" in waiting.out
    appeal_id = str(made.json()["appeal_id"])
    denied = await forestay("abuse", "deny", appeal_id, "--reason", "it is in a public repository")
    assert denied.status == 0, denied.err
    again = await forestay("abuse", "deny", appeal_id, "--reason", "twice")
    assert again.status == 1
    assert "no open appeal" in again.err
    assert standing_id in (await forestay("abuse", "list")).out
    monkeypatch.setenv("FORESTAY_KEY", platform.api_key)
    assert (await forestay("abuse", "appeal", "--words", "please")).status == 0
    monkeypatch.setenv("FORESTAY_KEY", platform.admin_key)
    assert (await forestay("abuse", "lift", subject_of(platform), "--reason", "fine")).status == 0
    assert "granted" in (await forestay("abuse", "appeals", "--state", "granted")).out


async def test_who_made_an_appeal_does_not_decide_it(
    platform: Platform, forestay: Forestay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by granting nor by denying; a second person does."""
    standing_id = await suspended(platform, forestay)
    made = await forestay("abuse", "appeal", standing_id, "--words", "they called us", "--json")
    appeal_id = str(made.json()["appeal_id"])
    lifted = await forestay("abuse", "lift", subject_of(platform), "--reason", "mine")
    assert lifted.status == 1
    assert "another person" in lifted.err
    assert (await forestay("abuse", "deny", appeal_id, "--reason", "mine")).status == 1
    asked = KeyRequest(TenantId("acme"), "second", frozenset({Scope.ADMIN}))
    second = await platform.ports.key_store.create(asked, actor="system:test")
    assert second is not None
    monkeypatch.setenv("FORESTAY_KEY", second.credential)
    assert (await forestay("abuse", "lift", subject_of(platform), "--reason", "agreed")).status == 0


async def test_nobody_appeals_against_nothing(
    platform: Platform, forestay: Forestay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key without a standing is told so; so is an analyst with a wrong id."""
    assert (await forestay("abuse", "appeal", "st_0000000000000000", "--words", "x")).status == 1
    monkeypatch.setenv("FORESTAY_KEY", platform.api_key)
    ran = await forestay("abuse", "appeal", "--words", "x")
    assert ran.status == 1
    assert "no standing" in ran.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["set", "key:0000000000000000", "suspend", "--reason", "x"], "no key"),
        (["set", "tenant:nobody", "suspend", "--reason", "x"], "no tenant"),
        (["set", "nonsense", "suspend", "--reason", "x"], "is no subject"),
        (["set", "tenant:acme", "hang", "--reason", "x"], "use one of"),
        (["set", "tenant:acme", "suspend", "--reason", "x", "--for", "soon"], "is not a number"),
        (["set", "tenant:acme", "suspend", "--reason", "x", "--for", "900d"], "every standing ends"),
        (["set", "tenant:acme", "throttle", "--reason", "x", "--factor", "7"], "factor"),
        (["lift", "tenant:acme", "--reason", "x"], "has no standing"),
        (["show", "st_none"], "no standing"),
        (["deny", "ap_none", "--reason", "x"], "no open appeal"),
        (["appeals", "--state", "lost"], "use one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
async def test_what_cannot_be_is_told_with_its_mend(forestay: Forestay, words: list[str], told: str) -> None:
    """One line each, and nothing is changed."""
    ran = await forestay("abuse", *words)
    assert ran.status in {1, 2}
    assert told in ran.err
    assert (await forestay("abuse", "list", "--ended")).out.strip() == "no standings"


async def test_an_administrator_cannot_suspend_the_key_in_use(platform: Platform, forestay: Forestay) -> None:
    """A slip would lock the door from inside."""
    ran = await forestay("abuse", "set", f"key:{platform.admin_key.partition(':')[0]}", "suspend", "--reason", "slip")
    assert ran.status == 1
    assert "the key that you are using" in ran.err


async def test_a_network_may_be_doubted_by_hand(forestay: Forestay) -> None:
    """For addresses from which keys are guessed."""
    ran = await forestay("abuse", "set", "network:203.0.113.0/24", "throttle", "--reason", "guessing", "--for", "1h")
    assert ran.status == 0, ran.err
