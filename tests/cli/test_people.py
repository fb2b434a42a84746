"""`forestay person`, `login`, `logout` and `whoami`: from an address to acts under one's own name."""

import io
import json
import pathlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from tests.cli.conftest import Platform, Ran
from tests.gateway.oidc_provider import CLIENT, SECRET, Provider, a_provider

from forestay.clock import SystemClock
from forestay.gateway.oidc_provider import OidcProvider
from forestay.settings import Identity

Forestay = Callable[..., Awaitable[Ran]]
OWN = "a password of my own"


@pytest.fixture
def typing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Type lines into the next command, as a pipe does."""

    def typed(*lines: str) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))

    return typed


@pytest.fixture
def profile(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Where the profile is kept."""
    monkeypatch.setenv("FORESTAY_PROFILE", str(tmp_path / "profile.json"))
    return tmp_path / "profile.json"


def session_in(profile: pathlib.Path) -> str:
    """Return the session in a profile that only its owner may read, empty without one."""
    if not profile.exists():
        return ""
    assert profile.stat().st_mode & 0o077 == 0
    return str(json.loads(profile.read_text())["session"])


async def test_a_person_is_added_signs_in_and_acts_under_their_own_name(
    forestay: Forestay, platform: Platform, typing: Callable[..., None], profile: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The handed-out password must be replaced at the first sign-in; the audit log names the person."""
    added = await forestay("person", "add", "Olga@Example.com", "--role", "operator")
    assert added.status == 0, added.err
    handed_out = added.out.strip()
    monkeypatch.delenv("FORESTAY_KEY")
    typing("olga@example.com", handed_out, OWN, OWN)
    ran = await forestay("login", "--url", platform.url)
    assert ran.status == 0, ran.err
    assert "signed in as olga@example.com (operator)" in ran.out
    session = session_in(profile)
    assert session.startswith("fs_")
    assert session not in ran.out
    who = (await forestay("whoami", "--json")).json()
    assert (who["email"], who["role"]) == ("olga@example.com", "operator")
    assert (await forestay("fleet", "freeze", "a drill")).status == 0
    rows = await platform.ports.fleet.audit_rows(subject=None, before=None, limit=1)
    assert rows[0].entry.actor == f"human:{who['person_id']}"
    refused = await forestay("key", "create")
    assert refused.status == 1
    assert "The role operator lacks the permission administer" in refused.err
    assert (await forestay("logout")).status == 0
    ended = await forestay("whoami")
    assert ended.status == 2
    assert "forestay login" in ended.err


async def test_a_wrong_password_is_told_and_nothing_is_saved(
    forestay: Forestay, typing: Callable[..., None], profile: pathlib.Path
) -> None:
    """Nor is a session without one."""
    typing("nobody@example.com", "x" * 12)
    ran = await forestay("login")
    assert ran.status == 1
    assert "Wrong e-mail address or password" in ran.err
    assert not session_in(profile)
    assert (await forestay("logout")).status == 2
    typing("nobody@example.com")
    assert "missing on standard input" in (await forestay("login")).err


async def test_two_passwords_that_differ_choose_none(
    forestay: Forestay, typing: Callable[..., None], profile: pathlib.Path
) -> None:
    """The handed-out one stays good."""
    handed_out = (await forestay("person", "add", "o@example.com")).out.strip()
    typing(handed_out, OWN, OWN + "x")
    ran = await forestay("login", "--email", "o@example.com")
    assert "the two differ" in ran.err
    typing(handed_out, OWN, OWN)
    assert (await forestay("login", "--email", "o@example.com")).status == 0
    assert session_in(profile)


async def test_people_are_listed_changed_and_kept_out(
    forestay: Forestay, typing: Callable[..., None], profile: pathlib.Path
) -> None:
    """By address or id; a disabled person cannot sign in, an enabled one can."""
    typing(OWN)
    added = await forestay("person", "add", "o@example.com", "--password-stdin", "--json")
    person_id = str(added.json()["person_id"])
    assert added.json()["one_time_password"] is None
    assert (await forestay("person", "role", "o@example.com", "analyst")).out.strip() == (
        f"o@example.com ({person_id}): analyst, enabled"
    )
    assert "analyst" in (await forestay("person", "list")).out
    assert "disabled" in (await forestay("person", "disable", person_id, "--reason", "left")).out
    typing(OWN)
    assert (await forestay("login", "--email", "o@example.com")).status == 1
    assert (await forestay("person", "enable", "o@example.com")).status == 0
    typing(OWN)
    assert (await forestay("login", "--email", "o@example.com")).status == 0
    assert session_in(profile)
    assert len((await forestay("person", "reset", person_id)).out.strip()) == 23
    assert "no person" in (await forestay("person", "role", "x@example.com", "viewer")).err
    assert "role" in (await forestay("person", "role", person_id, "king")).err


async def test_a_key_in_the_environment_goes_before_a_saved_session(
    forestay: Forestay, platform: Platform, typing: Callable[..., None], profile: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What is set on purpose wins; without it the session does."""
    typing(OWN)
    await forestay("person", "add", "o@example.com", "--role", "admin", "--password-stdin")
    typing(OWN)
    await forestay("login", "--email", "o@example.com")
    assert session_in(profile)
    assert f"key {platform.admin_key[:16]}" in (await forestay("whoami")).out
    monkeypatch.delenv("FORESTAY_KEY")
    assert "o@example.com" in (await forestay("whoami")).out
    assert "session" in (await forestay("profile", "show")).out


@pytest.fixture
async def provider(platform: Platform) -> AsyncIterator[Provider]:
    """An OpenID provider that the platform believes."""
    async with a_provider() as one:
        identity = Identity(
            oidc_issuer=one.url, oidc_client_id=CLIENT, oidc_client_secret=SECRET, oidc_role_map="sre=operator"
        )
        object.__setattr__(platform.ports, "oidc", OidcProvider(identity, SystemClock()))
        object.__setattr__(platform.ports.settings.secrets, "token_key", "a token key")
        yield one


async def test_a_person_signs_in_at_the_openid_provider_from_anywhere(
    forestay: Forestay, provider: Provider, profile: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command shows where to go, waits, and acts as the person afterwards."""
    assert provider.approved
    ran = await forestay("login", "--oidc")
    assert ran.status == 0, ran.err
    assert "enter the code ABCD" in ran.err
    assert "signed in as olga@example.com (operator)" in ran.out
    assert session_in(profile)
    monkeypatch.delenv("FORESTAY_KEY")
    assert "olga@example.com" in (await forestay("whoami")).out


async def test_a_program_signs_in_with_its_id_token(
    forestay: Forestay, provider: Provider, typing: Callable[..., None], profile: pathlib.Path
) -> None:
    """Once; a forged one is refused, and nothing is saved."""
    typing(provider.sign(provider.other_key))
    assert (await forestay("login", "--id-token-stdin")).status == 1
    assert not session_in(profile)
    typing(provider.sign())
    assert (await forestay("login", "--id-token-stdin")).status == 0
    assert session_in(profile)


async def test_without_a_provider_the_command_says_what_to_set(forestay: Forestay) -> None:
    """The platform's own words."""
    ran = await forestay("login", "--oidc")
    assert ran.status == 1
    assert "FORESTAY_OIDC_ISSUER" in ran.err
