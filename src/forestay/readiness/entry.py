"""What readiness keeps from traffic: a model that nobody has let in, and a revision whose card says no. Pure.

Readiness is advice unless the platform (`FORESTAY_REQUIRE_READINESS`) or the model's spec (`admission: required`) makes
it a condition. Then a new model is in review, open to administrators of its own tenant alone, until it is admitted; and
a revision of an admitted one gets no traffic while an item fails that can be known before traffic. What only traffic
can show (errors, outputs, times) the rollout's own evidence judges. Readiness that rots later closes nothing: a model
that serves goes on, and the next revision meets the gate. Called by the admin API and the rollouts' loop.
"""

import dataclasses
import enum

from forestay.fleet.model import ModelEntry
from forestay.fleet.spec import ModelSpec
from forestay.readiness.model import Card, Row

IN_REVIEW = "review"
"""Visibility of a model that is not let in yet: its tenant's administrators alone may call it."""
AFTER_TRAFFIC = frozenset({"start", "objectives", "errors", "broken outputs", "cost", "time"})
"""Items that other gates answer, or that nobody can know of a revision before it has served."""


class Admission(enum.StrEnum):
    """What readiness is to traffic."""

    ADVISED = "advised"
    REQUIRED = "required"


class Entry(enum.StrEnum):
    """What readiness says of a revision that wants traffic."""

    OPEN = "open"
    ADVISED = "advised"  # something is missing; it is told, and goes on
    CLOSED = "closed"


@dataclasses.dataclass(frozen=True, slots=True)
class Decided:
    """Whether a revision may have traffic, and why."""

    entry: Entry
    reason: str


def admission_of(spec: ModelSpec, *, required: bool) -> Admission:
    """Return the stricter of what the platform and the spec ask."""
    return Admission.REQUIRED if required or spec.admission == Admission.REQUIRED else Admission.ADVISED


def decide_visibility(spec: ModelSpec, entry: ModelEntry | None, admission: Admission, *, admitted: bool) -> str:
    """Return who may call a model that is deployed: a new one is in review where readiness is required.

    A model that was serving before readiness was required goes on serving; the gate meets its next revision.
    """
    is_new = entry is None or entry.visibility == IN_REVIEW
    if admission is Admission.REQUIRED and is_new and not admitted:
        return IN_REVIEW
    return spec.visibility


def decide_entry(card: Card, admission: Admission, *, admitted: bool) -> Decided:
    """Return whether a further revision of a model may have traffic."""
    missing = [line for row, line in _lines(card) if row not in AFTER_TRAFFIC]
    if not admitted:
        missing.insert(0, f"nobody has let {card.model_id} in; `forestay model admit {card.model_id}`")
    if not missing:
        return Decided(Entry.OPEN, "admitted, and nothing is missing that can be known before traffic")
    told = " | ".join(missing)
    if admission is Admission.REQUIRED:
        return Decided(Entry.CLOSED, f"readiness is required: {told}")
    return Decided(Entry.ADVISED, f"advised only: {told}")


def _lines(card: Card) -> list[tuple[str, str]]:
    return [(row.finding.item, line) for row, line in zip(_held(card), card.missing, strict=True)]


def _held(card: Card) -> list[Row]:
    return [row for row in card.rows if row.holds_up]
