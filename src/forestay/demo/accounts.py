"""The callers' own ledger of a run, held against the platform's error budgets and against what paged. Pure.

It decides whether they agree: the same number of answers, the same number of bad ones, the same share of the budget
left, and pages for whoever was to be told and for nobody else. Called by `sights`, which gathers both sides.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from forestay.demo.receiver import Delivery

Values = Mapping[str, object]
_ROUNDING = 1e-9
_OPENED, _FIRING, _PAGE = "opened", "firing", "page"  # words of notifications


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """What callers were answered by one model: caller's own errors, refusals and cancels are in neither number."""

    model: str
    good: int
    bad: int

    @property
    def total(self) -> int:
        """Return how many count."""
        return self.good + self.bad


@dataclasses.dataclass(frozen=True, slots=True)
class News:
    """One transition of an alert, as its receiver heard it."""

    alert_id: str
    at: float  # unix seconds
    name: str
    subject: str
    severity: str
    status: str  # firing | resolved
    transition: str
    summary: str


def left_of(account: Account, objective: float) -> float:
    """Return the share of the budget that is left: 1 - bad / ((1 - objective) x total), the workbook's definition.

    Source: "The Site Reliability Workbook", chapter 2, error budgets of a request-based SLO.
    """
    return 1.0 - account.bad / ((1.0 - objective) * account.total) if account.total else 1.0


def differences(accounts: Iterable[Account], objectives: Mapping[str, float], rows: Sequence[Values]) -> list[str]:
    """Return what the platform's standings say otherwise than the ledger; empty where they agree."""
    found: list[str] = []
    known = {str(row["subject"]): row for row in rows if row["measure"] == "availability"}
    for account in accounts:
        row = known.get(f"model:{account.model}")
        if row is None:
            found.append(f"{account.model} has no SLO")
            continue
        said = (row["events"], row["bad"])
        left, ours = cast("float | None", row["left_ratio"]), left_of(account, objectives[account.model])
        if said != (account.total, account.bad):
            found.append(
                f"{account.model}: {said[1]:g} bad of {said[0]:g} by the platform, "
                f"{account.bad} of {account.total} by the ledger"
            )
        elif left is None or abs(left - ours) > _ROUNDING:
            found.append(f"{account.model}: {left} of the budget left by the platform, {ours} by the ledger")
    return found


def told_of(account: Account, objective: float) -> str:
    """Return an account in words."""
    left = left_of(account, objective)
    budget = f"{left:.0%} left" if left > 0 else "spent"
    return f"{account.model} {account.bad} bad of {account.total}, budget of {objective:.0%}: {budget}"


def news_of(deliveries: Iterable[Delivery]) -> list[News]:
    """Return every transition that was delivered, in order."""
    return [
        News(
            str(item["alert_id"]),
            one.arrived_at,
            str(item["name"]),
            str(item["subject"]),
            str(item["severity"]),
            str(item["status"]),
            str(item["transition"]),
            str(item["summary"]),
        )
        for one in deliveries
        for item in cast("list[Values]", one.payload()["items"])
    ]


def told_twice(news: Iterable[News]) -> list[str]:
    """Return the alerts whose beginning was told more than once."""
    counts = Counter(item.alert_id for item in news if item.transition == _OPENED)
    return sorted(alert for alert, count in counts.items() if count > 1)


def pages(news: Iterable[News]) -> Sequence[News]:
    """Return what woke somebody, each alert once: it was a page from its beginning, or became one."""
    first: dict[str, News] = {}
    for item in news:
        if item.severity == _PAGE and item.status == _FIRING:
            first.setdefault(item.alert_id, item)
    return list(first.values())


def tickets(news: Iterable[News]) -> Sequence[News]:
    """Return what waits for working hours, each alert once: what never became a page."""
    heard = list(news)
    woke = {item.alert_id for item in pages(heard)}
    first: dict[str, News] = {}
    for item in heard:
        if item.status == _FIRING and item.alert_id not in woke:
            first.setdefault(item.alert_id, item)
    return list(first.values())
