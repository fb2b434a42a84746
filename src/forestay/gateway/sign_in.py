"""Signing in by password: brakes first, then one scrypt whoever is named, then a session.

An unknown address, a disabled person and a wrong password take the same steps and get the same answer. Who may try
again when, `fleet/sign_in` decides; hashing is `password_desk`'s. Called by `admin_sign_in`.
"""

import dataclasses

from forestay.errors import UsageError
from forestay.fleet.networks import Address
from forestay.fleet.people import OpenedSession, Person, StoredPerson, Way, clean_email
from forestay.fleet.sign_in import subjects_of
from forestay.gateway.ports import GatewayPorts
from forestay.telemetry.logs import logger
from forestay.telemetry.metrics import SIGN_INS

_LOG = logger("gateway")


@dataclasses.dataclass(frozen=True, slots=True)
class SignedIn:
    """A person with a new session."""

    person: Person
    opened: OpenedSession


@dataclasses.dataclass(frozen=True, slots=True)
class Wait:
    """Too many failures: the next try is heard after this."""

    seconds: float


async def sign_in(ports: GatewayPorts, email: str, password: str, address: Address | None) -> SignedIn | Wait | None:
    """Sign a local person in; None for whoever is wrong, unknown or kept out: the three look alike."""
    subjects = subjects_of(email.strip().lower(), address)
    wait = await ports.sign_ins.begin(subjects)
    if wait > 0:
        ports.metrics.add(SIGN_INS, Way.PASSWORD, "wait")
        return Wait(wait)
    stored = await _local(ports, email)
    proven = await ports.desk.proves(password, _usable(stored, ports))
    if stored is None or not proven:
        ports.metrics.add(SIGN_INS, Way.PASSWORD, "refused")
        _LOG.warning("gateway.sign_in_refused", network=subjects[-1])
        return None
    await ports.sign_ins.succeeded(subjects)
    if stored.password is not None and ports.desk.is_outdated(stored.password):
        hashed = await ports.desk.hash(password)
        await ports.people.refresh_hash(stored.person.person_id, stored.password, hashed)
    return await open_session(ports, stored.person, Way.PASSWORD)


async def open_session(ports: GatewayPorts, person: Person, way: Way) -> SignedIn:
    """Give a proven person a session."""
    opened = await ports.people.open_session(person.person_id, way, ports.settings.identity.session_seconds)
    ports.metrics.add(SIGN_INS, way, "signed_in")
    return SignedIn(person, opened)


async def _local(ports: GatewayPorts, email: str) -> StoredPerson | None:
    try:
        return await ports.people.find_local(clean_email(email))
    except UsageError:
        return None


def _usable(stored: StoredPerson | None, ports: GatewayPorts) -> str | None:
    """Return the hash that counts: none of a disabled person, or of one whose one-time password has expired."""
    if stored is None or stored.person.disabled_at is not None:
        return None
    until = stored.person.one_time_until
    return None if until is not None and until <= ports.clock.now() else stored.password
