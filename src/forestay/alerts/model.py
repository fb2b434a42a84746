"""The words of alerting: conditions that sources see, alerts that are kept, what was told to whom. Pure values.

A condition is what a source sees at one moment; an alert is the memory of it, from its opening until its end was told.
Identity (source, name, subject, part) is apart from correlation (labels, groups). It decides nothing; `decide` does.
"""

import dataclasses
import datetime as dt
import enum
import functools
import hashlib
from collections.abc import Mapping

MAX_LABELS = 8
MAX_FACTS = 16
MAX_WORD = 200
MAX_SUMMARY = 500
VARYING = frozenset({"hurting"})  # labels that may become others while an alert is open, for inhibitions alone


class Severity(enum.StrEnum):
    """What it asks of people: to know, to act in working hours, to act now."""

    INFO = "info"
    TICKET = "ticket"
    PAGE = "page"


RANK: Mapping[Severity, int] = {Severity.INFO: 0, Severity.TICKET: 1, Severity.PAGE: 2}


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """What a source sees now. `subject` is a kind and a name (`model:acme/cat`), or `platform`."""

    source: str  # slo | safety | platform | ...
    subject: str
    name: str  # snake case, declared in `catalogue`
    severity: Severity
    since: dt.datetime
    summary: str  # in a user's words: who is hurt, how much, how long it can go on
    owner: str = ""  # the team whose it is; empty: the platform's own
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])  # few and bounded; never content
    facts: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])  # the numbers behind it
    magnitude: float = 0.0  # how bad, in the source's own unit: doubling counts as worsening; 0: not compared
    runbook: str = ""  # path in the docs; empty: docs/runbooks/<name>.md
    part: str = ""  # tells it from others of its name and subject, such as an SLO's id; belongs to its identity

    @property
    def fingerprint(self) -> str:
        """Return what makes it the same condition as before, whatever its severity, labels and numbers: 16 hex."""
        return _fingerprint(self.source, self.name, self.subject, self.part)

    @property
    def runbook_path(self) -> str:
        """Return where its runbook lies."""
        return self.runbook or f"docs/runbooks/{self.name}.md"

    def field(self, name: str) -> str:
        """Return the value of a field or label by the name that matchers use; empty where there is none."""
        match name:
            case "name" | "source" | "subject" | "owner":
                return str(getattr(self, name))
            case "severity":
                return self.severity.value
            case _:
                return self.labels.get(name, "")


@dataclasses.dataclass(frozen=True, slots=True)
class Observed:
    """One look at every source; what a silent source would say is unknown, so none of its alerts ends."""

    conditions: tuple[Condition, ...] = ()
    silent: frozenset[str] = frozenset()


class AlertState(enum.StrEnum):
    """An alert's life; there is no way back from `resolved` once its end was told."""

    FIRING = "firing"
    RESOLVED = "resolved"


@dataclasses.dataclass(frozen=True, slots=True)
class Ack:
    """Somebody has it in hand: no repeats and no escalation until it worsens or ends."""

    by: str
    why: str
    at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """What receivers know of an alert."""

    first_at: dt.datetime
    last_at: dt.datetime
    severity: Severity  # the worst that was told
    magnitude: float  # the largest that was told
    count: int
    to: tuple[str, ...]  # receivers, in order of name: whoever heard of it hears of its end
    paged_at: dt.datetime | None = None  # when it was first told as a page: escalation counts from here


@dataclasses.dataclass(frozen=True, slots=True)
class Alert:
    """One episode of a condition."""

    alert_id: str
    condition: Condition  # as last noted: at a change at once, numbers and words once a minute
    opened_at: dt.datetime
    noted_at: dt.datetime  # when `condition` was last noted
    changed_at: dt.datetime  # since when what is to be told waits
    route: str
    group: str
    state: AlertState = AlertState.FIRING
    resolved_at: dt.datetime | None = None
    missing_since: dt.datetime | None = None  # not seen since; it ends when this lasts
    flaps: int = 0  # earlier episodes within the flap window: each doubles the wait for its end
    told: Told | None = None
    escalated: int = 0  # steps taken
    worsened_at: dt.datetime | None = None  # an acknowledgement from before is spent
    held_back: str = ""  # why nobody is told: silence, inhibition, no route; empty: nothing stands against it
    closed: bool = False  # over, and nothing is left to tell
    ack: Ack | None = None

    @property
    def fingerprint(self) -> str:
        """Return its condition's."""
        return self.condition.fingerprint

    @property
    def acknowledged(self) -> bool:
        """Tell whether somebody has it in hand as bad as it is now."""
        return self.ack is not None and (self.worsened_at is None or self.ack.at >= self.worsened_at)


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """Alerts that are told together, and when something of it was last told."""

    key: str
    notified_at: dt.datetime


@dataclasses.dataclass(frozen=True, slots=True)
class State:
    """Everything that deciding needs to remember."""

    alerts: Mapping[str, Alert] = dataclasses.field(default_factory=dict[str, Alert])  # by alert id
    groups: Mapping[str, Group] = dataclasses.field(default_factory=dict[str, Group])  # by key


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One transition of one alert inside a notification."""

    alert: Alert  # as it is told
    transition: str  # opened | worsened-2 | repeated-3 | escalated-1 | resolved
    reason: str

    @property
    def item_id(self) -> str:
        """Return the id that this transition of this alert has for ever."""
        return f"{self.alert.alert_id}:{self.transition}"


@dataclasses.dataclass(frozen=True, slots=True)
class Notification:
    """What one receiver is told at once. Its id follows from what it says: said again it has the same id."""

    receiver: str
    group: str
    items: tuple[Item, ...]
    created_at: dt.datetime

    @property
    def notification_id(self) -> str:
        """Return the id by which a receiver knows that it has heard this already."""
        return "nt_" + _digest("\n".join((self.receiver, *sorted(item.item_id for item in self.items))), 32)


def alert_id_of(condition: Condition, opened_at: dt.datetime) -> str:
    """Return the id of the episode that begins at `opened_at`."""
    return "al_" + _digest(f"{condition.fingerprint}\n{opened_at.astimezone(dt.UTC).isoformat()}", 16)


def bounded(condition: Condition) -> Condition:
    """Return it within the limits of what is kept and sent, cut where it is longer."""
    summary = " ".join(condition.summary.split())[:MAX_SUMMARY]
    words = (condition.subject, condition.owner, *condition.labels, *condition.labels.values())
    few = len(condition.labels) <= MAX_LABELS and len(condition.facts) <= MAX_FACTS
    if few and summary == condition.summary and all(len(word) <= MAX_WORD for word in words):
        return condition
    labels = dict(sorted(condition.labels.items())[:MAX_LABELS])
    return dataclasses.replace(
        condition,
        subject=condition.subject[:MAX_WORD],
        summary=summary,
        owner=condition.owner[:MAX_WORD],
        labels={key[:MAX_WORD]: value[:MAX_WORD] for key, value in labels.items()},
        facts=dict(sorted(condition.facts.items())[:MAX_FACTS]),
    )


@functools.lru_cache(maxsize=16_384)
def _fingerprint(source: str, name: str, subject: str, part: str) -> str:
    return _digest(f"{source}\n{name}\n{subject}" + (f"\n{part}" if part else ""), 16)


def _digest(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
