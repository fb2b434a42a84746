"""People: passwords, roles, sessions' tokens and the growing wait after failures."""

import datetime as dt
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forestay.chance import SeededChance, SystemChance
from forestay.errors import UsageError
from forestay.fleet.passwords import Cost, check_new, hash_password, is_outdated, proves, unprovable
from forestay.fleet.people import clean_email, hash_token, new_password, new_session_token
from forestay.fleet.roles import PERMISSIONS, Permission, Role, allows
from forestay.fleet.sign_in import (
    ACCOUNT,
    FORGOTTEN_AFTER,
    NETWORK,
    Failures,
    counted,
    decide_wait,
    subjects_of,
)

QUICK = Cost(log2_n=4, r=1, p=1)
NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
_SUBJECTS = st.sampled_from(["account:a", "network:n"])


@given(st.text(max_size=60), st.text(max_size=60))
def test_only_the_password_that_was_hashed_is_proven(one: str, other: str) -> None:
    """Whatever characters it has; compared as NFKC, so that a keyboard's way of writing é does not matter."""
    stored = hash_password(one, SystemChance(), QUICK)
    assert proves(one, stored)
    if other != one:
        import unicodedata  # noqa: PLC0415

        same = unicodedata.normalize("NFKC", one) == unicodedata.normalize("NFKC", other)
        assert proves(other, stored) is same


def test_a_hash_tells_its_cost_and_has_a_salt_of_its_own() -> None:
    """Two hashes of one password differ; one of another cost is outdated, and still proves."""
    one, two = (hash_password("a password", SystemChance(), QUICK) for _ in range(2))
    assert one != two
    assert one.startswith("scrypt$4$1$1$")
    assert not is_outdated(one, QUICK)
    assert is_outdated(one, Cost(log2_n=5, r=1, p=1))
    assert "a password" not in one


@pytest.mark.parametrize(
    "stored",
    ["", "scrypt", "scrypt$4$1$1$x$y", "md5$4$1$1$AAAA$AAAA", "scrypt$40$1$1$AAAA$AAAA", "scrypt$4$99$1$AAAA$AAAA"],
)
def test_what_is_no_hash_proves_nothing(stored: str) -> None:
    """Nor does it cost more than it may."""
    assert not proves("a password", stored)
    assert is_outdated(stored, QUICK)


def test_where_there_is_nothing_to_check_something_is_checked() -> None:
    """It looks like a hash of the same cost, and no password proves it."""
    nobody = unprovable(SystemChance(), QUICK)
    assert not is_outdated(nobody, QUICK)
    assert not proves("", nobody)


@pytest.mark.parametrize("bad", ["short", "a" * 257, "aaaaaaaaaaaaaaaa", "somebody@example.com"])
def test_a_weak_password_is_refused(bad: str) -> None:
    """The field is named."""
    with pytest.raises(UsageError, match="password"):
        check_new(bad, "Somebody@example.com")


def test_handed_out_passwords_are_long_and_differ() -> None:
    """Each passes as a password, and none repeats."""
    chance = SeededChance(1)
    made = {new_password(chance) for _ in range(100)}
    assert len(made) == 100
    for password in made:
        check_new(password)


def test_a_sessions_token_has_a_form_of_its_own() -> None:
    """Neither a key nor a signed token is taken for one."""
    token = new_session_token(SystemChance())
    assert hash_token(token) is not None
    for other in ("", "fs_", "0" * 16 + ":" + "0" * 64, "eyJhbGciOiJIUzI1NiJ9.e30.x", f"{token} ", token.upper()):
        assert hash_token(other) is None


@pytest.mark.parametrize(
    ("text", "clean"),
    [(" Me@Example.com ", "me@example.com"), ("a@b", "a@b"), ("me", None), ("a b@c", None), ("@", None)],
)
def test_addresses_are_compared_without_case(text: str, clean: str | None) -> None:
    """One person, one address."""
    if clean is None:
        with pytest.raises(UsageError, match="email"):
            clean_email(text)
    else:
        assert clean_email(text) == clean


def test_an_admin_may_everything_and_every_role_may_see_to_itself() -> None:
    """And nobody but an admin administers."""
    assert PERMISSIONS[Role.ADMIN] == frozenset(Permission)
    for role in Role:
        assert allows(role, Permission.OWN)
        assert allows(role, Permission.READ)
        assert allows(role, Permission.ADMINISTER) is (role is Role.ADMIN)
    assert not allows(Role.ANALYST, Permission.OPERATE)
    assert not allows(Role.OPERATOR, Permission.SAFETY)
    assert not allows(Role.VIEWER, Permission.READ_CONTENT)


@given(_SUBJECTS, st.integers(1, 60), st.floats(0, 100_000))
def test_the_wait_grows_with_failures_up_to_a_limit(subject: str, count: int, passed: float) -> None:
    """More failures never wait shorter; nobody waits longer than the limit, nor after a day."""
    patience = ACCOUNT if subject.startswith("account") else NETWORK
    failures = Failures(count, NOW)
    now = NOW + dt.timedelta(seconds=passed)
    wait = decide_wait(subject, failures, now)
    assert 0 <= wait <= patience.longest_seconds
    assert decide_wait(subject, Failures(count + 1, NOW), now) >= wait
    assert decide_wait(subject, failures, NOW + FORGOTTEN_AFTER) == 0
    if count <= patience.free:
        assert wait == 0
    assert decide_wait(subject, failures, now + dt.timedelta(seconds=wait)) < 0.001


@pytest.mark.threat("API2:2023")
@given(_SUBJECTS)
def test_guessing_for_a_day_is_hopeless(subject: str) -> None:
    """Whoever tries as soon as they may gets a number of guesses that no decent password falls to."""
    failures, now, tries = None, NOW, 0
    while now < NOW + dt.timedelta(days=1):
        wait = decide_wait(subject, failures, now)
        if wait > 0:
            now += dt.timedelta(seconds=wait + 0.001)
            continue
        failures = counted(failures, now)
        tries += 1
    assert tries < 1500


def test_a_success_is_forgiven_after_a_day_of_quiet() -> None:
    """Old failures are not added to."""
    assert counted(Failures(30, NOW), NOW + FORGOTTEN_AFTER) == Failures(1, NOW + FORGOTTEN_AFTER)


def test_what_was_typed_as_an_account_is_not_kept() -> None:
    """People type passwords into the wrong field; networks are /64 where addresses are plenty."""
    account, network = subjects_of("my password", ipaddress.ip_address("2001:db8::1"))
    assert "password" not in account
    assert network == "network:2001:db8::/64"
    assert subjects_of("x", None)[1] == "network:unknown"
