"""What the law asks for once a known picture has matched: block, preserve, report. Pure: a case is a state machine.

    matched -> blocked -> preserved -> reported | undelivered

No step is left out and none is done twice: a case that is not blocked is never preserved, and one that is not preserved
is never reported, since the receiver may ask for the preserved copy. Blocking and preserving are tried until they
succeed; reporting is tried so often, then a person must act. Proof of delivery is the receiver's status, the digest of
its headers and the time. Whether a case is reportable is for the bank to hint and the policy to decide. Called by
`report_loop`.
"""

import dataclasses
import datetime as dt
import enum
import hashlib
from collections.abc import Mapping
from typing import assert_never


class CaseState(enum.StrEnum):
    """How far a case has come."""

    MATCHED = "matched"
    BLOCKED = "blocked"
    PRESERVED = "preserved"
    REPORTED = "reported"  # the receiver has acknowledged it
    UNDELIVERED = "undelivered"  # nobody acknowledged: a person must act


TRANSITIONS: Mapping[CaseState, frozenset[CaseState]] = {
    CaseState.MATCHED: frozenset({CaseState.BLOCKED}),
    CaseState.BLOCKED: frozenset({CaseState.PRESERVED}),
    CaseState.PRESERVED: frozenset({CaseState.REPORTED, CaseState.UNDELIVERED}),
    CaseState.REPORTED: frozenset(),
    CaseState.UNDELIVERED: frozenset({CaseState.PRESERVED}),  # by a person's act
}


@dataclasses.dataclass(frozen=True, slots=True)
class NewCase:
    """A match that must be reported, as it is opened; ids and numbers only."""

    case_id: str
    entry_id: int
    bank_id: str
    category: str
    distance: int
    request_id: str
    tenant_id: str
    place: str  # the field of the input, or the place in the output
    matched_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A case as it stands; `tries` counts those of the present step, this one too."""

    opened: NewCase
    state: CaseState
    due_at: dt.datetime
    sealed_id: str = ""
    tries: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class ReportPolicy:
    """Who is told, how often it is tried, and whether the media goes along."""

    url: str = ""  # empty: cases wait, preserved
    max_tries: int = 20
    base_seconds: float = 5.0
    cap_seconds: float = 3_600.0
    attach_media: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """Make sure that the content is withheld."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Preserve:
    """Put a copy of the content under seal."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Deliver:
    """Tell the receiver."""

    reason: str
    with_media: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Hold:
    """Wait: nobody is named to be told."""

    reason: str


Action = Block | Preserve | Deliver | Hold


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """A step succeeded; `proof` is what shows it, `sealed_id` what the preserved copy is called."""

    sealed_id: str = ""
    proof: Mapping[str, object] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """A step did not succeed."""

    reason: str
    final: bool = False  # no further try can help


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """What a case becomes."""

    state: CaseState
    due_at: dt.datetime
    reason: str
    sealed_id: str = ""
    proof: Mapping[str, object] | None = None


def decide_report(case: Case, policy: ReportPolicy, now: dt.datetime) -> list[Action]:
    """Say what a case needs now; nothing when it is over or not yet due."""
    # What is over needs nothing; an undelivered case waits for a person.
    if not TRANSITIONS[case.state] or case.state is CaseState.UNDELIVERED:
        return []
    # A step that failed waits for its time.
    if now < case.due_at:
        return []
    where = f"{case.opened.place} of request {case.opened.request_id} is {case.opened.distance} bits from a known hash"
    if case.state is CaseState.MATCHED:
        return [Block(where)]
    if case.state is CaseState.BLOCKED:
        return [Preserve(f"{where} of bank {case.opened.bank_id}, and what is reported must be kept")]
    if not policy.url:
        return [Hold("no receiver of reports is set")]
    return [Deliver(f"case {case.opened.case_id} is preserved and not yet reported", policy.attach_media)]


def decide_step(
    case: Case, action: Action, outcome: Done | Failed, policy: ReportPolicy, now: dt.datetime, jitter: float
) -> Step:
    """Say what follows from an act; `jitter` is in [0, 1]."""
    if isinstance(outcome, Done):
        reached = _reached(action, case.state)
        sealed_id = outcome.sealed_id or case.sealed_id
        return Step(reached, now, action.reason, sealed_id, outcome.proof)
    # Only telling may be given up: what must be withheld and kept is tried for ever.
    if isinstance(action, Deliver) and (outcome.final or case.tries >= policy.max_tries):
        return Step(CaseState.UNDELIVERED, now, f"{outcome.reason}; {case.tries} tries", case.sealed_id)
    wait = min(policy.cap_seconds, policy.base_seconds * 2.0 ** min(case.tries, 30)) * (0.5 + 0.5 * jitter)
    return Step(case.state, now + dt.timedelta(seconds=wait), outcome.reason, case.sealed_id)


def _reached(action: Action, state: CaseState) -> CaseState:
    match action:
        case Block():
            return CaseState.BLOCKED
        case Preserve():
            return CaseState.PRESERVED
        case Deliver():
            return CaseState.REPORTED
        case Hold():
            return state
        case _:
            assert_never(action)


def body_of(case: Case) -> dict[str, object]:
    """Return what the receiver is told: ids, numbers and times, never content."""
    opened = case.opened
    return {
        "case_id": opened.case_id,
        "category": opened.category,
        "bank_id": opened.bank_id,
        "entry_id": opened.entry_id,
        "distance": opened.distance,
        "request_id": opened.request_id,
        "tenant_id": opened.tenant_id,
        "place": opened.place,
        "matched_at": opened.matched_at.isoformat(),
        "sealed_id": case.sealed_id,
    }


def proof_of(status: int, headers: Mapping[str, str], now: dt.datetime) -> Mapping[str, object]:
    """Return the proof of a delivery: the receiver's status, a digest of its headers, and the time."""
    said = "\n".join(sorted(f"{name.lower()}: {value}" for name, value in headers.items()))
    return {
        "status": status,
        "headers_sha256": hashlib.sha256(said.encode()).hexdigest(),
        "delivered_at": now.isoformat(),
    }


def case_id_of(request_id: str, place: str, entry_id: int) -> str:
    """Return the id of the case of one match: the same match has the same case."""
    return "case_" + hashlib.sha256(f"{request_id}\n{place}\n{entry_id}".encode()).hexdigest()[:24]
