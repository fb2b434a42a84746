"""Which request is mirrored next, and what the shadow says of the candidate. Pure.

Real traffic goes first: while any request of the model waits, nothing is mirrored. Each stratum (endpoint and size) has
an equal part of the requests, so that what differs in one size alone is found; cheap strata come first, and of each the
cheapest request: what differs in all of them is found before a device-second is spent on the dear ones. The control is
asked again beforehand only in a stratum in which an answer lay outside its tolerance before (`diffs/noise`).
"""

import dataclasses
import datetime as dt
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from forestay.diffs.distribution import LEAST, Shift, compare_distributions
from forestay.diffs.noise import MISSING, OUTSIDE, Compared, Said, asks_first, judge_sameness, strength
from forestay.media.measures import FILM_FEATURES, PICTURE_FEATURES, SOUND_FEATURES
from forestay.rollouts.shadow.model import Expect, Offered, Pair, ShadowPolicy

COPIES = 2  # of each request, at most: one for the candidate, and where it is needed one for the control
_FEATURES = {"image": PICTURE_FEATURES, "video": FILM_FEATURES, "audio": SOUND_FEATURES}


@dataclasses.dataclass(frozen=True, slots=True)
class Mirror:
    """Ask the candidate this, and the control once more: beforehand, or only where the candidate's answer differs."""

    offered: Offered
    body: bytes
    reason: str
    asks_first: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What the shadow says. `compared` requests were judged; `spent_seconds` of devices were taken."""

    said: Said
    reason: str
    compared: int = 0
    differing: int = 0
    spent_seconds: float = 0.0
    log_capital: float = 0.0


def decide_mirror(policy: ShadowPolicy, pairs: Sequence[Pair], offers: Sequence[Offered], waiting: int) -> list[Mirror]:
    """Return the requests to mirror now; `waiting` counts requests of callers that wait for the model."""
    under_way = [pair for pair in pairs if pair.open]
    done = [pair for pair in pairs if not pair.skipped]
    room = min(policy.at_a_time - len(under_way), policy.requests - len(done))
    if waiting > 0 or room <= 0:
        return []
    taken = {pair.request_id for pair in pairs}
    counts = Counter(pair.stratum for pair in done)
    left = policy.budget_seconds - spent(pairs) - sum(_expected(pair, offers) for pair in under_way)
    chosen: list[Mirror] = []
    fresh = [(offer, body) for offer in offers if offer.request_id not in taken if (body := seeded(offer, policy))]
    strata = {pair.stratum for pair in done} | {offer.stratum for offer, _ in fresh}
    part = math.ceil(policy.requests / max(1, len(strata)))
    cheapest: dict[str, float] = {}
    for offer, _ in fresh:
        cheapest[offer.stratum] = min(cheapest.get(offer.stratum, math.inf), offer.device_seconds)
    while fresh and len(chosen) < room:
        best = min(fresh, key=lambda item: _order(item[0], counts, part, cheapest))
        offer, body = best
        if COPIES * offer.device_seconds > left:
            break
        left -= COPIES * offer.device_seconds
        reason = f"{counts[offer.stratum]} of {part} requests of {offer.stratum} were compared before"
        counts[offer.stratum] += 1
        fresh.remove(best)
        chosen.append(Mirror(offer, body, reason, asks_control(policy, pairs, offer.stratum)))
    return chosen


def asks_control(policy: ShadowPolicy, pairs: Sequence[Pair], stratum: str) -> bool:
    """Tell whether the control is asked again whatever the candidate answers: for the spread of what is to be alike."""
    compared = [_counted(pair, policy) for pair in pairs if pair.outcome is not None]
    return policy.expect is Expect.ALIKE or asks_first(compared, stratum)


def asks_again(policy: ShadowPolicy, found: Mapping[str, float]) -> bool:
    """Tell whether the candidate's distances say nothing until the control has answered once more, too."""
    counted = found if policy.expect is Expect.SAME else {MISSING: found.get(MISSING, 0.0)}
    return strength(counted)[0] > OUTSIDE


def _order(
    offer: Offered, counts: Mapping[str, int], part: int, cheapest: Mapping[str, float]
) -> tuple[int, float, str, float, str]:
    """Return what the least of comes next: strata short of their part, the cheapest of them, its cheapest request."""
    beyond = max(0, counts[offer.stratum] - part + 1)
    return beyond, cheapest[offer.stratum], offer.stratum, offer.device_seconds, str(offer.request_id)


def _expected(pair: Pair, offers: Sequence[Offered]) -> float:
    return COPIES * next((offer.device_seconds for offer in offers if offer.request_id == pair.request_id), 0.0)


def seeded(offer: Offered, policy: ShadowPolicy) -> bytes | None:
    """Return the input with the seed that the control's answer was made with; None when nobody knows it.

    It stands in the input, or in the answer as fal's models give it. What is only to be alike needs none.
    """
    try:
        asked = msgspec.json.decode(offer.body, type=dict[str, object])
        answered = msgspec.json.decode(offer.answer, type=dict[str, object])
    except msgspec.DecodeError:
        return None
    if isinstance(asked.get("seed"), int):
        return offer.body
    seed = answered.get("seed")
    if isinstance(seed, int) and not isinstance(seed, bool):
        return msgspec.json.encode({**asked, "seed": seed})
    return None if policy.expect is Expect.SAME else offer.body


def spent(pairs: Sequence[Pair]) -> float:
    """Return the device-seconds that copies have taken."""
    return sum(pair.device_seconds for pair in pairs)


def judge_shadow(policy: ShadowPolicy, pairs: Sequence[Pair], now: dt.datetime, since: dt.datetime) -> Verdict:
    """Return what the comparisons say so far. Inconclusive for good once deadline or budget are over."""
    compared = [_counted(pair, policy) for pair in pairs if pair.outcome is not None]
    level = policy.alpha if policy.expect is not Expect.ALIKE else policy.alpha / 2
    same = judge_sameness(compared, level, policy.requests)
    verdict = Verdict(same.said, same.reason, same.compared, same.differing, spent(pairs), same.log_capital)
    if same.said is Said.SAME and policy.expect is Expect.ALIKE:
        return _alike(verdict, pairs, level)
    return dataclasses.replace(verdict, reason=same.reason + _ending(policy, verdict, pairs, now, since))


def is_over(policy: ShadowPolicy, pairs: Sequence[Pair], now: dt.datetime, since: dt.datetime) -> str:
    """Return why no more will be compared; empty while more may be."""
    if (now - since).total_seconds() >= policy.deadline_seconds:
        return f"no verdict in {policy.deadline_seconds:g} s"
    if spent(pairs) >= policy.budget_seconds:
        return f"the budget of {policy.budget_seconds:g} device-seconds is spent"
    return ""


def _ending(policy: ShadowPolicy, verdict: Verdict, pairs: Sequence[Pair], now: dt.datetime, since: dt.datetime) -> str:
    if verdict.said is not Said.INCONCLUSIVE:
        return ""
    skipped = Counter(pair.skipped for pair in pairs if pair.skipped)
    told = "".join(f"; {count} left out: {why}" for why, count in skipped.most_common(2))
    over = is_over(policy, pairs, now, since)
    return told + (f"; {over}" if over else "")


def _counted(pair: Pair, policy: ShadowPolicy) -> Compared:
    """Return what counts of a comparison: where outputs may differ, only that there is one."""
    whole = pair.compared()
    if policy.expect is Expect.SAME:
        return whole
    floor = {MISSING: whole.floor.get(MISSING, 0.0)} if whole.floor else {}
    return dataclasses.replace(whole, floor=floor, found={MISSING: whole.found.get(MISSING, 0.0)})


def _alike(verdict: Verdict, pairs: Sequence[Pair], level: float) -> Verdict:
    shift = shift_of(pairs)
    if shift.pairs < LEAST:
        reason = f"{verdict.reason}; only {shift.pairs} answers have features to compare"
        return dataclasses.replace(verdict, said=Said.INCONCLUSIVE, reason=reason)
    said = Said.DIFFERS if shift.p_value <= level else Said.SAME
    return dataclasses.replace(verdict, said=said, reason=f"{verdict.reason}; {shift.told()}")


def shift_of(pairs: Sequence[Pair]) -> Shift:
    """Compare the features of what both made, of the kind of file that most of them are."""
    kinds = Counter(pair.outcome.kind for pair in pairs if pair.outcome is not None and pair.outcome.features[0])
    if not kinds:
        return Shift(0.0, 1.0, 0)
    kind = kinds.most_common(1)[0][0]
    names = _FEATURES.get(kind, ())
    rows = [
        pair.outcome.features
        for pair in pairs
        if pair.outcome is not None
        and pair.outcome.kind == kind
        and len(pair.outcome.features[0]) == len(pair.outcome.features[1]) == len(names)
    ]
    if not rows:
        return Shift(0.0, 1.0, 0)
    control, candidate = (np.array([row[side] for row in rows], dtype=np.float64) for side in (0, 1))
    return compare_distributions(control, candidate, names)
