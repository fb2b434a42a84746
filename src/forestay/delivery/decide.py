"""What follows from one try at delivering a webhook. Pure: no clock, no chance, no network.

2xx is delivered. A redirect and a target that we may not call are final (fal's contract, section 2.6). Everything else
is tried again, later each time, until the tries are spent; then a person may look (`dead`). Called by `webhooks`.
"""

import dataclasses
import datetime as dt

JITTER_SHARE = 0.5  # a delay lies between half of its step and all of it, so that receivers are not hit in step


@dataclasses.dataclass(frozen=True, slots=True)
class Responded:
    """The receiver answered."""

    status_code: int
    retry_after_seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Broken:
    """No answer: time-out, refused connection, TLS, DNS."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Impossible:
    """No try can ever succeed: a target that may not be called, a result that is gone."""

    reason: str


Outcome = Responded | Broken | Impossible


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """How often and how patiently."""

    max_tries: int = 31
    base_seconds: float = 1.0
    cap_seconds: float = 300.0


@dataclasses.dataclass(frozen=True, slots=True)
class Delivered:
    """The receiver has it."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Retry:
    """Try again, not before `at`."""

    at: dt.datetime
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Dead:
    """No further try without a person's act."""

    reason: str


Decision = Delivered | Retry | Dead


def decide_delivery(tries: int, outcome: Outcome, policy: Policy, now: dt.datetime, jitter: float) -> Decision:
    """Say what follows from try number `tries` (1 for the first); `jitter` is in [0, 1]."""
    # An acknowledged delivery is over, whatever number it had.
    if isinstance(outcome, Responded) and 200 <= outcome.status_code < 300:
        return Delivered(f"acknowledged with {outcome.status_code}")
    if isinstance(outcome, Impossible):
        return Dead(outcome.reason)
    # Following a redirect would let a receiver point us anywhere.
    if isinstance(outcome, Responded) and 300 <= outcome.status_code < 400:
        return Dead(f"answered {outcome.status_code}: redirects are not followed")
    reason = outcome.reason if isinstance(outcome, Broken) else f"answered {outcome.status_code}"
    if tries >= policy.max_tries:
        return Dead(f"{reason}; no answer in {tries} tries")
    delay = delay_seconds(tries, policy, jitter)
    if isinstance(outcome, Responded) and outcome.retry_after_seconds is not None:
        delay = max(delay, min(outcome.retry_after_seconds, policy.cap_seconds))
    return Retry(now + dt.timedelta(seconds=delay), reason)


def delay_seconds(tries: int, policy: Policy, jitter: float) -> float:
    """Return the wait after try number `tries`: doubles from the base up to the cap, less up to half by jitter."""
    step = min(policy.cap_seconds, policy.base_seconds * 2.0 ** min(tries - 1, 60))
    return step * (1.0 - JITTER_SHARE * (1.0 - jitter))
