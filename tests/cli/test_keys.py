"""`forestay key` and `forestay tenant`: what is asked for is what the key may do."""

from collections.abc import Awaitable, Callable

import pytest
from tests.cli.conftest import Platform, Ran
from tests.cli.test_commands import call

from forestay.fleet.grants import Grant, Privilege, Verb
from forestay.ids import KeyId

Forestay = Callable[..., Awaitable[Ran]]


async def test_a_narrow_key_is_created_and_shown(forestay: Forestay, platform: Platform) -> None:
    """Models, verbs, networks and privileges arrive, and every listing shows them."""
    words = ["--model", "acme/*", "--verb", "submit", "--verb", "read", "--network", "10.0.0.0/8"]
    made = await forestay("key", "create", *words, "--privilege", "disable_filter", "--expires-in", "30d")
    assert made.status == 0, made.err
    key_id = made.out[:16]
    stored = await platform.ports.key_store.find(KeyId(key_id))
    assert stored is not None
    assert stored.key.grants == (Grant(frozenset({"acme/*"}), frozenset({Verb.SUBMIT, Verb.READ})),)
    assert (stored.key.networks, stored.key.privileges) == (("10.0.0.0/8",), {Privilege.DISABLE_FILTER})
    assert stored.secret_form.startswith("hmac-sha256:")
    for shown in (await forestay("key", "list"), await forestay("key", "show", key_id)):
        for text in ("read submit on acme/*", "10.0.0.0/8", "disable_filter"):
            assert text in shown.out
        assert made.out.strip().partition(":")[2] not in shown.out
    assert (await forestay("key", "show", key_id, "--json")).json()["secret_form"] == stored.secret_form


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model", "acme"], "grants: 'acme' is none of owner/alias"),
        (["--verb", "write"], "verbs"),
        (["--network", "10.0.0.1/8"], "networks: '10.0.0.1/8' is no network"),
        (["--privilege", "root"], "privileges"),
        (["--expires-in", "soon"], "--expires-in"),
    ],
)
async def test_what_cannot_be_granted_is_named(forestay: Forestay, words: list[str], named: str) -> None:
    """Nothing is issued."""
    ran = await forestay("key", "create", *words)
    assert ran.status in {1, 2}
    assert named in ran.err
    assert (await forestay("key", "list")).out.count("\n") == 3


async def test_a_rotated_key_is_replaced_after_its_overlap(forestay: Forestay, platform: Platform) -> None:
    """The successor is printed once and works at once; the old one still does; a third is refused."""
    old = (await forestay("key", "create", "--name", "ci", "--scope", "ADMIN")).out.strip()
    ran = await forestay("key", "rotate", old, "--overlap", "24h", "--json")
    assert ran.status == 0, ran.err
    made = ran.json()
    assert (made["successor_of"], made["name"], made["scopes"]) == (old[:16], "ci", ["ADMIN"])
    for key in (old, str(made["key"])):
        assert (await call(platform, "GET", "/fleet", key=key))[0] == 200
    assert "until" in (await forestay("key", "show", old)).out
    again = await forestay("key", "rotate", old)
    assert again.status == 1
    assert "has a successor already" in again.err
    audit = (await forestay("audit", "list")).out
    assert "rotate_key" in audit
    assert f"replaced by {made['key_id']}" in audit


async def test_a_key_that_ended_or_never_was_is_not_rotated(forestay: Forestay) -> None:
    """Each is told apart."""
    key = (await forestay("key", "create")).out.strip()
    await forestay("key", "revoke", key)
    assert "create a new key" in (await forestay("key", "rotate", key)).err
    assert "no key" in (await forestay("key", "rotate", "0" * 16)).err
    assert "no key" in (await forestay("key", "show", "0" * 16)).err
    assert "--overlap" in (await forestay("key", "rotate", key, "--overlap", "x")).err
    assert "overlap_seconds" in (await forestay("key", "rotate", key, "--overlap", "9999d")).err


async def test_a_tenant_is_shown_with_its_keys(forestay: Forestay) -> None:
    """Its keys and models; none by another name."""
    shown = await forestay("tenant", "show", "acme")
    assert shown.status == 0, shown.err
    assert "acme (Acme)" in shown.out
    assert len((await forestay("tenant", "show", "acme", "--json")).json()["keys"]) == 2  # type: ignore[arg-type]
    assert "no tenant" in (await forestay("tenant", "show", "nobody")).err
