"""The world of `notify_faults`: truth that comes and goes, two controllers, a network that loses, and receivers.

Everything is drawn from one seed and runs on a clock of its own. The decision is `decide_alerts`, what follows from a
try is `decide_delivery`; stores and outbox are whatever adapters are given. What fails: a controller dies before or
after its commit, or stalls and commits on stale ground; a message is lost, its answer is lost, it arrives late, it is
taken and answered 500; a sender dies before or after its message was taken, or settles too late; a receiver is away.
"""

import collections
import dataclasses
import datetime as dt
import random
from collections.abc import Mapping, Sequence

from forestay.alerts.actions import Action
from forestay.alerts.body import read_body
from forestay.alerts.decide import decide_alerts
from forestay.alerts.loop import messages_of
from forestay.alerts.model import Condition, Observed, Severity
from forestay.alerts.rules import Route, Rules, Step
from forestay.alerts.store import AlertStore, ClaimLimits, Due, Held, Message, Outbox
from forestay.delivery.decide import Broken, Outcome, Policy, Responded, decide_delivery

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LIMITS = ClaimLimits(count=32, per_receiver=4, lease_seconds=15.0)
POLICY = Policy(max_tries=1_000, base_seconds=1.0, cap_seconds=20.0)  # giving up is told elsewhere, as a dead letter
ROUTE = Route(
    "default", ("chat", "phone"), group_by=("owner",), group_wait_seconds=5.0, group_interval_seconds=30.0,
    page_interval_seconds=10.0, repeat_seconds=120.0, escalate=(Step(60.0, ("boss",)),),
)  # fmt: skip
RULES = Rules(routes=(ROUTE,), resolve_after_seconds=20.0, flap_window_seconds=120.0, flap_cap_seconds=60.0)
FAULTY_SECONDS = 240.0
CALM_STEPS = 40
_SUBJECTS = ("model:acme/cat", "model:acme/dog", "worker:w1")
_SEVERITIES = (Severity.TICKET, Severity.PAGE)
_FAULTS = ("lost", "answer lost", "late", "taken and 500", "died before", "died after", "settled late")


@dataclasses.dataclass
class Tally:
    """What a schedule came to."""

    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    effects: int = 0
    deliveries: int = 0  # arrivals at receivers, ids aside
    naive_doubles: int = 0  # what receivers that honour no id would have seen twice
    naive_lost: int = 0  # what a sender that tries once would have lost
    faults: int = 0
    unsettled: int = 0  # schedules that did not come to rest

    def add(self, other: "Tally") -> None:
        """Add another schedule's."""
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


class Receiver:
    """Honours the id: what it has heard has no second effect."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ids: set[str] = set()
        self.effects: list[tuple[str, str, str]] = []  # alert, fingerprint's subject, transition
        self.arrivals = 0

    def take(self, message: Message) -> None:
        """A message arrives."""
        self.arrivals += 1
        if message.notification_id in self.ids:
            return
        self.ids.add(message.notification_id)
        self.effects += [(item.alert_id, item.subject, item.transition) for item in read_body(message.body).items]


@dataclasses.dataclass
class _Stalled:
    """A decision that its controller has made and not written."""

    held: Held
    actions: Sequence[Action]
    messages: Sequence[Message]
    seen: frozenset[str]
    until: float


class Schedule:
    """One run of the world."""

    def __init__(self, seed: int, store: AlertStore, outbox: Outbox) -> None:
        self.chance = random.Random(seed)
        self.store = store
        self.outbox = outbox
        self.seconds = 0.0
        self.receivers = {name: Receiver(name) for name in ("boss", "chat", "phone")}
        self.away = {name: self._spans(1) for name in self.receivers}
        self.truth = [(subject, severity, self._spans(2)) for subject, severity in self._things()]
        self.stalled: list[_Stalled] = []
        self.late: list[tuple[float, Message]] = []  # on the network
        self.unsettled: list[tuple[float, Due, Outcome]] = []  # tries whose sender writes late
        self.committed: dict[str, Message] = {}
        self.looks: list[frozenset[str]] = []  # what committed decisions saw
        self.first_fault: set[str] = set()
        self.tally = Tally()

    def _things(self) -> list[tuple[str, Severity]]:
        return [(subject, self.chance.choice(_SEVERITIES)) for subject in _SUBJECTS[: self.chance.randint(1, 3)]]

    def _spans(self, most: int) -> list[tuple[float, float]]:
        count = self.chance.randint(1, most) if most > 1 else self.chance.randint(0, 1)
        starts = sorted(self.chance.uniform(0, FAULTY_SECONDS * 0.8) for _ in range(count))
        return [(start, start + self.chance.uniform(5, 90)) for start in starts]

    @property
    def now(self) -> dt.datetime:
        """The world's time."""
        return START + dt.timedelta(seconds=self.seconds)

    async def run(self) -> Tally:
        """Live through the faults, then calmly until nothing moves, and count."""
        while self.seconds < FAULTY_SECONDS:
            self.seconds += self.chance.uniform(4, 16)
            await self._step(faulty=True)
        for _ in range(CALM_STEPS):
            self.seconds += 31.0
            if not await self._step(faulty=False) and self.seconds > FAULTY_SECONDS + 400:
                break
        else:
            self.tally.unsettled += 1
        self._count()
        return self.tally

    async def _step(self, *, faulty: bool) -> int:
        """Let both controllers act, in an order that nobody controls; returns how much happened."""
        await self._arrive(faulty=faulty)
        did = 0
        for _ in range(self.chance.randint(0, 2) if faulty else 1):
            did += await self._decide(faulty=faulty)
        for _ in range(self.chance.randint(0, 2) if faulty else 1):
            did += await self._send(faulty=faulty)
        return did

    async def _arrive(self, *, faulty: bool) -> None:
        """What was under way arrives: stale decisions, late messages, late settlements."""
        everything = not faulty
        for stalled in [item for item in self.stalled if everything or item.until <= self.seconds]:
            self.stalled.remove(stalled)
            await self._commit(stalled.held, stalled.actions, stalled.messages, stalled.seen)
        for item in [item for item in self.late if everything or item[0] <= self.seconds]:
            self.late.remove(item)
            self._take(item[1])
        for late in [item for item in self.unsettled if everything or item[0] <= self.seconds]:
            self.unsettled.remove(late)
            await self._settle(late[1], late[2])

    # Deciding --------------------------------------------------------------------------------------------------------

    def _seen(self) -> tuple[Condition, ...]:
        return tuple(
            Condition("platform", subject, "queue_age", severity, START, f"{subject} waits", owner="media")
            for subject, severity, spans in self.truth
            if any(start <= self.seconds < end for start, end in spans)
        )

    async def _decide(self, *, faulty: bool) -> int:
        held = await self.store.load(self.now)
        seen = self._seen()
        actions = decide_alerts(held.state, Observed(seen), held.silences, RULES, self.now)
        messages, subjects = messages_of(actions, ""), frozenset(item.subject for item in seen)
        fault = self.chance.random() if faulty else 1.0
        if fault < 0.1:  # dies before its commit: what it decided is gone
            self.tally.faults += 1
            return 0
        if fault < 0.25:  # stalls: another decides meanwhile, and this one is then on stale ground
            self.tally.faults += 1
            until = self.seconds + self.chance.uniform(1, 40)
            self.stalled.append(_Stalled(held, actions, messages, subjects, until))
            return 0
        await self._commit(held, actions, messages, subjects)
        return len(actions)

    async def _commit(
        self, held: Held, actions: Sequence[Action], messages: Sequence[Message], seen: frozenset[str]
    ) -> None:
        if await self.store.commit(held, actions, messages, self.now):
            self.committed.update({message.notification_id: message for message in messages})
            self.looks.append(seen)

    # Sending ---------------------------------------------------------------------------------------------------------

    async def _send(self, *, faulty: bool) -> int:
        claimed = await self.outbox.claim(LIMITS, [], self.now)
        for due in claimed:
            fault = self.chance.choice(_FAULTS) if faulty and self.chance.random() < 0.5 else ""
            name = due.message.receiver
            if faulty and any(start <= self.seconds < end for start, end in self.away[name]):
                fault = "lost"
            self.tally.faults += bool(fault)
            if due.tries == 1 and fault in {"lost", "died before"}:
                self.first_fault.add(due.message.notification_id)
            await self._try(due, fault)
        return len(claimed)

    async def _try(self, due: Due, fault: str) -> None:
        soon = self.seconds + self.chance.uniform(1, 60)
        match fault:
            case "lost":
                await self._settle(due, Broken("no answer"))
            case "late":  # the sender gives up waiting; the message arrives all the same
                self.late.append((soon, due.message))
                await self._settle(due, Broken("no answer"))
            case "died before":
                return
            case "answer lost":
                self._take(due.message)
                await self._settle(due, Broken("no answer"))
            case "taken and 500":
                self._take(due.message)
                await self._settle(due, Responded(500))
            case "died after":
                self._take(due.message)
            case "settled late":
                self._take(due.message)
                self.unsettled.append((soon, due, Responded(200)))
            case _:
                self._take(due.message)
                await self._settle(due, Responded(200))

    def _take(self, message: Message) -> None:
        self.receivers[message.receiver].take(message)

    async def _settle(self, due: Due, outcome: Outcome) -> None:
        decision = decide_delivery(due.tries, outcome, POLICY, self.now, self.chance.random())
        await self.outbox.settle(due, decision, self.now)

    # Counting --------------------------------------------------------------------------------------------------------

    def _count(self) -> None:
        tally = self.tally
        tally.lost += sum(
            message.notification_id not in self.receivers[message.receiver].ids for message in self.committed.values()
        )
        tally.naive_lost += len(self.first_fault)
        for receiver in self.receivers.values():
            tally.deliveries += receiver.arrivals
            tally.naive_doubles += receiver.arrivals - len(receiver.ids)
            tally.effects += len(receiver.effects)
            counts = collections.Counter((alert, word) for alert, _, word in receiver.effects)
            tally.doubled += sum(count - 1 for count in counts.values())
            tally.disordered += _disordered(receiver)
        phone = self.receivers["phone"]
        for subject, episodes in self._episodes().items():
            began = sum(word == "opened" for _, about, word in phone.effects if about == subject)
            heard = {alert for alert, about, _ in phone.effects if about == subject}
            tally.lost += not heard  # seen by a decision that was written, and nobody ever heard of it
            tally.doubled += max(0, began - episodes)  # told more often than it ever began

    def _episodes(self) -> Mapping[str, int]:
        """Count, for what written decisions saw, how often it began."""
        found: collections.Counter[str] = collections.Counter()
        before: frozenset[str] = frozenset()
        for seen in self.looks:
            found.update(seen - before)
            before = seen
        return found


def _disordered(receiver: Receiver) -> int:
    """Count alerts whose end is not the last that was heard of them, or that end twice, or never."""
    words: dict[str, list[str]] = {}
    for alert, _, word in receiver.effects:
        words.setdefault(alert, []).append(word)
    return sum(heard[-1] != "resolved" for heard in words.values())
